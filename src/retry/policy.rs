//! The retry option of a channel.

use std::fmt;

use tonic::Code;

use super::{Backoff, BudgetLimits};
use crate::error::Error;

/// gRFC A6 lets nobody make more attempts.
const MOST_ATTEMPTS: u32 = 5;

/// Whether and how a channel repeats failed attempts of a call.
///
/// ```
/// use std::time::Duration;
/// use tonic::Code;
/// use trunkline::{Backoff, Retry};
///
/// let retry = Retry::exponential()
///     .attempts(4)
///     .backoff(Backoff::calls().initial(Duration::from_millis(20)))
///     .codes([Code::Unavailable, Code::Aborted]);
/// # retry.validate("retry").unwrap();
/// ```
///
/// A call is retried only until response headers have come, or until its request no longer fits into the
/// [replay buffer](Self::replay_buffer): from then on it is *committed*.
///
/// Not governed by this option, and always on: work that the peer provably did not process is resent
/// (the dial failed, the request was never written, `REFUSED_STREAM`, GOAWAY). That counts as no attempt
/// and draws on no budget.
///
/// The setters take any value; the connector's `connect` rejects bad ones and names the field.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    pub(super) attempts: u32,
    pub(super) backoff: Backoff,
    pub(super) codes: Codes,
    budget: BudgetLimits,
    replay_buffer: usize,
}

impl Retry {
    /// The default: 3 attempts with [`Backoff::calls`] between them, on `UNAVAILABLE` only, within
    /// [`BudgetLimits::default`], and a replay buffer of 256 KiB (grpc-go's size).
    ///
    /// `UNAVAILABLE` is no proof that nothing was done: the connection may have broken after the request
    /// was processed. Where a repetition would do harm, use [`none`](Self::none).
    #[must_use]
    pub fn exponential() -> Self {
        Self {
            attempts: 3,
            backoff: Backoff::calls(),
            codes: Codes::from_iter([Code::Unavailable]),
            budget: BudgetLimits::default(),
            replay_buffer: 256 * 1024,
        }
    }

    /// One attempt; nothing that may have been processed is repeated. Provably unprocessed work is
    /// still resent, which no peer can tell from a first try.
    #[must_use]
    pub fn none() -> Self {
        Self::exponential().attempts(1)
    }

    /// Sets how often a call is attempted at most, the first time included: 1 (no retries) to 5;
    /// 3 by default.
    #[must_use]
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets the delays between attempts.
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets the status codes after which a call is retried, in place of those set before; not empty, and
    /// without `OK`.
    ///
    /// `ABORTED`, `CANCELLED`, `DEADLINE_EXCEEDED`, `INTERNAL` and `UNKNOWN` suit idempotent methods only.
    #[must_use]
    pub fn codes(mut self, codes: impl IntoIterator<Item = Code>) -> Self {
        self.codes = codes.into_iter().collect();
        self
    }

    /// Sets how much the channel as a whole may retry.
    #[must_use]
    pub const fn budget(mut self, limits: BudgetLimits) -> Self {
        self.budget = limits;
        self
    }

    /// Sets how many bytes of a request are kept to send it again; 256 KiB by default. Each frame counts
    /// 64 bytes more than it holds.
    ///
    /// A request that outgrows it is sent on, but not again. With 0 only a request without a body can be
    /// repeated.
    #[must_use]
    pub const fn replay_buffer(mut self, bytes: usize) -> Self {
        self.replay_buffer = bytes;
        self
    }

    /// How much the channel as a whole may retry.
    #[must_use]
    pub const fn budget_limits(&self) -> BudgetLimits {
        self.budget
    }

    /// How much of a request is kept to send it again, in bytes.
    #[must_use]
    pub const fn replay_limit(&self) -> usize {
        self.replay_buffer
    }

