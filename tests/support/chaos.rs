//! A proxy that does to connections what bad networks do, after Toxiproxy's toxics.
//!
//! ```ignore
//! let chaos = Chaos::tcp(server.addr(), 16);
//! let channel = Connector::tcp(chaos.addr().to_string());
//! chaos.set(Toxics { latency: Duration::from_millis(200), ..Toxics::default() });
//! chaos.reset_one();
//! ```
//!
//! What is set holds for open connections too, from the next byte on. What is random comes from the seed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use socket2::SockRef;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::chaos_link;
use super::net::{BoundListener, Listener};
use super::place::Place;
use super::thread::ServerThread;

/// What becomes of the bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Toxics {
    /// How long each byte is on its way.
    pub latency: Duration,
    /// Up to so much more or less than that, evenly spread. Bytes keep their order.
    pub jitter: Duration,
    /// The rate, shared by all connections.
    pub bytes_per_second: Option<u64>,
    /// The most bytes per write. Each is sent at once (TCP_NODELAY).
    pub slice: Option<usize>,
    pub flow: Flow,
}

/// Whether bytes go on at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    #[default]
    Forward,
    /// They wait, and so does the end of the connection: a silent partition, as long as the kernels have not given up.
    Hold,
    /// They are thrown away: a black hole that neither end notices. After it, only what comes then goes on.
    Swallow,
    /// The receiver was told that there will be no more (FIN). Open connections stay so.
    Closed,
}

/// One direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

/// A listening proxy on a thread and runtime of its own. Dropping it closes every connection.
#[derive(Debug)]
pub struct Chaos {
    place: Place,
    shared: Arc<Shared>,
    _thread: ServerThread,
}

/// Where a proxy's connections go.
#[derive(Clone, Debug)]
pub(super) enum Upstream {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What the proxy and its connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) upstream: Upstream,
    pub(super) ways: [OneWay; 2],
    /// The open connections, each with what resets it.
    open: Mutex<BTreeMap<u64, oneshot::Sender<()>>>,
    accepted: AtomicU64,
    random: Mutex<Rng>,
}

/// One direction of all connections.
#[derive(Debug)]
pub(super) struct OneWay {
    pub(super) toxics: watch::Sender<Toxics>,
    pub(super) read: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) swallowed: AtomicU64,
    /// When the rate lets the next byte through.
    free_at: Mutex<Instant>,
}

impl Chaos {
    /// Listens on a free loopback port, for a server on TCP.
    pub fn tcp(server: SocketAddr, seed: u64) -> Self {
        Self::start(Place::tcp(), Upstream::Tcp(server), seed)
    }

    /// Listens on a Unix socket at `path`, for a server on another one.
    pub fn unix(path: impl Into<PathBuf>, server: impl Into<PathBuf>, seed: u64) -> Self {
        let upstream = Upstream::Unix(server.into());
        Self::start(Place::Unix(path.into()), upstream, seed)
    }

    fn start(place: Place, upstream: Upstream, seed: u64) -> Self {
        let listener = place.listen();
        if let BoundListener::Tcp(listener) = &listener {
            // Its connections inherit it.
            let size = chaos_link::SOCKET_BUFFER as usize;
            SockRef::from(listener).set_recv_buffer_size(size).unwrap();
        }
        let shared = Arc::new(Shared {
            upstream,
            ways: [OneWay::new(), OneWay::new()],
            open: Mutex::default(),
            accepted: AtomicU64::new(0),
            random: Mutex::new(Rng::with_seed(seed)),
        });
        let accepting = Arc::clone(&shared);
        let main = move || accept(listener.into_listener(), accepting);
        Self {
            place,
            shared,
            _thread: ServerThread::start("chaos", main),
        }
    }

    /// The TCP address.
    pub fn addr(&self) -> SocketAddr {
        self.place.addr()
    }

    /// The path of the Unix socket.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// `http://address` or `unix://path`.
    pub fn uri(&self) -> String {
        self.place.uri()
    }

    /// What happens from now on, in both directions.
    pub fn set(&self, toxics: Toxics) {
        self.set_way(Way::ToServer, toxics);
        self.set_way(Way::ToClient, toxics);
    }

    /// What happens from now on in one direction.
    pub fn set_way(&self, way: Way, toxics: Toxics) {
        self.shared.ways[way as usize].toxics.send_replace(toxics);
    }

    /// Cuts one open connection, any of them, with RST at both ends. False when none is open.
    pub fn reset_one(&self) -> bool {
        let mut open = self.shared.open.lock().unwrap();
        let chosen = self.shared.random.lock().unwrap().choice(open.keys());
        let reset = chosen.copied().and_then(|id| open.remove(&id));
        reset.is_some_and(|reset| reset.send(()).is_ok())
    }

    /// Cuts all open connections with RST.
    pub fn reset_all(&self) {
        while self.reset_one() {}
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.shared.open.lock().unwrap().len()
    }

    /// Bytes that were taken from the sender of this direction.
    pub fn read(&self, way: Way) -> u64 {
        self.shared.ways[way as usize].read.load(SeqCst)
    }

    /// Writes in this direction.
    pub fn writes(&self, way: Way) -> u64 {
        self.shared.ways[way as usize].writes.load(SeqCst)
    }

    /// Bytes of this direction that were thrown away.
    pub fn swallowed(&self, way: Way) -> u64 {
        self.shared.ways[way as usize].swallowed.load(SeqCst)
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.place.remove_file();
    }
}

impl OneWay {
    fn new() -> Self {
        Self {
            toxics: watch::Sender::default(),
            read: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            swallowed: AtomicU64::new(0),
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// When these bytes may be written. The next ones may when the rate has let them through.
    pub(super) fn turn(&self, bytes: usize, per_second: u64) -> Instant {
        let takes = Duration::from_secs_f64(bytes as f64 / per_second as f64);
        let mut free_at = self.free_at.lock().unwrap();
        let turn = Instant::now().max(*free_at) + takes;
        *free_at = turn;
        turn
    }
}

impl Shared {
    /// Notes the end of a connection.
    pub(super) fn ended(&self, id: u64) {
        self.open.lock().unwrap().remove(&id);
    }
}

async fn accept(listener: Listener, shared: Arc<Shared>) {
    let mut links = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let client = accepted.expect("connections can be accepted");
                let id = shared.accepted.fetch_add(1, SeqCst);
                let (reset, when_reset) = oneshot::channel();
                shared.open.lock().unwrap().insert(id, reset);
                let random = shared.random.lock().unwrap().fork();
                links.spawn(chaos_link::run(client, Arc::clone(&shared), id, when_reset, random));
            }
            Some(ended) = links.join_next() => ended.expect("a connection does not panic"),
        }
    }
}
