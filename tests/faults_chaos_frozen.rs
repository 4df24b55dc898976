//! Score card row 54: a server stands still, and its kernel doesn't; a machine has too much to do, and nothing is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use rows::dials::Dialled;
use rows::flips::Flips;
use rows::limit;
use rows::rig::{LIMIT, Rig, SINGLE_IDS};
use rows::served::Served;
use support::wait::wait_until;
use tokio::task::block_in_place;
use tokio::time::Instant;
use trunkline::{EndpointStatus, Error, State};

/// What a call takes where nothing is frozen.
const HANDLER: Duration = Duration::from_millis(5);
/// How long an attempt may take that can be repeated. The calls' second would be over by the time keepalive tells.
const PER_TRY: Duration = Duration::from_millis(400);
/// Keepalive's interval and timeout, and a little for timers and a busy machine.
const DETECT: Duration = Duration::from_millis(500 + 500 + 50);
/// The most that the dialling backoff waits, with its jitter, and the connect limit.
const BACK: Duration = Duration::from_millis(2400 + 500);

/// A frozen server costs only calls that may not be repeated, were made before keepalive finds it, and end with their
/// deadline. That its kernel accepts connections makes it as little ready as that it acknowledges bytes. Once it goes on,
/// it is used again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_54_server_frozen() {
    let rig = Rig::start_processes(HANDLER, PER_TRY).await;
    let server = &rig.servers[0];
    let sides = || [&rig.retrying, &rig.single];
    let statuses = || sides().map(|side| side.channel.status().endpoints.remove(0));
    let is_left = || {
        let left = |it: &EndpointStatus| it.state != State::Ready && it.in_flight == 0;
        statuses().iter().all(left)
    };

    let load = rig.load();
    let fault = load.part(1, 3).await;
    let sent_before = load.single.sent();
    block_in_place(|| server.freeze());
    wait_until(LIMIT, || server.is_frozen()).await;
    let frozen = Instant::now();
    wait_until(LIMIT, is_left).await;
    let found = frozen.elapsed();
    let sent = || [load.retrying.sent(), load.single.sent()];
    let when_found = sent();
    load.watch(2, 3, || {
        assert!(is_left(), "it is used before it says a word")
    })
    .await;
    let dials = sides().map(|side| side.dials.to(&rig.address(0), frozen));
    let when_thawed = sent();
    block_in_place(|| server.thaw());
    let thawed = Instant::now();
    rig.ready(0, LIMIT).await;
    let back = thawed.elapsed();
    let answered = || statuses().map(|it| it.answered);
    let before = answered();
    let is_used = || (0..2).all(|side| answered()[side] > before[side]);
    wait_until(LIMIT, is_used).await;
    let reports = load.finish().await;

    // After the last call: this ends it.
    let handled = server.handled();
    let late = [1, SINGLE_IDS]
        .into_iter()
        .zip(when_found.into_iter().zip(when_thawed));
    let late = late.flat_map(|(first, (from, to))| first + from..first + to);
    let late: Vec<u64> = late.filter(|id| handled.contains_key(id)).collect();
    let lasted = |dial: &Dialled| dial.lasted.map(|it| it.as_millis() as u64);
    let figures = [
        ("found_ms", found.as_millis() as u64),
        ("back_ms", back.as_millis() as u64),
        ("dials", dials.iter().map(Vec::len).sum::<usize>() as u64),
        (
            "dial_ms",
            dials.iter().flatten().filter_map(lasted).max().unwrap_or(0),
        ),
        ("retries", rig.retrying.channel.stats().retries),
    ];
    let address = rig.address(0);
    let recovery = reports.recovery(fault);
    rig.score("54a", &reports, Some(recovery), &figures).await;
    reports.no_idempotent_failed();
    for failure in &reports.single.failed {
        let error = Error::from_status(&failure.status).expect("the channel's error");
        assert_eq!(error.endpoint(), Some(&*address), "{error:?}");
        assert!(error.maybe_processed(), "{error:?}");
    }
    // A third of those made until it was found, and those that were under way.
    let failed = reports.single.failed.len() as u64;
    let most = (when_found[1] - sent_before) / 3 + 10;
    assert!(failed <= most, "{failed}, not {most}");
    assert_eq!(late, [0; 0], "made after it was found");
    for dials in &dials {
        assert!(!dials.is_empty(), "it is tried again");
        // Its kernel took them, and nobody answered.
        assert!(dials.iter().all(|dial| dial.error.is_none()), "{dials:?}");
    }
    assert!(found <= limit(DETECT), "{found:?}");
    assert!(back <= limit(BACK), "{back:?}");
}

/// Twice as many threads that only compute as there are processors make calls slow, and no connection and no endpoint is
/// given up for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_54_machine_starved() {
    let rig = Rig::start_processes(HANDLER, PER_TRY).await;
    let mut flips = [(); 3].map(|()| Flips::default());
    let mut look = || {
        for (nth, flips) in flips.iter_mut().enumerate() {
            flips.look(&rig, nth);
        }
    };
    let load = rig.load();
    let fault_at = load.watch(1, 3, &mut look).await;
    let dials = || [&rig.retrying, &rig.single].map(|side| side.dials.count());
    let before = dials();
    let busy = Busy::threads(4);
    load.watch(2, 3, &mut look).await;
    let dialled = dials();
    let computed = block_in_place(|| busy.stop());
    load.watch(1, 1, &mut look).await;
    let reports = load.finish().await;

    let flipped: u64 = flips.iter().flat_map(Flips::counts).sum();
    let all = reports.retrying.clone().joined(reports.single.clone());
    let figures = [
        ("flips", flipped),
        ("p99_us", all.latency(0.99).as_micros() as u64),
        ("busy_rounds", computed),
    ];
    let recovery = reports.recovery(fault_at);
    rig.score("54b", &reports, Some(recovery), &figures).await;
    assert_eq!(before, [3, 3], "a connection to each server");
    assert_eq!(dialled, before, "a connection was given up");
    assert_eq!(flipped, 0, "{flips:#?}");
    reports.none_failed();
}

/// Threads that do nothing but compute.
struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Busy {
    fn threads(count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let compute = |stop: Arc<AtomicBool>| {
            let mut rounds = 0_u64;
            while !stop.load(SeqCst) {
                rounds = std::hint::black_box(rounds + 1);
            }
            rounds
        };
        let start = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || compute(stop))
        };
        Self {
            threads: (0..count).map(start).collect(),
            stop,
        }
    }

    /// Ends them. Gives how much they did.
    fn stop(mut self) -> u64 {
        self.stop.store(true, SeqCst);
        let threads = std::mem::take(&mut self.threads);
        threads.into_iter().map(|it| it.join().unwrap()).sum()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
    }
}

/// What the rows above start this binary anew for.
#[test]
#[ignore = "a server process of the other test"]
fn server_process() {
    rows::process::serve();
}
