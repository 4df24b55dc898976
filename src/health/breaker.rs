//! The breaker, as users set it.

use std::time::Duration;

use crate::error::Error;

use super::Influence;

/// Keeps calls away from an endpoint whose answers are failures, and lets it prove that it is well again.
///
/// It opens after 5 faults in a row, or when fewer than 80 % of the calls of the last 30 s succeeded and there were at
/// least 10. While it is open the endpoint gets no calls. After 1 s, and twice that for each time that it opens again,
/// up to 60 s, it is half-open: one call at a time goes through. If that succeeds, the breaker closes; if not, it opens
/// again. Calls that were sent before it opened have no part in that, nor in what follows. (The numbers are Finagle's and linkerd's: failure accrual after 5 in a row or below 0.8 over 30 s; penalty
/// from 1 s to 60 s.)
///
/// Faults are what the endpoint or the way to it did wrong: a lost connection (once, however many calls were on it),
/// no response within the time that a call had, a stream that the peer reset, and the answers `UNAVAILABLE`,
/// `INTERNAL`, `UNKNOWN`, `DATA_LOSS` and `DEADLINE_EXCEEDED`, or the HTTP status of a proxy that
/// [stands](https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md) for one of them; of requests that are
/// not gRPC, the status codes from 500 on. Other codes are the application's, and cancelled calls say nothing. A response that has begun and does not go on is
/// no fault either: streams may be quiet.
///
/// Calls that are late together because their connection stands still are one incident, not many: before the breaker
/// opens for calls without a response, connections on which nothing comes any more are replaced, and what was on them is
/// not counted further. It opens if calls on the new ones are late, too. (With [`Influence::Observe`] no connection is
/// replaced.)
///
/// It keeps the endpoint's connections. It never ejects the last endpoint: see [`EjectionLimits`](crate::EjectionLimits).
/// Where an endpoint gets calls all the same, it takes no trial: the first success after its time closes the breaker, and
/// faults do not lengthen that.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Breaker {
    pub(super) consecutive: u32,
    pub(super) min_success_rate: f64,
    pub(super) window: Duration,
    pub(super) min_calls: u64,
    pub(super) open_for: Duration,
    pub(super) max_open_for: Duration,
    pub(super) influence: Influence,
}

const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Breaker {
    fn default() -> Self {
        Self::new()
    }
}

impl Breaker {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            consecutive: 5,
            min_success_rate: 0.8,
            window: Duration::from_secs(30),
            min_calls: 10,
            open_for: Duration::from_secs(1),
            max_open_for: Duration::from_secs(60),
            influence: Influence::Veto,
        }
    }

    /// Faults in a row that open it. Default 5; at least 1.
    pub fn consecutive_failures(mut self, faults: u32) -> Self {
        self.consecutive = faults;
        self
    }

    /// The share of successful calls in the [window](Self::window) below which it opens. Default 0.8; from 0 (never) to
    /// 1.
    pub fn min_success_rate(mut self, rate: f64) -> Self {
        self.min_success_rate = rate;
        self
    }

    /// The time over which the success rate is taken. Default 30 s; from 100 ms to a day.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// The calls that the window must have before its rate says anything. Default 10; at least 1.
    pub fn min_calls(mut self, calls: u64) -> Self {
        self.min_calls = calls;
        self
    }

    /// How long it is open the first time, and at most: the time doubles with each time that it opens again before it
    /// was closed for the longest time, and is lengthened by up to a fifth at random. Default 1 s and 60 s; from 1 ms to
    /// a day.
    pub fn open_for(mut self, first: Duration, longest: Duration) -> Self {
        self.open_for = first;
        self.max_open_for = longest;
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
        if self.consecutive == 0 {
            return bad("breaker.consecutive_failures", "must be at least 1");
        }
        if !(0.0..=1.0).contains(&self.min_success_rate) {
            return bad("breaker.min_success_rate", "must be from 0 to 1");
        }
        if self.window < Duration::from_millis(100) || self.window > MAX_TIME {
            return bad("breaker.window", "must be from 100 ms to a day");
        }
        if self.min_calls == 0 {
            return bad("breaker.min_calls", "must be at least 1");
        }
        if self.open_for < Duration::from_millis(1) || self.max_open_for > MAX_TIME {
            return bad("breaker.open_for", "must be from 1 ms to a day");
        }
        if self.max_open_for < self.open_for {
            return bad(
                "breaker.open_for",
                "the longest time must not be below the first",
            );
        }
        self.influence.validate("breaker")
    }

    /// How long it stays open when it opens for the `trips`-th time, counted from 1.
    pub(super) fn open_time(&self, trips: u32, random: f64) -> Duration {
        let doublings = trips.saturating_sub(1).min(31);
        let time = self.open_for.saturating_mul(1 << doublings);
        time.min(self.max_open_for).mul_f64(1.0 + 0.2 * random)
    }
}
