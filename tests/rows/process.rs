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
use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use tokio::task::block_in_place;
use trunkline::Connector;

use crate::support::place::Place;
use crate::support::server::EchoServer;

use super::rig::{Parts, Rig, STREAMS, idempotent};
use super::served::{NAMES, Served, endpoints};

/// The entry's name.
const ENTRY: &str = "server_process";

/// What a process is told: name, address and delay in milliseconds.
const TOLD: &str = "TRUNKLINE_SERVER_PROCESS";

/// An echo server in another process. Dropping it kills it.
///
/// Its process ends with this one, however this one ends: its input is a pipe from here.
#[derive(Debug)]
pub struct ServerProcess {
    /// Keeps the port.
    place: Place,
    process: Mutex<Process>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
    handled: Option<BTreeMap<u64, u64>>,
}

impl ServerProcess {
    /// Starts one, and waits until it listens.
    pub fn start(name: &str, delay: Duration) -> Self {
        let place = Place::tcp();
        let told = format!("{name} {} {}", place.addr(), delay.as_millis());
        let mut child = Command::new(env::current_exe().unwrap())
            .args([ENTRY, "--exact", "--ignored", "--nocapture"])
            .env(TOLD, told)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let ready = output.by_ref().lines().any(|line| line.unwrap() == "ready");
        assert!(ready, "{name} did not start");
        Self {
            place,
            process: Mutex::new(Process {
                child,
                output,
                handled: None,
            }),
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
        let pid = self.process.lock().unwrap().child.id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // After the name, which is in parentheses and may hold anything.
        stat.rsplit(')').next().unwrap().trim().starts_with('T')
    }
}

impl Served for ServerProcess {
    fn place(&self) -> String {
        self.place.uri()
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
        let command = format!("kill -{signal} {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &command]).status().unwrap();
        assert!(sent.success(), "{command}: {sent}");
    }

    fn last_words(&mut self) -> BTreeMap<u64, u64> {
        self.signal("CONT");
        drop(self.child.stdin.take());
        let mut handled = BTreeMap::new();
        for line in self.output.by_ref().lines() {
            if let Some(words) = line.unwrap().strip_prefix("handled ") {
                let (id, count) = words.split_once(' ').unwrap();
                handled.insert(id.parse().unwrap(), count.parse().unwrap());
            }
        }
        let ended = self.child.wait().unwrap();
        assert!(ended.success(), "a server process: {ended}");
        handled
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process itself: serves until its input ends, and then tells what it handled.
pub fn serve() {
    let Ok(told) = env::var(TOLD) else {
        return;
    };
    let told: Vec<_> = told.split(' ').collect();
    let [name, addr, delay] = told[..] else {
        panic!("{TOLD}: {told:?}");
    };
    let server = EchoServer::builder(name)
        .delay(Duration::from_millis(delay.parse().unwrap()))
        .max_concurrent_streams(STREAMS as u32)
        .at(addr.parse::<SocketAddr>().unwrap());
    // The test runner's own line has no end yet.
    println!("\nready");
    io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
    for (id, count) in server.journal().handled() {
        println!("handled {id} {count}");
    }
}

impl Rig<ServerProcess> {
    /// Three server processes with this delay. The retrying channel gives up on an attempt after `per_try`.
    pub async fn start_processes(delay: Duration, per_try: Duration) -> Self {
        let start = || NAMES.map(|name| ServerProcess::start(name, delay)).into();
        let parts = Parts::start(STREAMS, || block_in_place(start)).await;
        let connector = || Connector::endpoints(endpoints(&parts.servers));
        let retry = idempotent().per_try_timeout(per_try);
        let channels = [connector().retry(retry), connector()];
        parts.rig(channels, |it| it).await
    }
}
