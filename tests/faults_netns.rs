//! Score card rows 5 to 8: packets are lost, in a network of the test's own. `scripts/netns` runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::time::Duration;

use rows::flips::{Flips, gets_calls, statuses};
use rows::limit;
use rows::netns::{Fault, Network};
use rows::rig::{LIMIT, Rig};
use support::wait::{holds_within, wait_until};
use tokio::task::block_in_place;
use tokio::time::Instant;
use trunkline::{EndpointStatus, Error, State};

/// What a call takes where nothing is lost.
const HANDLER: Duration = Duration::from_millis(5);
/// How long an attempt may take that can be repeated. Calls have a second, and keepalive takes one to find out.
const PER_TRY: Duration = Duration::from_millis(400);
/// The same where packets have to be sent again, and again: what is late then is not to be taken for lost at once.
const LATE: Duration = Duration::from_millis(750);
/// Keepalive's interval and timeout.
const DETECT: Duration = Duration::from_millis(500 + 500);
/// What timers and a busy machine may add.
const SLACK: Duration = Duration::from_millis(50);
/// The longest wait of the dialling backoff, with its jitter, and the connect limit.
const BACK: Duration = Duration::from_millis(2400 + 500);

/// A server that vanishes costs only calls that may not be repeated, were made before keepalive finds out, and end with
/// their deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "makes network namespaces: scripts/netns"]
async fn row_05_silent_partition_of_one() {
    one_is_lost("5", Fault::Cut(0)).await;
}

/// The same where the server goes on to handle the calls, and only its replies are lost: none of them runs twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "makes network namespaces: scripts/netns"]
async fn row_07_one_way_loss() {
    one_is_lost("7", Fault::Mute(0)).await;
}

async fn one_is_lost(row: &str, fault: Fault) {
    let network = block_in_place(Network::new);
    let rig = Rig::start_in(&network, HANDLER, PER_TRY).await;
    let sides = || [&rig.retrying, &rig.single];
    let statuses = || sides().map(|side| side.channel.status().endpoints.remove(0));
    let is_left = || {
        let left = |it: &EndpointStatus| it.state != State::Ready && it.in_flight == 0;
        statuses().iter().all(left)
    };
    // Attempts that were sent there.
    let went = || statuses().map(|it| it.answered + it.failed + it.in_flight as u64);

    let load = rig.load();
    let fault_at = load.part(1, 3).await;
    let went_before = went();
    let lost = Instant::now();
    block_in_place(|| network.suffer(fault));
    let left = holds_within(LIMIT, is_left).await;
    assert!(left, "{:#?}", statuses());
    let found = lost.elapsed();
    load.watch(2, 3, || assert!(is_left(), "nothing goes through"))
        .await;
    let went_after = went();
    let dials = sides().map(|side| side.dials.to(&rig.address(0), lost));
    assert!(block_in_place(|| network.lost()) > 0, "nothing was lost");
    block_in_place(|| network.heal());
    let healed = Instant::now();
    rig.ready(0, LIMIT).await;
    let back = healed.elapsed();
    let answered = || statuses().map(|it| it.answered);
    let before = answered();
    let is_used = || (0..2).all(|side| answered()[side] > before[side]);
    wait_until(LIMIT, is_used).await;
    let reports = load.finish().await;

    let went = [0, 1].map(|side| went_after[side] - went_before[side]);
    let figures = [
        ("found_ms", found.as_millis() as u64),
        ("back_ms", back.as_millis() as u64),
        ("went_there", went.iter().sum()),
        ("dials", dials.iter().map(Vec::len).sum::<usize>() as u64),
        ("retries", rig.retrying.channel.stats().retries),
    ];
    let address = rig.address(0);
    let recovery = reports.recovery(fault_at);
    rig.score(row, &reports, Some(recovery), &figures).await;
    reports.no_idempotent_failed_but_one_begun();
    for failure in &reports.single.failed {
        let error = Error::from_status(&failure.status).expect("the channel's error");
        assert_eq!(error.endpoint(), Some(&*address), "{error:?}");
        assert!(error.maybe_processed(), "{error:?}");
    }
    assert!(found <= limit(DETECT + SLACK), "{found:?}");
    assert!(back <= limit(BACK), "{back:?}");
    // A third of the calls for that time, and those that were under way.
    let most = (limit(DETECT + SLACK).as_secs_f64() * 250.0 / 3.0) as u64 + 10;
    assert!(went.iter().all(|it| *it <= most), "{went:?}, not {most}");
}

