//! What an endpoint is doing, as pickers see it.

mod report;
mod reported;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

pub(crate) use report::LoadReport;
pub use reported::ReportRules;
use reported::Reported;

/// An endpoint's load. It stays with the endpoint through all sets; calls write it, pickers read it.
#[derive(Debug, Default)]
pub struct Load {
    /// Shared with each call in flight. The count of its owners is theirs: a counter of its own would have to be kept alive
    /// by one, at twice the price for each call.
    calls: Arc<()>,
    latency: Latency,
    reported: Reported,
}

/// A call that counts as in flight until this is dropped.
#[derive(Debug)]
pub(crate) struct InFlight(
    #[expect(dead_code, reason = "it is the count of these that is read")] Arc<()>,
);

impl Load {
    /// Calls that were given to the endpoint and have not ended, those that wait for a stream included. The calls of this
    /// channel only.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        u32::try_from(Arc::strong_count(&self.calls) - 1).unwrap_or(u32::MAX)
    }

    /// One call more.
    pub(crate) fn begin(&self) -> InFlight {
        InFlight(Arc::clone(&self.calls))
    }

    pub(super) fn latency(&self) -> &Latency {
        &self.latency
    }

    /// The endpoint took that long to begin its answer. `now` is the time of the channel's life.
    pub(crate) fn answered(&self, took: Duration, now: Duration) {
        self.latency.observe(took, now);
    }

    /// The endpoint said this of itself.
    pub(crate) fn note_report(&self, report: &LoadReport, rules: &ReportRules, now: Duration) {
        self.reported.note(report, rules, now);
    }

    /// The weight that follows from what it said: calls per second that it could do. `None` if it has said nothing that may be
    /// relied on.
    pub(crate) fn reported_weight(&self, rules: &ReportRules, now: Duration) -> Option<f64> {
        self.reported.weight(rules, now)
    }
}

/// A peak-sensitive moving average of latency: a longer one counts at once, a shorter one little by little.
///
/// One word, so that a reader never sees half an update: the estimate in units of 2⁻⁴ µs above, and the time of it in
/// milliseconds below. 0: nothing was ever observed. Updates that meet may be lost; the next one comes soon.
#[derive(Debug, Default)]
pub(super) struct Latency(AtomicU64);

/// How fast what was is forgotten: after this time e⁻¹ of it is left (Finagle, linkerd).
const DECAY: Duration = Duration::from_secs(10);

/// What is assumed of an endpoint that has not answered yet (linkerd).
const DEFAULT: Duration = Duration::from_millis(30);

/// Units of the estimate in a second.
const UNITS: f64 = 16_000_000.0;

impl Latency {
    /// The estimate in seconds, decayed to `now`: an endpoint that nobody picks must not stay slow for ever.
    pub(super) fn estimate(&self, now: Duration) -> f64 {
        match self.read() {
            None => DEFAULT.as_secs_f64(),
            Some((estimate, at)) => estimate * decay(at, now),
        }
    }

    fn observe(&self, took: Duration, now: Duration) {
        let took = took.as_secs_f64();
        let next = match self.read() {
            Some((estimate, at)) if took < estimate => {
                let kept = decay(at, now);
                estimate * kept + took * (1.0 - kept)
            }
            _ => took,
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "`as` saturates, at four minutes"
        )]
        let units = (next * UNITS) as u32;
        let stamp = u64::from(millis(now).max(1));
        self.0.store(u64::from(units) << 32 | stamp, Relaxed);
    }

    /// The estimate, and the time of it in milliseconds.
    fn read(&self) -> Option<(f64, u32)> {
        let word = self.0.load(Relaxed);
        let at = (word & u64::from(u32::MAX)) as u32;
        let estimate = f64::from((word >> 32) as u32) / UNITS;
        (at > 0).then_some((estimate, at))
    }
}

/// What is left at `now` of what was observed at that time. Counts of milliseconds wrap after 49 days, and threads may come
/// a little late with what they saw: what seems to be more than half of that away is not past.
fn decay(at: u32, now: Duration) -> f64 {
    let elapsed = millis(now).wrapping_sub(at);
    let elapsed = if elapsed > u32::MAX / 2 { 0 } else { elapsed };
    (-f64::from(elapsed) / 1000.0 / DECAY.as_secs_f64()).exp()
}

#[expect(clippy::cast_possible_truncation, reason = "wraps")]
fn millis(now: Duration) -> u32 {
    now.as_millis() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn close(estimate: f64, millis: f64) -> bool {
        (estimate * 1000.0 - millis).abs() < 0.01
    }

    #[test]
    fn calls_count_until_they_are_dropped() {
        let load = Arc::new(Load::default());
        let (one, two) = (load.begin(), load.begin());
        assert_eq!(load.in_flight(), 2);
        drop(one);
        assert_eq!(load.in_flight(), 1);
        drop(two);
        assert_eq!(load.in_flight(), 0);
    }

    #[test]
    fn a_peak_counts_at_once_and_wears_off() {
        let latency = Latency::default();
        assert!(close(latency.estimate(Duration::ZERO), 30.0));
        latency.observe(2 * MS, MS);
        assert!(close(latency.estimate(MS), 2.0), "the first one is it");
        latency.observe(500 * MS, 2 * MS);
        assert!(close(latency.estimate(2 * MS), 500.0));
        latency.observe(2 * MS, 3 * MS);
        assert!(latency.estimate(3 * MS) > 0.49, "the next does not hide it");
        let later = 2 * MS + DECAY;
        assert!((latency.estimate(later) * 1000.0 - 500.0 / 1_f64.exp()).abs() < 1.0);
        assert!(latency.estimate(later + 20 * DECAY) < 1e-6);
    }

    #[test]
    fn many_fast_answers_bring_it_down_with_time() {
        let latency = Latency::default();
        latency.observe(100 * MS, Duration::ZERO);
        let mut now = Duration::ZERO;
        for _ in 0..6_000 {
            now += 10 * MS;
            latency.observe(MS, now);
        }
        assert!(latency.estimate(now) < 0.002, "{}", latency.estimate(now));
    }

    #[test]
    fn extremes_saturate() {
        let latency = Latency::default();
        // Shortly before the count of milliseconds wraps.
        let now = Duration::from_millis(u64::from(u32::MAX) - 3);
        latency.observe(Duration::MAX, now);
        for now in [now, now + 5 * MS, now - 5 * MS] {
            let estimate = latency.estimate(now);
            assert!(estimate > 250.0 && estimate < 300.0, "{estimate}");
        }
        latency.observe(Duration::ZERO, Duration::MAX);
    }
}
