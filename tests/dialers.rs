//! Diallers of one's own: an in-memory one that works, and some that break.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod client;
mod support;

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use client::calls::{ask, unary};
use client::expected::Expected;
use support::behaviour::Behaviour;
use support::calls::request;
use support::echo::EchoService;
use support::journal::Journal;
use support::leak::LeakCheck;
use support::wait::{holds_within, wait_equal, wait_until, within};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Server;
use trunkline::{
    Address, Backoff, BoxIo, CallOptions, Connector, Dial, DialError, Dialing, PoolOptions, Retry,
    Stage, State,
};
use trunkline_proto::echo_server::EchoServer;

const LIMIT: Duration = Duration::from_secs(5);
const MILLI: Duration = Duration::from_millis(1);

/// The client's end of a server that no socket leads to.
#[derive(Clone, Debug)]
struct Memory {
    connections: mpsc::Sender<io::Result<DuplexStream>>,
    journal: Arc<Journal>,
}

impl Memory {
    /// Serves until the last clone is gone and all connections are closed.
    fn serve() -> Self {
        let (connections, incoming) = mpsc::channel(16);
        let journal = Arc::<Journal>::default();
        let service = EchoService {
            name: "memory".into(),
            journal: Arc::clone(&journal),
            behaviour: Arc::<Behaviour>::default(),
        };
        let server = Server::builder().add_service(EchoServer::new(service));
        tokio::spawn(server.serve_with_incoming(ReceiverStream::new(incoming)));
        Self {
            connections,
            journal,
        }
    }

    async fn connect(&self) -> Result<BoxIo, DialError> {
        let (ours, theirs) = duplex(64 << 10);
        match self.connections.send(Ok(theirs)).await {
            Ok(()) => Ok(Box::new(ours)),
            Err(_) => Err(DialError::connect(io::ErrorKind::ConnectionRefused.into())),
        }
    }
}

/// A dialler that does what a function says for each dial, counted from 1.
struct Scripted<F> {
    script: F,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    dials: AtomicU64,
    /// Dials that are over, in any way.
    over: AtomicU64,
}

/// What becomes of a dial.
enum Fate {
    Connects(Memory),
    Fails(DialError),
    Panics,
    PanicsLater,
    Hangs,
}

fn scripted(
    script: impl Fn(&Address, u64) -> Fate + Send + Sync + 'static,
) -> (impl Dial, Arc<Counts>) {
    let counts = Arc::<Counts>::default();
    let dialler = Scripted {
        script,
        counts: Arc::clone(&counts),
    };
    (dialler, counts)
}

impl<F: Fn(&Address, u64) -> Fate + Send + Sync + 'static> Dial for Scripted<F> {
    fn dial<'a>(&'a self, address: &'a Address) -> Dialing<'a> {
        let dial = self.counts.dials.fetch_add(1, SeqCst) + 1;
        let over = Over(Arc::clone(&self.counts));
        let fate = (self.script)(address, dial);
        assert!(!matches!(fate, Fate::Panics), "the dialler is broken");
        Box::pin(async move {
            let _over = over;
            tokio::task::yield_now().await;
            match fate {
                Fate::Connects(memory) => memory.connect().await,
                Fate::Fails(error) => Err(error),
                Fate::Panics | Fate::PanicsLater => panic!("the dialler is broken"),
                Fate::Hangs => pending().await,
            }
        })
    }
}

impl<F> std::fmt::Debug for Scripted<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scripted")
    }
}

struct Over(Arc<Counts>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.over.fetch_add(1, SeqCst);
    }
}

/// Dials again soon, and gives up on a dial soon.
fn eager() -> PoolOptions {
    let backoff = Backoff::dialling().initial(5 * MILLI).max(20 * MILLI);
    PoolOptions::new()
        .connect_timeout(50 * MILLI)
        .dial_backoff(backoff)
}

#[tokio::test]
async fn connections_need_no_socket() {
    let leaks = LeakCheck::start().await;
    let memory = Memory::serve();
    let journal = Arc::clone(&memory.journal);
    let (dialler, counts) = scripted(move |address, _| {
        assert_eq!(address.to_string(), "nowhere.test:1");
        Fate::Connects(memory.clone())
    });
    let pool = eager().min_connections(2);
    let connector = Connector::tcp("nowhere.test:1").pool(pool).dialer(dialler);
    let channel = connector.connect().await.unwrap();
    wait_equal(LIMIT, 2, || channel.status().endpoints[0].connections).await;
    let large = trunkline_proto::EchoRequest {
        payload: vec![7; 1 << 20],
        ..request(0)
    };
    let reply = ask(&channel, large, CallOptions::new()).await.unwrap();
    assert_eq!(
        (reply.payload.len(), reply.server.as_str()),
        (1 << 20, "memory")
    );
    let calls = (1..100).map(|id| client::calls::slow(&channel, id, 1));
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    assert_eq!((journal.finished(), counts.dials.load(SeqCst)), (100, 2));
    channel.close(LIMIT).await;
    drop(channel);
    leaks.finish().await;
}

