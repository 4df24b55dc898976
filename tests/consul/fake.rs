//! An agent that does what a test says: a small HTTP/1.1 server with a script.
//!
//! Every query is put to the script, which says what becomes of it. A query that is held is put to the next script as
//! soon as there is one, so a change of the script is to the client what a change of the catalogue is.
//!
//! ```ignore
//! let fake = Fake::start(knows(7, listing(&servers)));
//! let channel = Connector::consul(Consul::service("web").agent(fake.agent())).connect().await.unwrap();
//! fake.follow(knows(8, listing([])));
//! fake.follow(|_: &Ask| Answer::Close);
//! ```

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, interval, sleep_until};

use crate::support::server::EchoServer;

/// The server, on a task of the test's runtime. Dropping it closes all its connections.
#[derive(Debug)]
pub struct Fake {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

/// A query.
#[derive(Clone, Debug)]
pub struct Ask {
    /// With all parameters.
    pub path: String,
    /// Its other lines, as they came.
    pub headers: Vec<String>,
    pub at: Instant,
}

/// What becomes of a query.
#[derive(Clone, Debug)]
pub enum Answer {
    Now(Reply),
    /// As a real agent does while there is nothing new: this, once the query's own wait is over. A new script comes first.
    Hold(Reply),
    /// Not a word, until the client gives up.
    Never,
    /// The connection is closed.
    Close,
}

/// A status, an index and a body.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    /// X-Consul-Index, which need not be a number.
    pub index: Option<String>,
    pub body: Body,
    /// The connection is closed after it, as the head says.
    pub closing: bool,
}

#[derive(Clone, Debug)]
pub enum Body {
    Whole(String),
    /// One byte a second.
    Drip(String),
    /// So many spaces, with their number in front or in chunks.
    Spaces {
        bytes: u64,
        chunked: bool,
    },
}

/// What a client that had enough closed its connection upon.
#[derive(Clone, Debug)]
pub struct GivenUp {
    pub ask: Ask,
    /// Since the query came, or since the head of the answer was sent.
    pub after: Duration,
}

type Script = Arc<dyn Fn(&Ask) -> Answer + Send + Sync>;

struct Shared {
    script: watch::Sender<Script>,
    connections: AtomicU64,
    asked: Mutex<Vec<Ask>>,
    given_up: Mutex<Vec<GivenUp>>,
}

impl Fake {
    pub fn start(script: impl Fn(&Ask) -> Answer + Send + Sync + 'static) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: watch::Sender::new(Arc::new(script)),
            connections: AtomicU64::new(0),
            asked: Mutex::default(),
            given_up: Mutex::default(),
        });
        let listener = TcpListener::from_std(listener).unwrap();
        let task = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self { addr, shared, task }
    }

    /// Replaces the script. Queries that are held are put to the new one.
    pub fn follow(&self, script: impl Fn(&Ask) -> Answer + Send + Sync + 'static) {
        self.shared.script.send_replace(Arc::new(script));
    }

    /// What a client is told for an agent.
    pub fn agent(&self) -> String {
        self.addr.to_string()
    }

    /// All queries so far.
    pub fn asked(&self) -> Vec<Ask> {
        self.shared.asked.lock().unwrap().clone()
    }

    pub fn queries(&self) -> u64 {
        self.shared.asked.lock().unwrap().len() as u64
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(SeqCst)
    }

    /// The queries whose client closed the connection before it had the answer, unless they were being held.
    pub fn given_up(&self) -> Vec<GivenUp> {
        self.shared.given_up.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ask {
    /// The index that the answer is to be newer than.
    pub fn index(&self) -> Option<u64> {
        Some(self.parameter("index")?.parse().unwrap())
    }

    /// For how long to wait for such an answer. Consul's default is 5 minutes.
    pub fn wait(&self) -> Duration {
        let wait = self.parameter("wait").map_or(300_000, |wait| {
            let millis = wait.strip_suffix("ms").expect("a wait in milliseconds");
            millis.parse().unwrap()
        });
        Duration::from_millis(wait)
    }

    /// A header's value, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter().filter_map(|it| it.split_once(':'));
        let (_, value) = headers.find(|(it, _)| it.eq_ignore_ascii_case(name))?;
        Some(value.trim())
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        let (_, parameters) = self.path.split_once('?')?;
        let mut named = parameters.split('&').filter_map(|it| it.split_once('='));
        named.find(|(it, _)| *it == name).map(|(_, value)| value)
    }
}

impl Reply {
    /// Success.
    pub fn new(index: u64, body: impl Into<String>) -> Self {
        Self {
            status: 200,
            index: Some(index.to_string()),
            body: Body::Whole(body.into()),
            closing: false,
        }
    }

    pub fn closing(mut self) -> Self {
        self.closing = true;
        self
    }

