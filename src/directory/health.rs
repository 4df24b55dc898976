//! What the directory does for its endpoints' health at intervals.

use std::time::Duration;

use crate::health::outlier;
use crate::time::Instant;

use super::Writer;

impl Writer {
    /// Lets the breakers look at the calls of their windows.
    pub(super) fn sample(&self, now: Instant) {
        for subchannel in self.known.values() {
            subchannel.health.sample(now);
        }
    }

    /// Looks for endpoints that do far worse than the others.
    pub(super) fn sweep(&mut self, now: Instant) {
        let Some(rules) = &self.rules.outliers else {
            return;
        };
        let all: Vec<_> = self.known.values().map(|it| &it.health).collect();
        let seen: Vec<_> = all.iter().map(|it| it.seen()).collect();
        let mut is_outlier = vec![false; all.len()];
        for index in outlier::sweep(rules, &seen, fastrand::f64) {
            is_outlier[index] = true;
        }
        let mut changed = false;
        for (health, is_outlier) in all.iter().zip(is_outlier) {
            changed |= health.swept(now, is_outlier);
        }
        if changed {
            self.review();
        }
    }
}

/// Ticks at an interval, or never.
pub(super) struct Ticks(Option<tokio::time::Interval>);

impl Ticks {
    pub(super) fn new(interval: Option<Duration>) -> Self {
        Self(interval.map(|interval| {
            let mut ticks = tokio::time::interval(interval);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            ticks
        }))
    }

    pub(super) async fn next(&mut self) -> Instant {
        match &mut self.0 {
            Some(ticks) => ticks.tick().await,
            None => std::future::pending().await,
        }
    }
}
