//! Score card rows 10, 11, 12 and 53: endpoints that can't be connected to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::time::Duration;

use rows::dials::Dialled;
use rows::limit;
use rows::rig::{LIMIT, Loads, Rig, most_dials};
use rows::stall::{Stage, Stall};
use support::wait::wait_until;
use tokio::task::block_in_place;
use tokio::time::Instant;
use trunkline::State;

/// The connect limit of the rows' settings.
const CONNECT: Duration = Duration::from_millis(500);

/// Calls leave a server that refuses connections at once, and it is dialled no more often than the backoff says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_10_connection_refused() {
    let mut rig = Rig::start(Duration::ZERO).await;
    let load = rig.load();
    let fault = load.third(1).await;
    let began = Instant::now();
    block_in_place(|| rig.servers[0].kill());
    wait_until(LIMIT, || !rig.states(0).contains(&State::Ready)).await;
    let moved = began.elapsed();
    let handled = [1, 2].map(|nth| rig.servers[nth].journal().started());
    let sent = load.sent();
    load.third(2).await;
    let down = began.elapsed();
    let dials = [&rig.retrying, &rig.single].map(|side| side.dials.to(&rig.address(0), began));
    // Each of the others has half of what was sent.
    let sent = load.sent() - sent;
    for (nth, before) in [1, 2].into_iter().zip(handled) {
        let handled = rig.servers[nth].journal().started() - before;
        assert!(handled * 2 + 20 >= sent, "{handled} of {sent}");
    }
    rig.servers[0].restart();
    rig.ready(0, LIMIT).await;
    let reports = load.finish().await;

    reports.no_idempotent_failed();
    let most = most_dials(down);
    for dials in &dials {
        assert!(dials.len() >= 2, "it is tried again and again");
        assert!(dials.len() <= most, "{} dials in {down:?}", dials.len());
        let refused = |dial: &Dialled| dial.error == Some(std::io::ErrorKind::ConnectionRefused);
        assert!(dials.iter().all(refused), "{dials:?}");
    }
    let recovery = reports.recovery(fault);
    let figures = [
        ("share_ms", moved.as_millis() as u64),
        ("dials", dials.iter().map(Vec::len).max().unwrap() as u64),
        ("dials_allowed", most as u64),
    ];
    rig.score("10", reports, Some(recovery), &figures).await;
    assert!(moved <= limit(Duration::from_millis(100)), "{moved:?}");
}

/// A dial whose SYN nobody answers ends at the connect limit, and no call waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_11_syn_dropped() {
    let mut rig = Rig::start(Duration::ZERO).await;
    let load = rig.load();
    let fault = load.third(1).await;
    let dials = stalled_until(&mut rig, &load, Stage::Syn, 2).await;
    rig.servers[0].restart();
    rig.ready(0, LIMIT).await;
    let reports = load.finish().await;

    reports.no_idempotent_failed();
    let recovery = reports.recovery(fault);
    let figures = ended_at_the_limit(&dials);
    rig.score("11", reports, Some(recovery), &figures).await;
}

/// The limit covers what comes after the connect as well: a server that accepts, or even begins to speak, and then is
/// silent is given up at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_12_silence_after_accept() {
    let mut rig = Rig::start(Duration::ZERO).await;
    let load = rig.load();
    let fault = load.third(1).await;
    let mut dials = Vec::new();
    for stage in [Stage::Accept, Stage::Preface, Stage::Settings] {
        dials.extend(stalled_until(&mut rig, &load, stage, 1).await);
    }
    rig.servers[0].restart();
    rig.ready(0, LIMIT).await;
    let reports = load.finish().await;

    reports.no_idempotent_failed();
    let recovery = reports.recovery(fault);
    let figures = ended_at_the_limit(&dials);
    rig.score("12", reports, Some(recovery), &figures).await;
}

/// Puts a stall in the place of the first server until each channel has given up this many dials. Gives those.
async fn stalled_until(rig: &mut Rig, load: &Loads, stage: Stage, count: usize) -> Vec<Dialled> {
    let addr = rig.servers[0].addr();
    let stall = block_in_place(|| {
        rig.servers[0].kill();
        Stall::at(addr, stage)
    });
    let address = rig.address(0);
    let began = Instant::now();
    let given_up = |side: &rows::rig::Side| {
        let mut dials = side.dials.to(&address, began);
        dials.retain(|dial| dial.lasted.is_some());
        dials
    };
    let failed = load.retrying.not_ok();
    let both = || [given_up(&rig.retrying), given_up(&rig.single)];
    wait_until(LIMIT, || both().iter().all(|dials| dials.len() >= count)).await;
    assert_eq!(load.retrying.not_ok(), failed, "{stage:?}");
    let dials = both().concat();
    drop(stall);
    dials
}

/// Asserts that each of these dials ended at the connect limit. Gives the row's figures.
fn ended_at_the_limit(dials: &[Dialled]) -> [(&'static str, u64); 3] {
    let lasted: Vec<_> = dials.iter().filter_map(|dial| dial.lasted).collect();
    let shortest = lasted.iter().min().unwrap();
    let longest = lasted.iter().max().unwrap();
    assert!(*shortest >= CONNECT, "{dials:?}");
    assert!(*longest <= CONNECT + limit(Duration::from_millis(50)), "{dials:?}");
    assert!(dials.iter().all(|dial| dial.error.is_none()), "{dials:?}");
    [
        ("dials", dials.len() as u64),
        ("shortest_ms", shortest.as_millis() as u64),
        ("longest_ms", longest.as_millis() as u64),
    ]
}
