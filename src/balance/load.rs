//! What an endpoint is doing, as pickers see it.

mod latency;
mod recent;
mod report;
mod reported;

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use latency::Latency;
use recent::Recent;
pub(crate) use report::LoadReport;
pub use reported::ReportRules;
use reported::Reported;

/// An endpoint's load. It stays with the endpoint through all sets; calls write it, pickers read it.
#[derive(Debug, Default)]
pub struct Load {
    /// Shared with each call in flight. The count of its owners is theirs: a counter of its own would have to be kept alive
    /// by one, at twice the price for each call.
    calls: Arc<()>,
    /// Calls that were given one of a limited number of places.
    placed: AtomicU32,
    pending: AtomicU32,
    latency: Latency,
    /// Of an endpoint that has answered: most of many are never called.
    recent: OnceLock<Box<Recent>>,
    reported: Reported,
}

/// One of a limited number of places, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Load>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.placed.fetch_sub(1, Relaxed);
    }
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

    /// Those of them to which the endpoint has not begun to answer: until the first message of the response, or its end. A
    /// stream that stays open keeps nobody busy (linkerd's `PendingUntilFirstData`).
    ///
    /// Only counted where the policy [uses latency](super::Policy::uses_latency); elsewhere 0.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.pending.load(Relaxed)
    }

    /// One call more.
    pub(crate) fn begin(&self) -> InFlight {
        InFlight(Arc::clone(&self.calls))
    }

    /// One call more that is [pending](Self::pending).
    pub(crate) fn begin_pending(&self) {
        self.pending.fetch_add(1, Relaxed);
    }

    /// One less.
    pub(crate) fn end_pending(&self) {
        self.pending.fetch_sub(1, Relaxed);
    }

    /// One of `most` places, if there is one left. The count of the calls in flight would not do: two callers that look at
    /// it at once could both find the last place taken by the other.
    pub(crate) fn take_place(self: &Arc<Self>, most: u32) -> Option<Place> {
        let more = |calls| (calls < most).then_some(calls + 1);
        let taken = self.placed.fetch_update(Relaxed, Relaxed, more);
        taken.is_ok().then(|| Place(Arc::clone(self)))
    }

    /// Whether all of so many places are taken.
    pub(crate) fn is_full(&self, most: u32) -> bool {
        self.placed.load(Relaxed) >= most
    }

    pub(super) fn latency(&self) -> &Latency {
        &self.latency
    }

    /// The endpoint took that long to begin its answer. `now` is the time of the channel's life.
    pub(crate) fn answered(&self, took: Duration, now: Duration) {
        self.latency.observe(took, now);
        self.recent.get_or_init(Box::default).add(took, now);
    }

    /// The median time to the beginning of an answer, of late: of the last 16 that were timed and are not older than 30 s.
    /// `None` if they are fewer than 5.
    pub(crate) fn recent_median(&self, now: Duration) -> Option<Duration> {
        self.recent.get()?.median(now)
    }

    /// An attempt failed by the endpoint's fault after that long, which counts as `penalty` if that is longer: an endpoint
    /// that fails fast must not draw calls (linkerd's load biaser). It counts as no less than what is known, either: a
    /// server that asks for a retry at once, and fails again, would draw them, too.
    pub(crate) fn failed(&self, took: Duration, penalty: Duration, now: Duration) {
        self.latency.observe_failure(took.max(penalty), now);
    }

    /// Nobody waits any more for an answer that had not begun after that long: the caller gave up, or another attempt was
    /// faster. It would have taken longer still; how long nobody knows. So it counts if that is longer than what is expected
    /// of the endpoint: one that froze, and whose callers give up, would look idle and fast.
    pub(crate) fn abandoned(&self, waited: Duration, now: Duration) {
        self.latency.observe_bound(waited, now);
        // A median asks only on which side of it an answer would have been.
        if self.recent_median(now).is_some_and(|it| waited > it)
            && let Some(recent) = self.recent.get()
        {
            recent.add(waited, now);
        }
    }

    /// The endpoint said this of itself.
    pub(crate) fn note_report(&self, report: &LoadReport, rules: &ReportRules, now: Duration) {
        self.reported.note(report, rules, now);
    }

    /// It can't be connected to: what comes back may be a server that has just started.
    pub(crate) fn forget_reports(&self) {
        self.reported.forget();
    }

    /// The weight that follows from what it said: calls per second that it could do. `None` if it has said nothing that may be
    /// relied on.
    pub(crate) fn reported_weight(&self, rules: &ReportRules, now: Duration) -> Option<f64> {
        self.reported.weight(rules, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn pending_calls_are_counted_apart() {
        let load = Load::default();
        load.begin_pending();
        load.begin_pending();
        load.end_pending();
        assert_eq!((load.pending(), load.in_flight()), (1, 0));
    }

    #[test]
    fn answers_make_the_median_and_failures_do_not() {
        const MS: Duration = Duration::from_millis(1);
        let load = Load::default();
        load.abandoned(HOUR, MS);
        assert_eq!(load.recent_median(MS), None);
        (0..5).for_each(|_| load.answered(10 * MS, MS));
        for _ in 0..16 {
            load.failed(MS, HOUR, MS);
            load.abandoned(9 * MS, MS);
        }
        assert_eq!(load.recent_median(MS), Some(10 * MS));
        (0..6).for_each(|_| load.abandoned(HOUR, MS));
        assert!(load.recent_median(MS).unwrap() > 10 * MS, "it froze");
    }

    const HOUR: Duration = Duration::from_secs(3600);
}