    /// Checks the option. `field` is where it stands in the configuration, such as `retry`.
    ///
    /// # Errors
    ///
    /// A configuration error that names the first bad field and its range.
    pub fn validate(&self, field: &str) -> Result<(), Error> {
        let bad =
            |name: &str, problem: &str| Err(Error::config(&format!("{field}.{name}"), problem));
        if !(1..=MOST_ATTEMPTS).contains(&self.attempts) {
            return bad("attempts", "must be from 1 (no retries) to 5");
        }
        if self.codes.contains(Code::Ok) {
            return bad(
                "codes",
                "must not contain OK: a call that succeeded is not repeated",
            );
        }
        if self.attempts > 1 && self.codes.is_empty() {
            return bad(
                "codes",
                "must not be empty; for no retries use Retry::none()",
            );
        }
        self.backoff.validate(&format!("{field}.backoff"))?;
        self.budget.validate(&format!("{field}.budget"))
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::exponential()
    }
}

/// A set of status codes, one bit each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Codes(u32);

impl Codes {
    pub(super) const fn contains(self, code: Code) -> bool {
        self.0 & Self::bit(code) != 0
    }

    const fn is_empty(self) -> bool {
        self.0 == 0
    }

    const fn bit(code: Code) -> u32 {
        1 << code as u32
    }
}

impl FromIterator<Code> for Codes {
    fn from_iter<I: IntoIterator<Item = Code>>(codes: I) -> Self {
        Self(
            codes
                .into_iter()
                .fold(0, |bits, code| bits | Self::bit(code)),
        )
    }
}

impl fmt::Debug for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codes = (0..17)
            .map(Code::from_i32)
            .filter(|&code| self.contains(code));
        f.debug_set().entries(codes).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_defaults_are_valid_and_as_documented() {
        let retry = Retry::default();
        retry.validate("retry").unwrap();
        assert_eq!(retry.attempts, 3);
        assert_eq!(retry.backoff, Backoff::calls());
        assert_eq!(format!("{:?}", retry.codes), "{Unavailable}");
        assert_eq!(retry.budget_limits(), BudgetLimits::default());
        assert_eq!(retry.replay_limit(), 262_144);
        let none = Retry::none();
        none.validate("retry").unwrap();
        assert_eq!(none.attempts, 1);
        assert_eq!(none.attempts(3), retry, "attempts turn retries on again");
    }

    #[test]
    fn codes_are_a_set() {
        let all: Vec<_> = (0..17).map(Code::from_i32).collect();
        for &code in &all {
            let one = Codes::from_iter([code, code]);
            let members: Vec<_> = all.iter().filter(|&&each| one.contains(each)).collect();
            assert_eq!(members, [&code]);
            assert_eq!(format!("{one:?}"), format!("{{{code:?}}}"));
        }
        assert!(Codes::from_iter([]).is_empty());
        let replaced = Retry::exponential().codes([Code::Aborted, Code::Unknown]);
        assert_eq!(format!("{:?}", replaced.codes), "{Unknown, Aborted}");
    }

    #[test]
    fn bad_fields_are_named() {
        let good = Retry::exponential;
        let cases = [
            ("attempts", good().attempts(0)),
            ("attempts", good().attempts(6)),
            ("attempts", good().attempts(u32::MAX)),
            ("codes", good().codes([])),
            ("codes", good().codes([Code::Ok])),
            ("codes", good().codes([Code::Unavailable, Code::Ok])),
            ("codes", good().codes([Code::Ok]).attempts(1)),
            (
                "backoff.multiplier",
                good().backoff(Backoff::calls().multiplier(0.5)),
            ),
            (
                "backoff.max",
                good().backoff(Backoff::calls().max(Duration::MAX)),
            ),
            (
                "budget.ratio",
                good().budget(BudgetLimits::default().ratio(f64::NAN)),
            ),
            (
                "budget.window",
                good().budget(BudgetLimits::default().window(Duration::ZERO)),
            ),
        ];
        for (name, retry) in cases {
            let error = retry.validate("retry").unwrap_err();
            assert!(error.is_config());
            assert!(
                error.to_string().starts_with(&format!("retry.{name}: ")),
                "{error} for {retry:?}"
            );
        }
        for edge in [
            good().attempts(5),
            good().attempts(1).codes([]),
            good().replay_buffer(0),
        ] {
            edge.validate("retry").unwrap();
        }
    }
}
