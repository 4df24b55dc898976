//! Score card rows 14 and 15: one endpoint is slow, and the others do not suffer for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::time::Duration;

use rows::is_strict;
use rows::rig::{Reports, Rig};
use rows::timings::{Span, Timings, percentile};
use support::chaos::Toxics;
use trunkline::Error;

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
        assert!(error.to_string().contains(&slow), "{error:?}");
    }
    assert!(!reports.single.failed.is_empty(), "the link was not slow");
    p99s.others_are_unchanged();
}

/// What 99 % of the calls did not exceed.
#[derive(Debug)]
struct P99s {
    before: Duration,
    /// On the two other endpoints, while one is slow.
    others: Duration,
    /// Half of those.
    others_median: Duration,
    /// On the slow one, as far as they were answered.
    slow: Duration,
    /// Calls that left the slow one unprocessed, when a connection to it was lost.
    moved: usize,
}

impl P99s {
    fn figures(&self) -> Vec<(&'static str, u64)> {
        let micros = |time: Duration| time.as_micros() as u64;
        vec![
            ("p99_before_us", micros(self.before)),
            ("p99_others_us", micros(self.others)),
            ("p50_others_us", micros(self.others_median)),
            ("p99_slow_us", micros(self.slow)),
            ("moved", self.moved as u64),
        ]
    }

    fn others_are_unchanged(&self) {
        // On a busy machine all that shows is that they are not slow too.
        assert!(self.others_median < Duration::from_millis(100), "{self:?}");
        if is_strict() {
            // A tenth, or the tick of a timer where that is more.
            let leeway = Duration::from_millis(1).max(self.before / 10);
            assert!(self.others <= self.before + leeway, "{self:?}");
        }
    }
}

/// Runs the load, with server `a` slow from one third of the time to two thirds.
async fn compare(rig: &Rig, slow: impl Fn(), heal: impl Fn()) -> (Reports, P99s) {
    let timings = Timings::default();
    let load = rig.load_with({
        let timings = timings.clone();
        move |channel, id| timings.clone().call(channel, id)
    });
    let moved = || rig.single.channel.stats().resends as usize;
    Span::until(&load, 1, 12).await;
    let before = Span::until(&load, 1, 3).await;
    let moved_before = moved();
    slow();
    let meanwhile = Span::until(&load, 2, 3).await;
    heal();
    let moved = moved() - moved_before;
    let reports = load.finish().await;
    let mut others = timings.sorted(&["b", "c"], meanwhile);
    // They have waited before they came there.
    others.truncate(others.len() - moved);
    let p99s = P99s {
        before: percentile(&timings.sorted(&["b", "c"], before), 99),
        others: percentile(&others, 99),
        others_median: percentile(&others, 50),
        slow: percentile(&timings.sorted(&["a"], meanwhile), 99),
        moved,
    };
    (reports, p99s)
}