    pub fn index(mut self, index: Option<String>) -> Self {
        self.index = index;
        self
    }

    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} Fake\r\n", self.status);
        let length = match &self.body {
            Body::Whole(text) | Body::Drip(text) => Some(text.len() as u64),
            Body::Spaces { chunked: true, .. } => None,
            Body::Spaces { bytes, .. } => Some(*bytes),
        };
        let _ = match length {
            Some(length) => write!(head, "Content-Length: {length}\r\n"),
            None => write!(head, "Transfer-Encoding: chunked\r\n"),
        };
        if self.closing {
            head += "Connection: close\r\n";
        }
        if let Some(index) = &self.index {
            let _ = write!(head, "X-Consul-Index: {index}\r\n");
        }
        head + "\r\n"
    }
}

/// What a real agent does whose catalogue has this under this index.
pub fn knows(index: u64, listing: String) -> impl Fn(&Ask) -> Answer {
    let reply = Reply::new(index, listing);
    move |ask| match ask.index() {
        Some(asked) if asked >= index => Answer::Hold(reply.clone()),
        _ => Answer::Now(reply.clone()),
    }
}

/// A service with these servers, as the body of an answer.
pub fn listing<'a>(servers: impl IntoIterator<Item = &'a EchoServer>) -> String {
    let entries = servers
        .into_iter()
        .map(|server| entry(server.name(), server.addr()));
    Value::from_iter(entries).to_string()
}

/// One entry of it.
pub fn entry(id: &str, addr: SocketAddr) -> Value {
    json!({
        "Node": {"Node": "fake", "Address": addr.ip().to_string(), "Datacenter": "dc1"},
        "Service": {
            "ID": id,
            "Service": "web",
            "Address": "",
            "Port": addr.port(),
            "Tags": [],
            "Meta": {},
            "Weights": {"Passing": 1, "Warning": 1},
        },
        "Checks": [{"CheckID": "serfHealth", "Status": "passing"}],
    })
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        shared.connections.fetch_add(1, SeqCst);
        // How a connection ends is the client's business.
        connections.spawn(serve(BufReader::new(stream), Arc::clone(&shared)));
        while let Some(ended) = connections.try_join_next() {
            let _ = ended.expect("no script panics");
        }
    }
}

async fn serve(mut stream: BufReader<TcpStream>, shared: Arc<Shared>) -> io::Result<()> {
    let mut script = shared.script.subscribe();
    while let Some(ask) = read(&mut stream).await? {
        shared.asked.lock().unwrap().push(ask.clone());
        let reply = loop {
            let current = Arc::clone(&script.borrow_and_update());
            let reply = match current(&ask) {
                Answer::Now(reply) => break reply,
                Answer::Hold(reply) => reply,
                Answer::Close => return Ok(()),
                Answer::Never => {
                    gone(&mut stream).await;
                    shared.gave_up(&ask, ask.at);
                    return Ok(());
                }
            };
            tokio::select! {
                changed = script.changed() => changed.map_err(io::Error::other)?,
                () = sleep_until(ask.at + ask.wait()) => break reply,
                () = gone(&mut stream) => return Ok(()),
            }
        };
        stream.write_all(reply.head().as_bytes()).await?;
        let began = Instant::now();
        if let Err(error) = send(&mut stream, &reply.body).await {
            shared.gave_up(&ask, began);
            return Err(error);
        }
        if reply.closing {
            return Ok(());
        }
    }
    Ok(())
}

impl Shared {
    fn gave_up(&self, ask: &Ask, since: Instant) {
        self.given_up.lock().unwrap().push(GivenUp {
            ask: ask.clone(),
            after: since.elapsed(),
        });
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("connections", &self.connections)
            .field("asked", &self.asked)
            .field("given_up", &self.given_up)
            .finish_non_exhaustive()
    }
}

/// The next query; `None` after the last.
async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Ask>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let first = lines.remove(0);
    let path = first.strip_prefix("GET ").and_then(|it| it.split_once(' '));
    Ok(Some(Ask {
        path: path.expect("a query").0.to_owned(),
        headers: lines,
        at: Instant::now(),
    }))
}

/// Waits until the client has closed the connection. It sends nothing before it has the answer.
async fn gone(stream: &mut BufReader<TcpStream>) {
    while matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {}
}

async fn send(stream: &mut BufReader<TcpStream>, body: &Body) -> io::Result<()> {
    match body {
        Body::Whole(text) => stream.write_all(text.as_bytes()).await,
        Body::Drip(text) => {
            let mut second = interval(Duration::from_secs(1));
            for byte in text.bytes() {
                tokio::select! {
                    _ = second.tick() => stream.write_all(&[byte]).await?,
                    () = gone(stream) => return Err(io::ErrorKind::BrokenPipe.into()),
                }
            }
            Ok(())
        }
        Body::Spaces { bytes, chunked } => {
            let spaces = [b' '; 64 * 1024];
            let mut left = *bytes;
            while left > 0 {
                let part = left.min(spaces.len() as u64);
                if *chunked {
                    stream.write_all(format!("{part:x}\r\n").as_bytes()).await?;
                }
                stream.write_all(&spaces[..part as usize]).await?;
                if *chunked {
                    stream.write_all(b"\r\n").await?;
                }
                left -= part;
            }
            if *chunked {
                stream.write_all(b"0\r\n\r\n").await?;
            }
            Ok(())
        }
    }
}
