//! Outlier detection after
//! [gRFC A50](https://github.com/grpc/proposal/blob/master/A50-xds-outlier-detection.md): endpoints that do far worse
//! than the others of their set are ejected for a while.

use std::time::Duration;

use crate::error::Error;
use crate::time::Instant;

use super::Influence;
use super::window::Totals;

/// Ejects endpoints that do far worse than the others, for sets that are large enough to compare.
///
/// Every 10 s the calls since the last look are counted. With at least 5 endpoints that had enough calls, those whose
/// success rate is more than 1.9 standard deviations below the mean are ejected (at least 100 calls each), and those
/// of whose calls more than 85 % failed (at least 50 calls each). The ejection lasts 30 s, times the number of
/// ejections in a row, at most 5 min; at most 10 % of the set are ejected by it at a time, but one may always be. All of
/// this, and the numbers, are gRFC A50's. What a failed call is, [`Breaker`](crate::Breaker) says.
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

/// What a sweep looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Since the last sweep.
    pub(crate) totals: Totals,
    /// It is out already.
    pub(crate) ejected: bool,
}

/// The endpoints that are to be ejected, by their index.
pub(crate) fn sweep(rules: &OutlierDetection, seen: &[Seen]) -> Vec<usize> {
    let mut out: Vec<bool> = seen.iter().map(|it| it.ejected).collect();
    let mut count = out.iter().filter(|out| **out).count();
    let mut chosen = Vec::new();
    for (rule, by_rate) in [(&rules.success_rate, true), (&rules.failure_share, false)] {
        let Some(rule) = rule else { continue };
        let rates: Vec<(usize, f64)> = seen
            .iter()
            .enumerate()
            .filter(|(_, it)| it.totals.calls >= rule.min_calls)
            .map(|(index, it)| (index, it.totals.success_rate()))
            .collect();
        if rates.len() < rule.min_endpoints {
            continue;
        }
        let lowest = match by_rate {
            true => {
                let (mean, deviation) = spread(&rates);
                mean - deviation * rule.threshold
            }
            false => 1.0 - rule.threshold,
        };
        for (index, rate) in rates {
            // A50 looks before each ejection, so that one is possible however small the share.
            if count > 0 && share(count, seen.len()) >= rules.max_ejected {
                break;
            }
            if rate < lowest && !out[index] {
                out[index] = true;
                count += 1;
                chosen.push(index);
            }
        }
    }
    chosen
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn share(part: usize, all: usize) -> f64 {
    part as f64 / all as f64
}

/// Mean and standard deviation (of the population, as in A50).
#[expect(clippy::cast_precision_loss, reason = "a count of endpoints")]
fn spread(rates: &[(usize, f64)]) -> (f64, f64) {
    let count = rates.len() as f64;
    let mean = rates.iter().map(|it| it.1).sum::<f64>() / count;
    let variance = rates.iter().map(|it| (it.1 - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

/// The ejection of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Ejection {
    /// Ejections, less the sweeps since then that found nothing.
    times: u32,
    /// Since when it is out, and until when.
    out: Option<(Instant, Instant)>,
}

impl Ejection {
    pub(super) fn out(&self) -> Option<(Instant, Instant)> {
        self.out
    }

    pub(super) fn eject(&mut self, now: Instant, rules: &OutlierDetection) {
        self.times = self.times.saturating_add(1);
        self.out = Some((now, now + rules.time(self.times)));
    }

    /// A sweep did not find it.
    pub(super) fn spared(&mut self) {
        if self.out.is_none() {
            self.times = self.times.saturating_sub(1);
        }
    }

    /// What time has done. Says whether anything has changed.
    pub(super) fn advance(&mut self, now: Instant) -> bool {
        let over = self.out.is_some_and(|(_, until)| until <= now);
        if over {
            self.out = None;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(calls: u64, faults: u64) -> Seen {
        Seen {
            totals: Totals { calls, faults },
            ejected: false,
        }
    }

    #[test]
    fn the_one_that_stands_out_is_ejected_by_its_success_rate() {
        let rules = OutlierDetection::new().no_failure_share();
        let mut all = vec![seen(100, 1); 9];
        all.push(seen(100, 30));
        assert_eq!(sweep(&rules, &all), [9]);
        // With all alike, the lowest is no outlier.
        assert!(sweep(&rules, &vec![seen(100, 30); 10]).is_empty());
    }

    #[test]
    fn few_calls_or_few_endpoints_say_nothing() {
        let rules = OutlierDetection::new();
        let mut four = vec![seen(1000, 0); 3];
        four.push(seen(1000, 1000));
        assert!(sweep(&rules, &four).is_empty());
        let mut idle = vec![seen(49, 0); 9];
        idle.push(seen(49, 49));
        assert!(sweep(&rules, &idle).is_empty());
    }

    #[test]
    fn a_share_of_failures_above_the_threshold_ejects() {
        let rules = OutlierDetection::new().no_success_rate();
        let mut all = vec![seen(100, 85); 5];
        assert!(sweep(&rules, &all).is_empty(), "85 % is not above it");
        all[2] = seen(100, 86);
        assert_eq!(sweep(&rules, &all), [2]);
    }

    #[test]
    fn one_may_always_be_ejected_and_no_more_than_the_share() {
        let rules = OutlierDetection::new().no_success_rate();
        let bad = vec![seen(100, 100); 10];
        assert_eq!(sweep(&rules, &bad).len(), 1, "10 % of 10");
        let bad = vec![seen(100, 100); 5];
        assert_eq!(sweep(&rules, &bad).len(), 1, "one, although that is 20 %");
        let half = rules.clone().max_ejected(0.5);
        let bad = vec![seen(100, 100); 10];
        assert_eq!(sweep(&half, &bad).len(), 5);
        let mut out = vec![seen(100, 100); 10];
        out[0].ejected = true;
        assert!(sweep(&rules, &out).is_empty(), "the share is used up");
        let none = rules.max_ejected(0.0);
        assert_eq!(sweep(&none, &[seen(100, 100); 5]).len(), 1);
    }

    #[test]
    fn ejections_grow_longer_and_are_forgotten_sweep_by_sweep() {
        let rules = OutlierDetection::new();
        let now = Instant::now();
        let mut ejection = Ejection::default();
        for seconds in [30, 60, 90] {
            ejection.eject(now, &rules);
            let until = now + Duration::from_secs(seconds);
            assert_eq!(ejection.out(), Some((now, until)));
            assert!(!ejection.advance(until - Duration::from_millis(1)));
            assert!(ejection.advance(until));
        }
        ejection.spared();
        ejection.spared();
        ejection.eject(now, &rules);
        assert_eq!(ejection.out(), Some((now, now + Duration::from_secs(60))));
        for _ in 0..100 {
            ejection.eject(now, &rules);
        }
        assert_eq!(ejection.out(), Some((now, now + Duration::from_secs(300))));
    }
}
