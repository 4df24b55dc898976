//! Score card row 1: a long time without a fault. `scripts/soak` runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::env;
use std::io::{BufRead, BufReader, Read, stdin};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rows::calls::call;
use rows::memory::resident_kib;
use rows::number;
use rows::panics::Panics;
use rows::rig::{SINGLE_IDS, STREAMS, Side, server, slots_are_free};
use support::journal::duplicates;
use support::leak::LeakCheck;
use support::load::Load;
use support::report::Report;
use tokio::task::block_in_place;
use tokio::time::interval;
use trunkline::{Connector, Endpoint, Retry};

const MINUTE: Duration = Duration::from_secs(60);

/// Each channel's share of the load.
const RATE: u64 = 250;

/// Set for the process that has the servers.
const SERVERS: &str = "TRUNKLINE_SOAK_SERVERS";

/// Half an hour of load changes nothing: no call fails, and neither memory nor latency grows. The servers, which remember
/// all calls, are in a process of their own; what is measured is the clients'. The first minute is for warming up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes TRUNKLINE_SOAK_MINUTES and one more"]
async fn row_01_soak() {
    let minutes = number("TRUNKLINE_SOAK_MINUTES", 30).max(2);
    let leaks = LeakCheck::start().await;
    let panics = Panics::watch();
    let servers = Servers::start();
    let connector = || Connector::endpoints(servers.uris.iter().map(Endpoint::uri));
    let retrying = Side::start(connector()).await;
    let single = Side::start(connector().retry(Retry::none())).await;

    let mut all = Report::default();
    let mut seen = Vec::new();
    for minute in 0..=minutes {
        let (report, memory) = one_minute([&retrying, &single], minute * RATE * 60 + 1).await;
        let p99 = report.latency(0.99);
        eprintln!("minute {minute}: {memory} KiB, p99 {p99:?}");
        seen.push((memory, p99));
        all = all.joined(Report {
            // A list that grows by the call would be measured too.
            latencies: Vec::new(),
            ..report
        });
    }
    let (memory, latency) = seen[1];
    let (last_memory, last_latency) = seen[minutes as usize];

    for side in [&retrying, &single] {
        slots_are_free(&side.channel, STREAMS).await;
        assert_eq!(side.dials.count(), 3, "no connection was replaced");
    }
    drop((retrying, single));
    let twice = block_in_place(|| servers.end());
    let figures = [
        ("calls", all.sent),
        ("minutes", minutes),
        ("rss_kib_first", memory),
        ("rss_kib_last", last_memory),
        ("p99_us_first", latency.as_micros() as u64),
        ("p99_us_last", last_latency.as_micros() as u64),
        ("panics", panics.count()),
    ];
    all.score_with("1", &twice, leaks.leaked().await, None, &figures);
    assert!(all.failed.is_empty(), "{:?}", all.failed);
    assert_eq!(panics.count(), 0);
    let growth = last_memory.saturating_sub(memory);
    assert!(growth * 50 < memory, "{growth} KiB more than {memory} KiB");
    let slower = last_latency.saturating_sub(latency);
    assert!(slower * 10 <= latency, "{slower:?} more than {latency:?}");
}

/// A minute of load. Gives what became of it, and the memory in use meanwhile: the median of a sample each second.
async fn one_minute(sides: [&Side; 2], first_id: u64) -> (Report, u64) {
    let [one, other] =
        [(sides[0], first_id), (sides[1], first_id + SINGLE_IDS)].map(|(side, id)| {
            let channel = side.channel.clone();
            let load = Load::new(RATE as f64).duration(MINUTE).first_id(id);
            load.start(move |id| call(channel.clone(), id))
        });
    let mut samples = Vec::new();
    let mut second = interval(Duration::from_secs(1));
    while one.elapsed() < MINUTE {
        second.tick().await;
        samples.push(resident_kib());
    }
    samples.sort_unstable();
    let report = one.finish().await.joined(other.finish().await);
    (report, samples[samples.len() / 2])
}

/// Three servers in another process.
struct Servers {
    uris: Vec<String>,
    process: Child,
    words: BufReader<ChildStdout>,
}

impl Servers {
    fn start() -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "servers_of_the_soak"])
            .args(["--ignored", "--nocapture"])
            .env(SERVERS, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut words = BufReader::new(process.stdout.take().unwrap());
        let uris = said(&mut words, "servers ");
        Self {
            uris: uris.split_whitespace().map(str::to_owned).collect(),
            process,
            words,
        }
    }

    /// Ends them. Gives the ids that were handled twice.
    fn end(mut self) -> Vec<u64> {
        drop(self.process.stdin.take());
        let twice = said(&mut self.words, "twice ");
        assert!(self.process.wait().unwrap().success());
        twice
            .split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect()
    }
}

/// What follows `word` in a line of its own; the test program says other things too.
fn said(words: &mut BufReader<ChildStdout>, word: &str) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        let read = words.read_line(&mut line).unwrap();
        assert!(read > 0, "the servers ended without saying {word:?}");
        if let Some(at) = line.find(word) {
            return line[at + word.len()..].to_owned();
        }
    }
}

/// The process of the soak's servers: says where they are, and at the end of its input which ids were handled twice.
#[test]
#[ignore = "is started by the soak"]
fn servers_of_the_soak() {
    if env::var_os(SERVERS).is_none() {
        return;
    }
    let servers = ["a", "b", "c"].map(|name| server(name, Duration::ZERO));
    let uris = servers.each_ref().map(|server| server.uri());
    println!("\nservers {}", uris.join(" "));
    let _ = stdin().read_to_end(&mut Vec::new());
    let twice = duplicates(servers.each_ref().map(|server| server.journal().handled()));
    let twice: Vec<_> = twice.iter().map(u64::to_string).collect();
    println!("\ntwice {}", twice.join(" "));
}
