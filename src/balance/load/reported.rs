//! The weight that an endpoint's reports give it, while they may be relied on.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::report::LoadReport;

/// Which load reports count, and for how long (gRFC A58).
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct ReportRules {
    blackout: Duration,
    expiration: Duration,
    error_penalty: f64,
}

impl ReportRules {
    /// gRPC's.
    pub const fn new() -> Self {
        Self {
            blackout: Duration::from_secs(10),
            expiration: Duration::from_secs(180),
            error_penalty: 1.0,
        }
    }

    /// How long an endpoint has to report, without a pause of [`expiration`](Self::expiration) and without a failed dial,
    /// before it is believed: a server that has just started looks idle. Default 10 s; 0 for none.
    pub const fn blackout(mut self, blackout: Duration) -> Self {
        self.blackout = blackout;
        self
    }

    /// How long its last report counts. Default 3 min. With 0 none ever does.
    pub const fn expiration(mut self, expiration: Duration) -> Self {
        self.expiration = expiration;
        self
    }

    /// How much utilization the rate of failures counts as: with 1 an endpoint that fails all calls is taken to be as busy as
    /// it says, and once more. Default 1; from 0 to 1,000, and what is not is brought there.
    pub fn error_penalty(mut self, penalty: f64) -> Self {
        // `max` takes the number where the other one is NaN.
        self.error_penalty = penalty.max(0.0).clamp(0.0, 1_000.0);
        self
    }
}

impl Default for ReportRules {
    fn default() -> Self {
        Self::new()
    }
}

/// The last report, and since when there have been any. Reports that meet may be mixed; the next one comes soon.
#[derive(Debug, Default)]
pub(super) struct Reported {
    /// An `f64`'s bits.
    weight: AtomicU64,
    since: Stamp,
    last: Stamp,
}

/// A time of the channel's life, or none yet: one more than its milliseconds.
#[derive(Debug, Default)]
struct Stamp(AtomicU64);

impl Reported {
    pub(super) fn note(&self, report: &LoadReport, rules: &ReportRules, now: Duration) {
        let Some(weight) = report.weight(rules.error_penalty) else {
            return;
        };
        if self.last.age(now).is_none_or(|it| it >= rules.expiration) {
            self.since.set(now);
        }
        self.weight.store(weight.to_bits(), Relaxed);
        self.last.set(now);
    }

    /// What it said is of no use any more.
    pub(super) fn forget(&self) {
        self.last.clear();
    }

    pub(super) fn weight(&self, rules: &ReportRules, now: Duration) -> Option<f64> {
        let counts =
            self.last.age(now)? < rules.expiration && self.since.age(now)? >= rules.blackout;
        counts.then(|| f64::from_bits(self.weight.load(Relaxed)))
    }
}

impl Stamp {
    fn set(&self, now: Duration) {
        self.0.store(millis(now) + 1, Relaxed);
    }

    fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    fn age(&self, now: Duration) -> Option<Duration> {
        let at = self.0.load(Relaxed).checked_sub(1)?;
        Some(Duration::from_millis(millis(now).saturating_sub(at)))
    }
}

fn millis(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).map_or(u64::MAX - 1, |it| it.min(u64::MAX - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn report(rate: f64) -> LoadReport {
        LoadReport::of(rate, 0.5)
    }

    #[test]
    fn a_report_counts_after_the_blackout_and_until_it_expires() {
        let (reported, rules) = (Reported::default(), ReportRules::new());
        let weight = |now| reported.weight(&rules, now * SECOND);
        assert_eq!(weight(0), None);
        reported.note(&report(10.0), &rules, SECOND);
        assert_eq!(weight(1), None);
        assert_eq!(weight(10), None);
        assert_eq!(weight(11), Some(20.0));
        reported.note(&report(30.0), &rules, 20 * SECOND);
        assert_eq!(weight(20), Some(60.0), "the last one counts");
        assert_eq!(weight(199), Some(60.0));
        assert_eq!(weight(200), None, "too old");
        reported.note(&report(10.0), &rules, 201 * SECOND);
        assert_eq!(weight(210), None, "from the beginning");
        assert_eq!(weight(211), Some(20.0));
    }

    #[test]
    fn what_is_forgotten_begins_anew() {
        let (reported, rules) = (Reported::default(), ReportRules::new());
        reported.note(&report(10.0), &rules, SECOND);
        assert_eq!(reported.weight(&rules, 20 * SECOND), Some(20.0));
        reported.forget();
        assert_eq!(reported.weight(&rules, 20 * SECOND), None);
        reported.note(&report(90.0), &rules, 21 * SECOND);
        assert_eq!(reported.weight(&rules, 30 * SECOND), None);
        assert_eq!(reported.weight(&rules, 31 * SECOND), Some(180.0));
    }

    #[test]
    fn a_report_that_says_nothing_changes_nothing() {
        let (reported, rules) = (Reported::default(), ReportRules::new());
        reported.note(&report(10.0), &rules, Duration::ZERO);
        reported.note(&LoadReport::default(), &rules, 170 * SECOND);
        assert_eq!(reported.weight(&rules, 179 * SECOND), Some(20.0));
        assert_eq!(reported.weight(&rules, 180 * SECOND), None);
    }

    #[test]
    fn extremes_are_brought_back() {
        let reported = Reported::default();
        let rules = ReportRules::new().blackout(Duration::ZERO);
        reported.note(&report(10.0), &rules, Duration::MAX);
        assert_eq!(reported.weight(&rules, Duration::ZERO), Some(20.0));
        let never = rules.expiration(Duration::ZERO);
        assert_eq!(reported.weight(&never, Duration::MAX), None);
        for (penalty, is) in [(f64::NAN, 0.0), (-1.0, 0.0), (f64::INFINITY, 1_000.0)] {
            assert_eq!(rules.error_penalty(penalty).error_penalty, is);
        }
    }
}
