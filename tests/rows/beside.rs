//! Whether endpoints suffer beside a slow one.

use std::time::Duration;

use trunkline::{Connector, Endpoint};

use crate::support::load::Load;

use super::is_strict;
use super::rig::{Reports, Rig, SINGLE_IDS};
use super::served::{NAMES, Served};
use super::side::Side;
use super::timings::{Span, Timings, percentile};

/// As much for each endpoint as in a rig's load.
const CONTROL_RATE: f64 = 250.0 * 2.0 / 3.0;
const CONTROL_IDS: u64 = SINGLE_IDS * 3;

/// The endpoints that are never slow.
const OTHERS: [&str; 2] = [NAMES[1], NAMES[2]];

/// What 99 % of the calls did not exceed.
#[derive(Debug)]
pub struct P99s {
    pub before: Duration,
    /// On the two other endpoints, while one is slow.
    pub others: Duration,
    /// There at the same time, on a channel that does not have the slow one: whatever else happens on this machine.
    pub control: Duration,
    /// Half of the others.
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
            ("p99_control_us", micros(self.control)),
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
            let usual = self.before.max(self.control);
            let leeway = Duration::from_millis(1).max(usual / 10);
            assert!(self.others <= usual + leeway, "{self:?}");
        }
    }
}

/// Runs the load, with the first server slow from one third of the time to two thirds.
pub async fn compare<S: Served>(rig: &Rig<S>, slow: impl Fn(), heal: impl Fn()) -> (Reports, P99s) {
    let others = [1, 2].map(|nth| Endpoint::uri(rig.address(nth)));
    let control = Side::start(Connector::endpoints(others)).await;
    let (timings, control_timings) = (Timings::default(), Timings::default());
    let timed = |timings: &Timings| {
        let timings = timings.clone();
        move |channel, id| timings.clone().call(channel, id)
    };
    let load = rig.load_with(timed(&timings));
    let control_load = Load::new(CONTROL_RATE)
        .duration(super::duration())
        .first_id(CONTROL_IDS);
    let control_load = control_load.start({
        let (channel, call) = (control.channel.clone(), timed(&control_timings));
        move |id| call(channel.clone(), id)
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
    let control_report = control_load.finish().await;
    assert!(control_report.failed.is_empty() && control_report.lost.is_empty());

    let mut others = timings.sorted(&OTHERS, meanwhile);
    // They have waited before they came there.
    others.truncate(others.len() - moved);
    let p99s = P99s {
        before: percentile(&timings.sorted(&OTHERS, before), 99),
        others: percentile(&others, 99),
        control: percentile(&control_timings.sorted(&OTHERS, meanwhile), 99),
        others_median: percentile(&others, 50),
        slow: percentile(&timings.sorted(&[NAMES[0]], meanwhile), 99),
        moved,
    };
    (reports, p99s)
}