/// While no server can be reached all calls end by their deadline, most of them at once; soon after one can, they succeed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "makes network namespaces: scripts/netns"]
async fn row_06_silent_partition_of_all() {
    let network = block_in_place(Network::new);
    let rig = Rig::start_in(&network, HANDLER, PER_TRY).await;
    let sides = || [&rig.retrying, &rig.single];
    let load = rig.load();
    load.part(1, 3).await;
    let lost = Instant::now();
    block_in_place(|| network.suffer(Fault::CutAll));
    let is_down = || {
        let down = |it: State| it != State::Ready;
        sides().iter().all(|side| down(side.channel.status().state))
    };
    wait_until(LIMIT, is_down).await;
    let found = lost.elapsed();
    load.part(2, 3).await;
    assert!(block_in_place(|| network.lost()) > 0, "nothing was lost");
    block_in_place(|| network.heal());
    let healed_at = load.elapsed();
    let healed = Instant::now();
    rig.all_ready().await;
    let back = healed.elapsed();
    let reports = load.finish().await;

    let recovery = reports.recovery(healed_at);
    let figures = [
        ("found_ms", found.as_millis() as u64),
        ("back_ms", back.as_millis() as u64),
        ("retries", rig.retrying.channel.stats().retries),
    ];
    rig.score("6", &reports, Some(recovery), &figures).await;
    assert!(!reports.retrying.failed.is_empty(), "no call failed");
    assert!(found <= limit(DETECT + SLACK), "{found:?}");
    assert!(recovery <= limit(Duration::from_secs(3)), "{recovery:?}");
}

/// A link that loses a third of what is sent costs next to nothing, and its server does not come and go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "makes network namespaces: scripts/netns"]
async fn row_08_packet_loss_to_one() {
    let network = block_in_place(Network::new);
    let rig = Rig::start_in(&network, HANDLER, LATE).await;
    let load = rig.load();
    let fault_at = load.part(1, 3).await;
    block_in_place(|| network.suffer(Fault::Lossy(0, 30)));
    let went = || statuses(&rig, 0).map(|it| it.answered + it.failed);
    let went_before = went();
    let mut flips = Flips::default();
    load.watch(2, 3, || flips.look(&rig, 0)).await;
    let during = flips.counts();
    let went_after = went();
    let went = [0, 1].map(|side| went_after[side] - went_before[side]);
    let dials = [&rig.retrying, &rig.single].map(|it| it.dials.count() as u64 - 3);
    assert!(block_in_place(|| network.lost()) > 0, "nothing was lost");
    block_in_place(|| network.heal());
    let is_used = || {
        flips.look(&rig, 0);
        gets_calls(&rig, 0) == [true; 2]
    };
    wait_until(rows::duration() / 3, is_used).await;
    let reports = load.finish().await;

    let figures = [
        ("flips_retrying", flips.counts()[0]),
        ("flips_single", flips.counts()[1]),
        ("flips_meanwhile", during.iter().sum()),
        ("redials_retrying", dials[0]),
        ("redials_single", dials[1]),
        ("went_retrying", went[0]),
        ("went_single", went[1]),
        ("retries", rig.retrying.channel.stats().retries),
    ];
    let recovery = reports.recovery(fault_at);
    rig.score("8", &reports, Some(recovery), &figures).await;
    let failed = reports.retrying.failed.len() as u64;
    assert!(
        failed * 1000 <= reports.retrying.sent,
        "{:?}",
        reports.retrying.failed
    );
    flips.are_few();
}

/// What the rows above start this binary anew for.
#[test]
#[ignore = "a server process of the other tests"]
fn server_process() {
    rows::process::serve();
}
