//! The echo service on a real tonic server, which can be killed, shut down and restarted where it was.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tonic::service::Routes;
use tonic::transport::Server;
use trunkline_proto::echo_server::EchoServer as EchoServerService;

use super::behaviour::Behaviour;
use super::echo::EchoService;
use super::health::HealthScript;
use super::incoming::Incoming;
use super::journal::Journal;
use super::net::BoundListener;
use super::place::Place;
use super::thread::ServerThread;
use super::wait::within;

/// How long a graceful shutdown may take.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// An echo server on a thread and runtime of its own. It accepts connections as soon as it is made.
///
/// Dropping it kills it, and panics if anything panicked in it.
#[derive(Debug)]
pub struct EchoServer {
    options: EchoServerBuilder,
    place: Place,
    journal: Arc<Journal>,
    behaviour: Arc<Behaviour>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    shutdown: oneshot::Sender<Infallible>,
    thread: ServerThread,
}

impl EchoServer {
    /// A server with default options on a free loopback port. `name` is what its replies say.
    pub fn start_tcp(name: &str) -> Self {
        Self::builder(name).tcp()
    }

    /// A server with default options on a Unix socket.
    pub fn start_unix(name: &str, path: impl Into<PathBuf>) -> Self {
        Self::builder(name).unix(path)
    }

    /// Options first, then [`tcp`](EchoServerBuilder::tcp) or [`unix`](EchoServerBuilder::unix).
    pub fn builder(name: &str) -> EchoServerBuilder {
        EchoServerBuilder {
            name: name.into(),
            delay: Duration::ZERO,
            max_concurrent_streams: None,
            max_connection_age: None,
            max_message_size: None,
            health: None,
            beside: Routes::default(),
        }
    }

    /// The name in its replies.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// The TCP address, the same for life.
    pub fn addr(&self) -> SocketAddr {
        self.place.addr()
    }

    /// The path of the Unix socket, the same for life.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// `http://address` or `unix://path`.
    pub fn uri(&self) -> String {
        self.place.uri()
    }

    /// What it counted, since it was first started.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// How it treats calls from now on.
    pub fn behaviour(&self) -> &Behaviour {
        &self.behaviour
    }

    /// Ends it as SIGKILL would: every socket is closed at once, without GOAWAY. Connecting to it is then refused; a
    /// Unix socket's file stays behind. Does nothing to a server that is down.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            self.journal.set_dying(true);
            running.thread.kill();
            self.journal.set_dying(false);
        }
    }

    /// Ends it gracefully: no more connections, GOAWAY on each, and a wait until the calls in flight are through and
    /// the clients have closed. Removes a Unix socket's file. Panics when that takes more than 10 s.
    pub async fn shutdown(&mut self) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        drop(running.shutdown);
        within(
            SHUTDOWN_LIMIT,
            "a graceful shutdown",
            running.thread.ended(),
        )
        .await;
        self.place.remove_file();
    }

    /// Starts it again at the same address with the same options. Kills it first if it still runs.
    pub fn restart(&mut self) {
        self.kill();
        self.running = Some(self.serve());
    }

    /// Whether it was started and neither killed nor shut down since.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    fn serve(&self) -> Running {
        let listener = self.place.listen();
        let service = EchoService {
            name: self.options.name.clone(),
            journal: Arc::clone(&self.journal),
            behaviour: Arc::clone(&self.behaviour),
        };
        let options = self.options.clone();
        let (shutdown, asked) = oneshot::channel();
        let main = move || serve(options, service, listener, asked);
        Running {
            shutdown,
            thread: ServerThread::start(&self.options.name, main),
        }
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.kill();
        self.place.remove_file();
        if !std::thread::panicking() {
            assert_eq!(self.journal.panicked(), 0, "panics in {}", self.name());
        }
    }
}

/// Options of an [`EchoServer`].
#[derive(Clone, Debug)]
pub struct EchoServerBuilder {
    name: Arc<str>,
    delay: Duration,
    max_concurrent_streams: Option<u32>,
    max_connection_age: Option<Duration>,
    max_message_size: Option<usize>,
    health: Option<HealthScript>,
    beside: Routes,
}

impl EchoServerBuilder {
    /// Every call waits this long before it is answered. Default: not at all.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// SETTINGS_MAX_CONCURRENT_STREAMS. Default: tonic's (200).
    pub fn max_concurrent_streams(mut self, streams: u32) -> Self {
        self.max_concurrent_streams = Some(streams);
        self
    }

    /// Each connection gets GOAWAY at this age, and closes when its calls are through. Default: never.
    pub fn max_connection_age(mut self, age: Duration) -> Self {
        self.max_connection_age = Some(age);
        self
    }

    /// The largest message taken and sent, in bytes. Default: tonic's (4 MiB taken, any size sent).
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = Some(bytes);
        self
    }

    /// Has a health service, too. Default: none.
    pub fn health(mut self, script: HealthScript) -> Self {
        self.health = Some(script);
        self
    }

    /// Serves these, too.
    pub fn beside(mut self, services: Routes) -> Self {
        self.beside = services;
        self
    }

    /// Starts on a free loopback port.
    pub fn tcp(self) -> EchoServer {
        self.start(Place::tcp())
    }

    /// Starts on a loopback port that another process holds for this one.
    pub fn at(self, addr: SocketAddr) -> EchoServer {
        self.start(Place::held_for_us(addr))
    }

    /// Starts on a Unix socket.
    pub fn unix(self, path: impl Into<PathBuf>) -> EchoServer {
        self.start(Place::Unix(path.into()))
    }

    fn start(self, place: Place) -> EchoServer {
        let behaviour = Behaviour::default();
        behaviour.set_delay(self.delay);
        let mut server = EchoServer {
            options: self,
            place,
            journal: Arc::default(),
            behaviour: Arc::new(behaviour),
            running: None,
        };
        server.restart();
        server
    }
}

/// The server thread's future: ends when `asked` is dropped and every connection is closed.
async fn serve(
    options: EchoServerBuilder,
    service: EchoService,
    listener: BoundListener,
    asked: oneshot::Receiver<Infallible>,
) {
    let incoming = Incoming::new(listener.into_listener(), &service.journal);
    let mut service = EchoServerService::new(service);
    if let Some(bytes) = options.max_message_size {
        service = service
            .max_decoding_message_size(bytes)
            .max_encoding_message_size(bytes);
    }
    let mut server = Server::builder();
    if let Some(streams) = options.max_concurrent_streams {
        server = server.max_concurrent_streams(streams);
    }
    if let Some(age) = options.max_connection_age {
        server = server.max_connection_age(age);
    }
    server
        .add_routes(options.beside.add_service(service))
        .add_optional_service(options.health)
        .serve_with_incoming_shutdown(incoming, async {
            let _ = asked.await;
        })
        .await
        .expect("the server serves");
}
