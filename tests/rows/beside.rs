//! Whether endpoints suffer beside a slow one.

use std::time::Duration;

use super::is_strict;
use super::rig::{Reports, Rig};
use super::served::Served;
use super::timings::{Span, Timings, percentile};

/// What 99 % of the calls did not exceed.
#[derive(Debug)]
pub struct P99s {
    pub before: Duration,
    /// On the two other endpoints, while one is slow.
    pub others: Duration,
    /// Half of those.
    pub others_median: Duration,
    /// On the slow one, as far as they were answered.
    pub slow: Duration,
    /// Calls that left the slow one unprocessed, when a connection to it was lost.
    pub moved: usize,
}

impl P99s {
    /// For the row's line.
    pub fn figures(&self) -> Vec<(&'static str, u64)> {
        let micros = |time: Duration| time.as_micros() as u64;
        vec![
            ("p99_before_us", micros(self.before)),
            ("p99_others_us", micros(self.others)),
            ("p50_others_us", micros(self.others_median)),
            ("p99_slow_us", micros(self.slow)),
            ("moved", self.moved as u64),
        ]
    }

    /// Panics if the calls on the others took longer while one was slow.
    pub fn others_are_unchanged(&self) {
        // On a busy machine all that shows is that they are not slow too.
        assert!(self.others_median < Duration::from_millis(100), "{self:?}");
        if is_strict() {
            // A tenth, or the tick of a timer where that is more.
            let leeway = Duration::from_millis(1).max(self.before / 10);
            assert!(self.others <= self.before + leeway, "{self:?}");
        }
    }
}

/// Runs the load, with the first server slow from one third of the time to two thirds.
pub async fn compare<S: Served>(rig: &Rig<S>, slow: impl Fn(), heal: impl Fn()) -> (Reports, P99s) {
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
