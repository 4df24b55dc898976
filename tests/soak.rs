//! Score card row 1: a long time without a fault. `scripts/soak` runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::time::Duration;

use rows::calls::call;
use rows::memory::{is_steady, resident_kib};
use rows::number;
use rows::panics::Panics;
use rows::process::ServerProcess;
use rows::rig::{SINGLE_IDS, STREAMS, idempotent, slots_are_free};
use rows::served::{NAMES, Served, endpoints};
use rows::side::Side;
use support::journal::duplicates;
use support::leak::LeakCheck;
use support::load::Load;
use support::report::Report;
use tokio::task::block_in_place;
use tokio::time::interval;
use trunkline::Connector;

const MINUTE: Duration = Duration::from_secs(60);

/// Each channel's share of the load.
const RATE: u64 = 250;

/// Half an hour of load changes nothing: no call fails, and neither memory nor latency grows. The servers, which remember
/// all calls, are in processes of their own; what is measured is the clients'. The first minute is for warming up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes TRUNKLINE_SOAK_MINUTES and one more"]
async fn row_01_soak() {
    let minutes = number("TRUNKLINE_SOAK_MINUTES", 30).max(2);
    let leaks = LeakCheck::start().await;
    let panics = Panics::watch();
    let start = || NAMES.map(|name| ServerProcess::start(name, Duration::ZERO));
    let servers = block_in_place(start);
    let connector = || Connector::endpoints(endpoints(&servers));
    let retrying = Side::start(connector().retry(idempotent())).await;
    let single = Side::start(connector()).await;

    let mut all = Report::default();
    let mut seen = Vec::new();
    for minute in 0..=minutes {
        let (report, memory) = one_minute([&retrying, &single], minute * RATE * 60 + 1).await;
        let p99 = report.latency(0.99);
        let failed = report.failed.len() + report.lost.len();
        eprintln!("minute {minute}: {memory} KiB, p99 {p99:?}, {failed} failed");
        for failure in report.failed.iter().take(3) {
            eprintln!("  {failure:?}");
        }
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
    let handled = || servers.each_ref().map(|server| server.handled());
    let twice = duplicates(block_in_place(handled));
    drop(servers);
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
    assert!(
        is_steady(),
        "MALLOC_ARENA_MAX=1 and MALLOC_MMAP_THRESHOLD_ are missing"
    );
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

#[test]
#[ignore = "the process of the soak's servers"]
fn server_process() {
    rows::process::serve();
}
