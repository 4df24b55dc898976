//! The hedging option of a channel.

mod latencies;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::error::Error;

use latencies::Latencies;

/// Shorter delays would double the load of whoever answers fast (Finagle's minimum).
const SHORTEST: Duration = Duration::from_millis(1);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Whether and when a call that has no answer yet is sent to another endpoint, too, so that a slow one is not felt: for a
/// channel ([`Connector::hedge`](crate::Connector::hedge)), or for some of its methods
/// ([`Connector::hedge_for`](crate::Connector::hedge_for)). By default no call is.
///
/// ```
/// use trunkline::Hedge;
///
/// let hedge = Hedge::percentile(0.95).attempts(3);
/// # hedge.validate("hedge").unwrap();
/// ```
///
/// Only calls that may be processed twice are hedged, those that are idempotent
/// ([`Retry::idempotent`](crate::Retry::idempotent), [`CallOptions::idempotent`](crate::CallOptions::idempotent), HTTP
/// methods like GET); others are sent as if there were no hedging, retries included. The rules are those of
/// [gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md): a hedged call is not retried.
///
/// - After the delay the request is sent again, to an endpoint that was not tried while there is one, and so on until all
///   [`attempts`](Self::attempts) are under way. `grpc-previous-rpc-attempts` tells the server how many came before.
/// - An attempt that fails in a way that the method's [`Retry`](crate::Retry) would repeat (its codes) is followed by the
///   next at once; a server that names a time is obeyed, and one that forbids it
///   (`grpc-retry-pushback-ms`) ends the hedging. One that found no endpoint is followed after the retries' backoff.
/// - Any other failure ends the call. If all attempts have failed, the call ends as the last of them.
/// - The first response that is not such a failure is the call's. The streams of the others are reset; their endpoints'
///   health does not suffer.
///
/// Each attempt after the first draws on the [retry budget](crate::Connector::retry_budget); without means there is none. Nor
/// is there one that could hardly be answered before the deadline, or whose request no longer fits into the
/// [replay buffer](crate::Retry::replay_buffer). A request that is still being produced goes to all attempts as it comes.
///
/// The setters take any value; the connector's `connect` rejects bad ones and names the field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hedge {
    when: When,
    attempts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    Never,
    After(Duration),
    Percentile(f64),
}

impl Hedge {
    /// No hedging: for methods of a channel that hedges.
    #[must_use]
    pub const fn none() -> Self {
        Self::when(When::Never)
    }

    /// Sends another attempt each time that there was no answer for so long; 1 ms to a year.
    #[must_use]
    pub const fn after(delay: Duration) -> Self {
        Self::when(When::After(delay))
    }

    /// The same after the time in which that share of the calls is answered: 0.5 to 0.999. With 0.95, one call in twenty is
    /// hedged.
    ///
    /// It is learned from the first attempts of the calls under this option in the last 15 to 30 s, anew every 3 s, and
    /// is at least 1 ms (Finagle's `BackupRequestFilter`). Attempts that lost count as the time after which they did. While
    /// fewer than 100 calls are known there is no delay, and only failures lead to another attempt.
    #[must_use]
    pub const fn percentile(share: f64) -> Self {
        Self::when(When::Percentile(share))
    }

    const fn when(when: When) -> Self {
        Self { when, attempts: 2 }
    }

    /// Sets how often a call is sent at most, the first time included: 2 to 5; 2 by default.
    #[must_use]
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Checks the option. `field` is where it stands in the configuration, such as `hedge`.
    ///
    /// # Errors
    ///
    /// A configuration error that names the first bad field and its range.
    pub fn validate(&self, field: &str) -> Result<(), Error> {
        let bad =
            |name: &str, problem: &str| Err(Error::config(&format!("{field}.{name}"), problem));
        match self.when {
            When::After(delay) if !(SHORTEST..=YEAR).contains(&delay) => {
                bad("after", "must be from 1 ms to a year")
            }
            When::Percentile(share) if !(0.5..=0.999).contains(&share) => {
                bad("percentile", "must be from 0.5 to 0.999")
            }
            _ if !(2..=5).contains(&self.attempts) => bad(
                "attempts",
                "must be from 2 to 5; for no hedging use Hedge::none()",
            ),
            _ => Ok(()),
        }
    }
}

