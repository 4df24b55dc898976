//! Outlier detection after
//! [gRFC A50](https://github.com/grpc/proposal/blob/master/A50-xds-outlier-detection.md): endpoints that do far worse
//! than the others of their set are ejected for a while.

mod ejection;
mod sweep;

use std::time::Duration;

use crate::error::Error;

use super::Influence;

pub(super) use ejection::Ejection;
pub(crate) use sweep::{Seen, sweep};

/// Ejects endpoints that do far worse than the others, for sets that are large enough to compare.
///
/// Every 10 s the calls since the last look are counted. With at least 5 endpoints that had enough calls, those whose
/// success rate is more than 1.9 standard deviations below the mean are ejected (at least 100 calls each), and those
/// of whose calls more than 85 % failed (at least 50 calls each). The ejection lasts 30 s, times the number of
/// ejections in a row, at most 5 min; at most 10 % of the set are ejected by it at a time, but one may always be. Each sweep after
/// an ejection that finds nothing takes one from their number. All of this, and the numbers, are gRFC A50's. What a failed call is, [`Breaker`](crate::Breaker) says.
///
/// Sets under five endpoints are for the breaker: there are no statistics of four.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct OutlierDetection {
    interval: Duration,
    base_ejection: Duration,
    max_ejection: Duration,
    max_ejected: f64,
    success_rate: Option<Rule>,
    failure_share: Option<Rule>,
    /// Of those that are found by success rate, and by the share of failed calls.
    enforced: [f64; 2],
    influence: Influence,
}

/// One of the two ways to tell outliers.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rule {
    threshold: f64,
    min_endpoints: usize,
    min_calls: u64,
}

const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for OutlierDetection {
    fn default() -> Self {
        Self::new()
    }
}

impl OutlierDetection {
    /// The defaults of gRFC A50.
    pub fn new() -> Self {
        Self {
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            max_ejected: 0.1,
            success_rate: Some(Rule {
                threshold: 1.9,
                min_endpoints: 5,
                min_calls: 100,
            }),
            failure_share: Some(Rule {
                threshold: 0.85,
                min_endpoints: 5,
                min_calls: 50,
            }),
            enforced: [1.0, 1.0],
            influence: Influence::Veto,
        }
    }

    /// How often it looks. Default 10 s; from 100 ms to a day.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// How long the first ejection lasts, and the longest one. Default 30 s and 5 min; from 1 ms to a day.
    pub fn ejection_time(mut self, base: Duration, longest: Duration) -> Self {
        self.base_ejection = base;
        self.max_ejection = longest;
        self
    }

    /// The share of the set above which it ejects no more. Default 0.1; from 0 to 1. It may always eject one.
    pub fn max_ejected(mut self, share: f64) -> Self {
        self.max_ejected = share;
        self
    }

    /// Ejects by success rate: so many standard deviations below the mean, with so many endpoints that had so many
    /// calls. Default 1.9, 5, 100.
    pub fn success_rate(mut self, deviations: f64, min_endpoints: usize, min_calls: u64) -> Self {
        self.success_rate = Some(Rule {
            threshold: deviations,
            min_endpoints,
            min_calls,
        });
        self
    }

    /// Does not eject by success rate.
    pub fn no_success_rate(mut self) -> Self {
        self.success_rate = None;
        self
    }

    /// Ejects by the share of failed calls: above this one, with so many endpoints that had so many calls. Default 0.85,
    /// 5, 50.
    pub fn failure_share(mut self, share: f64, min_endpoints: usize, min_calls: u64) -> Self {
        self.failure_share = Some(Rule {
            threshold: share,
            min_endpoints,
            min_calls,
        });
        self
    }

    /// Does not eject by the share of failed calls.
    pub fn no_failure_share(mut self) -> Self {
        self.failure_share = None;
        self
    }

    /// The part of those that are found to be outliers that is ejected, by chance, in each sweep anew: of those found by success
    /// rate, and of those found by the share of failed calls. For turning it on little by little. Default 1 and 1; from
    /// 0 (none) to 1.
    pub fn enforced(mut self, success_rate: f64, failure_share: f64) -> Self {
        self.enforced = [success_rate, failure_share];
        self
    }

    /// What it does to the endpoint. Default [`Influence::Veto`].
    pub fn influence(mut self, influence: Influence) -> Self {
        self.influence = influence;
        self
    }

    /// # Errors
    ///
    /// A configuration error that names the field.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let bad = |field: &str, problem: &str| Err(Error::config(field, problem));
        if self.interval < Duration::from_millis(100) || self.interval > MAX_TIME {
            return bad("outlier_detection.interval", "must be from 100 ms to a day");
        }
        if self.base_ejection < Duration::from_millis(1) || self.max_ejection > MAX_TIME {
            return bad(
                "outlier_detection.ejection_time",
                "must be from 1 ms to a day",
            );
        }
        if self.max_ejection < self.base_ejection {
            return bad(
                "outlier_detection.ejection_time",
                "the longest time must not be below the first",
            );
        }
        if !(0.0..=1.0).contains(&self.max_ejected) {
            return bad("outlier_detection.max_ejected", "must be from 0 to 1");
        }
        if let Some(rule) = &self.success_rate
            && !(rule.threshold >= 0.0 && rule.threshold.is_finite())
        {
            return bad(
                "outlier_detection.success_rate",
                "must be a finite number, 0 or more",
            );
        }
        if let Some(rule) = &self.failure_share
            && !(0.0..=1.0).contains(&rule.threshold)
        {
            return bad("outlier_detection.failure_share", "must be from 0 to 1");
        }
        if self.enforced.iter().any(|it| !(0.0..=1.0).contains(it)) {
            return bad("outlier_detection.enforced", "must be from 0 to 1");
        }
        for (field, rule) in [
            ("outlier_detection.success_rate", &self.success_rate),
            ("outlier_detection.failure_share", &self.failure_share),
        ] {
            if rule.is_some_and(|it| it.min_calls == 0 || it.min_endpoints == 0) {
                return bad(field, "at least one call and one endpoint are needed");
            }
        }
        self.influence.validate("outlier_detection")
    }

    pub(crate) fn sweep_interval(&self) -> Duration {
        self.interval
    }

    pub(super) fn influence_of(&self) -> Influence {
        self.influence
    }

    fn time(&self, times: u32) -> Duration {
        let time = self.base_ejection.saturating_mul(times);
        time.min(self.max_ejection.max(self.base_ejection))
    }
}
