//! Score card rows 14 and 15: one endpoint is slow, and the others do not suffer for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::time::Duration;

use rows::beside::compare;
use rows::rig::Rig;
use support::chaos::Toxics;
use trunkline::{Attempt, Error};

/// What a call takes where nothing is slow.
const HANDLER: Duration = Duration::from_millis(5);

/// A server that takes a hundred times as long has its third of the calls, and the others' take what they took before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_14_slow_endpoint() {
    let rig = Rig::start(HANDLER).await;
    let slow = |factor| rig.servers[0].behaviour().set_delay(HANDLER * factor);
    let (reports, p99s) = compare(&rig, || slow(100), || slow(1)).await;

    rig.score("14", &reports, None, &p99s.figures()).await;
    reports.none_failed();
    assert!(p99s.slow >= HANDLER * 100, "{p99s:?}");
    p99s.others_are_unchanged();
}

/// A link that is slower than its calls takes no time from calls on other links. What fails was on the slow one, at its
/// deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_15_slow_link() {
    let (rig, proxies) = Rig::start_behind_proxies(HANDLER, 15).await;
    let narrow = Toxics {
        bytes_per_second: Some(64_000 / 8),
        ..Toxics::default()
    };
    let narrow = || proxies[0].set(narrow);
    let (reports, p99s) = compare(&rig, narrow, || proxies[0].set(Toxics::default())).await;

    let slow = rig.address(0);
    let dials = rig.retrying.dials.count() + rig.single.dials.count();
    let mut figures = p99s.figures();
    figures.push(("dials", dials as u64));
    drop(proxies);
    rig.score("15", &reports, None, &figures).await;
    for failure in reports.retrying.failed.iter().chain(&reports.single.failed) {
        let error = Error::from_status(&failure.status).expect("the channel's error");
        // Some left it when a connection was lost, with little time to go.
        let mut tried = error.history().iter().map(Attempt::endpoint);
        assert!(tried.any(|it| it == Some(&slow)), "{error:?}");
    }
    assert!(!reports.single.failed.is_empty(), "the link was not slow");
    p99s.others_are_unchanged();
}