/// The option, and what it has learned.
#[derive(Debug)]
pub(crate) struct Hedging {
    hedge: Hedge,
    learned: Option<Box<Learned>>,
}

#[derive(Debug)]
struct Learned {
    share: f64,
    latencies: Latencies,
    /// The delay in µs, and above it the time in milliseconds when it was made. 0: never.
    delay: AtomicU64,
}

impl Hedging {
    pub(crate) fn new(hedge: Hedge) -> Self {
        let learned = match hedge.when {
            When::Percentile(share) => Some(Box::new(Learned {
                share,
                latencies: Latencies::new(),
                delay: AtomicU64::new(0),
            })),
            _ => None,
        };
        Self { hedge, learned }
    }

    /// How often a call is sent at most.
    pub(crate) fn attempts(&self) -> u32 {
        match self.hedge.when {
            When::Never => 1,
            _ => self.hedge.attempts,
        }
    }

    /// When the next attempt follows, if it does. `now` is the time of the channel's life.
    pub(crate) fn delay(&self, now: Duration) -> Option<Duration> {
        match self.hedge.when {
            When::Never => None,
            When::After(delay) => Some(delay),
            When::Percentile(_) => self.learned.as_ref()?.delay(now),
        }
    }

    /// A first attempt took that long, or was given up after that long because another was faster.
    pub(crate) fn record(&self, took: Duration, now: Duration) {
        if let Some(learned) = &self.learned {
            learned.latencies.record(took, now);
        }
    }
}

impl Learned {
    fn delay(&self, now: Duration) -> Option<Duration> {
        const REFRESH: u32 = 3_000;
        #[expect(clippy::cast_possible_truncation, reason = "wraps")]
        let millis = now.as_millis() as u32;
        let seen = self.delay.load(Relaxed);
        if seen > 0 && millis.wrapping_sub((seen >> 32) as u32) < REFRESH {
            return Some(Duration::from_micros(seen & u64::from(u32::MAX)));
        }
        let delay = self.latencies.percentile(self.share, now)?.max(SHORTEST);
        let micros = u32::try_from(delay.as_micros()).unwrap_or(u32::MAX);
        let word = u64::from(millis) << 32 | u64::from(micros);
        self.delay.store(word, Relaxed);
        Some(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn bad_fields_are_named() {
        for (name, hedge) in [
            ("after", Hedge::after(Duration::ZERO)),
            ("after", Hedge::after(Duration::MAX)),
            ("percentile", Hedge::percentile(0.4)),
            ("percentile", Hedge::percentile(1.0)),
            ("percentile", Hedge::percentile(f64::NAN)),
            ("attempts", Hedge::after(MS).attempts(1)),
            ("attempts", Hedge::after(MS).attempts(6)),
        ] {
            let error = hedge.validate("hedge").unwrap_err();
            let head = format!("hedge.{name}: ");
            assert!(error.is_config() && error.to_string().starts_with(&head));
        }
        for good in [
            Hedge::none(),
            Hedge::after(MS).attempts(5),
            Hedge::percentile(0.5),
        ] {
            good.validate("hedge").unwrap();
        }
    }

    #[test]
    fn the_delay_is_learned_and_refreshed() {
        let hedging = Hedging::new(Hedge::percentile(0.9));
        assert_eq!(hedging.delay(MS), None);
        (0..100).for_each(|_| hedging.record(MS / 100, MS));
        assert_eq!(hedging.delay(MS), Some(SHORTEST));
        (0..900).for_each(|_| hedging.record(50 * MS, MS));
        assert_eq!(hedging.delay(2_000 * MS), Some(SHORTEST), "still that");
        assert!(hedging.delay(3_001 * MS) >= Some(50 * MS));
    }
}
