//! Servers in processes of their own, which can be frozen: this test binary, started anew.
//!
//! A test that uses them has an entry for them:
//!
//! ```ignore
//! #[test]
//! #[ignore = "the server process of the other tests"]
//! fn server_process() {
//!     rows::process::serve();
//! }
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use tokio::task::block_in_place;
use trunkline::Connector;

use crate::support::place::Place;
use crate::support::server::EchoServer;

use super::apart::{Apart, say, told, wait_for_end};
use super::netns::Network;
use super::rig::{Parts, Rig, STREAMS, idempotent};
use super::served::{NAMES, Served, endpoints};

/// The entry's name.
const ENTRY: &str = "server_process";

/// An echo server in another process. Dropping it kills it.
#[derive(Debug)]
pub struct ServerProcess {
    addr: SocketAddr,
    /// Keeps the port, where others might take it.
    _place: Option<Place>,
    process: Mutex<Process>,
}

#[derive(Debug)]
struct Process {
    apart: Apart,
    handled: Option<BTreeMap<u64, u64>>,
}

impl ServerProcess {
    /// Starts one, and waits until it listens.
    pub fn start(name: &str, delay: Duration) -> Self {
        let place = Place::tcp();
        let addr = place.addr();
        let apart = Apart::start(ENTRY, &told_of(name, addr, delay));
        Self::started(addr, Some(place), apart)
    }

    /// The same as one of a network's servers.
    pub fn start_in(network: &Network, nth: usize, name: &str, delay: Duration) -> Self {
        let addr = network.server(nth);
        let told = told_of(name, addr, delay);
        let apart = Apart::start_in(&network.namespace(nth), ENTRY, &told);
        Self::started(addr, None, apart)
    }

    fn started(addr: SocketAddr, place: Option<Place>, mut apart: Apart) -> Self {
        apart.said("ready");
        let process = Process {
            apart,
            handled: None,
        };
        Self {
            addr,
            _place: place,
            process: Mutex::new(process),
        }
    }

    /// Stops it where it is (SIGSTOP): its kernel goes on to accept and to acknowledge for it.
    pub fn freeze(&self) {
        self.process.lock().unwrap().signal("STOP");
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) {
        self.process.lock().unwrap().signal("CONT");
    }

    /// Whether it stands still.
    pub fn is_frozen(&self) -> bool {
        let pid = self.process.lock().unwrap().apart.pid();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // After the name, which is in parentheses and may hold anything.
        stat.rsplit(')').next().unwrap().trim().starts_with('T')
    }
}

impl Served for ServerProcess {
    fn place(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Ends it too: it tells this as its last words.
    fn handled(&self) -> BTreeMap<u64, u64> {
        let mut process = self.process.lock().unwrap();
        if process.handled.is_none() {
            process.handled = Some(process.last_words());
        }
        process.handled.clone().unwrap()
    }
}

impl Process {
    fn signal(&self, signal: &str) {
        let command = format!("kill -{signal} {}", self.apart.pid());
        let sent = Command::new("sh").args(["-c", &command]).status().unwrap();
        assert!(sent.success(), "{command}: {sent}");
    }

    fn last_words(&mut self) -> BTreeMap<u64, u64> {
        self.signal("CONT");
        let words = self.apart.end("handled");
        let calls = words.split_whitespace().map(|call| {
            let (id, count) = call.split_once('=').unwrap();
            (id.parse().unwrap(), count.parse().unwrap())
        });
        calls.collect()
    }
}

fn told_of(name: &str, addr: SocketAddr, delay: Duration) -> String {
    format!("{name} {addr} {}", delay.as_millis())
}

/// The process itself: serves until its input ends, and then tells what it handled.
pub fn serve() {
    let Some(told) = told() else {
        return;
    };
    let told: Vec<_> = told.split(' ').collect();
    let [name, addr, delay] = told[..] else {
        panic!("{told:?}");
    };
    let server = EchoServer::builder(name)
        .delay(Duration::from_millis(delay.parse().unwrap()))
        .max_concurrent_streams(STREAMS as u32)
        .at(addr.parse::<SocketAddr>().unwrap());
    say("ready", "");
    wait_for_end();
    let handled = server.journal().handled().into_iter();
    let handled: Vec<_> = handled.map(|(id, count)| format!("{id}={count}")).collect();
    say("handled", &handled.join(" "));
}

impl Rig<ServerProcess> {
    /// Three server processes with this delay. The retrying channel gives up on an attempt after `per_try`.
    pub async fn start_processes(delay: Duration, per_try: Duration) -> Self {
        let start = || NAMES.map(|name| ServerProcess::start(name, delay)).into();
        Self::start_with(start, per_try).await
    }

    /// The same, each in a namespace of the network.
    pub async fn start_in(network: &Network, delay: Duration, per_try: Duration) -> Self {
        let start = |nth| ServerProcess::start_in(network, nth, NAMES[nth], delay);
        Self::start_with(|| (0..3).map(start).collect(), per_try).await
    }

    async fn start_with(start: impl FnOnce() -> Vec<ServerProcess>, per_try: Duration) -> Self {
        let parts = Parts::start(STREAMS, || block_in_place(start)).await;
        let connector = || Connector::endpoints(endpoints(&parts.servers));
        let retry = idempotent().per_try_timeout(per_try);
        let channels = [connector().retry(retry), connector()];
        parts.rig(channels, |it| it).await
    }
}