#[tokio::test]
async fn a_dialler_that_panics_is_asked_again() {
    let leaks = LeakCheck::start().await;
    let memory = Memory::serve();
    let (dialler, counts) = scripted(move |_, dial| match dial {
        1 => Fate::Panics,
        2 | 3 => Fate::PanicsLater,
        _ => Fate::Connects(memory.clone()),
    });
    let connector = Connector::unix("/nowhere.sock").dialer(dialler);
    let channel = connector.pool(eager()).connect().await.unwrap();
    assert_eq!(unary(&channel, 1).await.unwrap().id, 1);
    assert_eq!(counts.dials.load(SeqCst), 4);
    drop(channel);

    let (dialler, counts) = scripted(|_, _| Fate::PanicsLater);
    let connector = Connector::tcp("nowhere.test:1").dialer(dialler);
    let connector = connector.pool(eager()).retry(Retry::none());
    let channel = connector.connect_lazy().unwrap();
    let message = "the only endpoint failed: nowhere.test:1: the dialler panicked (*";
    let expected = Expected::new("no_endpoint", Stage::Pick, message);
    expected.check_calls(&channel, CallOptions::new()).await;
    wait_until(LIMIT, || counts.dials.load(SeqCst) > 10).await;
    // Not as fast as it can.
    let before = counts.dials.load(SeqCst);
    assert!(!holds_within(100 * MILLI, || counts.dials.load(SeqCst) > before + 10).await);
    within(LIMIT, "closing", channel.close(Duration::ZERO)).await;
    drop(channel);
    leaks.finish().await;
}

#[tokio::test]
async fn a_dial_that_never_ends_is_given_up() {
    let leaks = LeakCheck::start().await;
    let (dialler, counts) = scripted(|_, _| Fate::Hangs);
    let connector = Connector::tcp("nowhere.test:1").dialer(dialler);
    let connector = connector.pool(eager()).retry(Retry::none());
    let channel = connector.connect_lazy().unwrap();
    let message = "the only endpoint failed: nowhere.test:1: no connection within 50ms (*";
    let expected = Expected::new("no_endpoint", Stage::Pick, message);
    expected.check_calls(&channel, CallOptions::new()).await;
    let expected = Expected {
        code: Code::DeadlineExceeded,
        ..Expected::new("timeout", Stage::Pick, "the deadline of 80ms *")
    };
    let waits = CallOptions::new().wait_for_ready(true).timeout(80 * MILLI);
    expected.check_calls(&channel, waits).await;
    // One at a time, and none is left behind.
    wait_until(LIMIT, || counts.dials.load(SeqCst) >= 3).await;
    assert!(counts.dials.load(SeqCst) - counts.over.load(SeqCst) <= 1);
    channel.close(Duration::ZERO).await;
    assert_eq!(counts.dials.load(SeqCst), counts.over.load(SeqCst));
    drop(channel);

    let (dialler, counts) = scripted(|_, _| Fate::Hangs);
    let connector = Connector::tcp("nowhere.test:1").dialer(dialler);
    let connecting = tokio::spawn(connector.connect());
    wait_equal(LIMIT, 1, || counts.dials.load(SeqCst)).await;
    connecting.abort();
    wait_equal(LIMIT, 1, || counts.over.load(SeqCst)).await;
    leaks.finish().await;
}

#[tokio::test]
async fn what_a_dialler_says_is_what_the_caller_reads() {
    let leaks = LeakCheck::start().await;
    let memory = Memory::serve();
    let (dialler, counts) = scripted(move |_, dial| match dial {
        1 => Fate::Fails(DialError::resolve(io::Error::other(
            "the map has no such place",
        ))),
        2 => Fate::Fails(DialError::connect(io::Error::other("the bridge is out"))),
        3 => Fate::Fails(DialError::connect(io::ErrorKind::ConnectionReset.into())),
        _ => Fate::Connects(memory.clone()),
    });
    let slow = Backoff::dialling().initial(200 * MILLI).max(200 * MILLI);
    let connector = Connector::tcp("nowhere.test:1").dialer(dialler);
    let connector = connector.pool(PoolOptions::new().dial_backoff(slow));
    let channel = connector.connect_lazy().unwrap();
    let error = || channel.status().endpoints.first()?.last_error.clone();
    for problem in ["the map has no such place", "the bridge is out"] {
        wait_until(LIMIT, || error().is_some_and(|it| it.contains(problem))).await;
        let status = unary(&channel, 1).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains("nowhere.test:1: "), "{status}");
    }
    wait_equal(LIMIT, State::Ready, || channel.status().state).await;
    assert_eq!(unary(&channel, 2).await.unwrap().id, 2);
    assert_eq!(counts.dials.load(SeqCst), 4);
    drop(channel);
    leaks.finish().await;
}

#[tokio::test]
async fn an_old_connection_serves_until_its_replacement_is_there() {
    let leaks = LeakCheck::start().await;
    let memory = Memory::serve();
    let (dialler, counts) = scripted(move |_, dial| match dial {
        2 => Fate::Hangs,
        _ => Fate::Connects(memory.clone()),
    });
    let pool = PoolOptions::new()
        .max_connections(1)
        .connect_timeout(500 * MILLI)
        .unix_connect_timeout(500 * MILLI)
        .max_connection_age(600 * MILLI);
    let connector = Connector::tcp("nowhere.test:1").dialer(dialler).pool(pool);
    let channel = connector.connect().await.unwrap();
    let mut states = channel.watch_state();
    states.mark_unchanged();
    wait_equal(LIMIT, 2, || counts.dials.load(SeqCst)).await;
    for id in 0..10 {
        unary(&channel, id).await.unwrap();
    }
    assert_eq!(
        counts.over.load(SeqCst),
        1,
        "all while the second dial was under way"
    );
    // Its failure is no reason to be without a connection either.
    wait_equal(LIMIT, 3, || counts.dials.load(SeqCst)).await;
    unary(&channel, 10).await.unwrap();
    assert!(!states.has_changed().unwrap(), "it was ready all the time");
    drop(channel);
    leaks.finish().await;
}
