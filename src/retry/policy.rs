//! The retry option of a channel.

use std::fmt;
use std::time::Duration;

use tonic::Code;

use super::Backoff;
use crate::error::Error;

/// gRFC A6 lets nobody make more attempts.
const MOST_ATTEMPTS: u32 = 5;

/// The longest limit on an attempt, as for the channel's other limits.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Whether and how failed attempts of a call are repeated: for a channel
/// ([`Connector::retry`](crate::Connector::retry)), or for some of its methods
/// ([`Connector::retry_for`](crate::Connector::retry_for)).
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
/// | the attempt | by default | repeated if |
/// |---|---|---|
/// | was never sent although an endpoint was ready, or the peer's GOAWAY left it out | resent | always |
/// | was refused (`REFUSED_STREAM`) | resent once | then as if answered with `UNAVAILABLE` |
/// | found no endpoint (all have failed, or none is fit), and does not [wait](crate::CallOptions::wait_for_ready) | retried | as if answered with `UNAVAILABLE` |
/// | got no stream: the queues of all endpoints were full, or the wait was too long ([`PoolOptions`](crate::PoolOptions)); or too many calls [wait for an endpoint](crate::Connector::max_waiting) | given up | never |
/// | was answered with a gRPC error status, and nothing else | retried on `UNAVAILABLE` | the code is one of the [`codes`](Self::codes), or it is `RESOURCE_EXHAUSTED` and the server says when to retry |
/// | was answered by a proxy: an HTTP status that is not 200, and no gRPC status | retried on 429 and 503 | [the code](https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md) that stands for it is |
/// | may have been processed: the connection broke, the stream was reset, [`per_try_timeout`](Self::per_try_timeout), a proxy answered 502 or 504 | given up | the call is [`idempotent`](Self::idempotent), or `codes` was set and has the code that stands for the failure |
///
/// A resend is at once and free: it counts as no attempt, draws on no budget, and happens whatever this
/// option says, even with [`none`](Self::none). A retry waits for the [`backoff`](Self::backoff), counts as
/// an attempt, and draws on the [channel's budget](crate::Connector::retry_budget); none is begun that would
/// start after the deadline, or so shortly before it that no answer can be expected: the time that is left must be more than
/// the backoff and the median time to an answer of the endpoint that would be next. That is taken of one attempt in 16 (of
/// each if the [policy](crate::Policy::uses_latency) wants it), the last 16 of at most 30 s; while there are
/// fewer than 5 only the first rule holds. Both go to an endpoint that the call has not tried, while there is one. From
/// the second attempt on the server is told by `grpc-previous-rpc-attempts` how many came before.
///
/// A server that answers `grpc-retry-pushback-ms` with a number of milliseconds, up to 5 minutes, is obeyed: the next attempt
/// waits exactly so long, and the backoff starts over. With anything else in that header, the call is not
/// retried (gRFC A6).
///
/// The setters take any value; the connector's `connect` rejects bad ones and names the field.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    pub(super) attempts: u32,
    pub(super) backoff: Backoff,
    /// `None`: answers with `UNAVAILABLE`.
    pub(super) codes: Option<Codes>,
    idempotent: bool,
    per_try_timeout: Option<Duration>,
    replay_buffer: usize,
}

impl Retry {
    /// The default: 3 attempts with [`Backoff::calls`] between them, after answers with `UNAVAILABLE`, or with
    /// `RESOURCE_EXHAUSTED` and the time to retry; and a replay buffer of 256 KiB (grpc-go's size). Calls are
    /// not taken for idempotent.
    #[must_use]
    pub fn exponential() -> Self {
        Self {
            attempts: 3,
            backoff: Backoff::calls(),
            codes: None,
            idempotent: false,
            per_try_timeout: None,
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
    /// As in gRFC A6 it does not matter then whether the peer answered with the code or the transport's
    /// failure stands for it: with `UNAVAILABLE` set, a call whose connection broke is repeated, although it
    /// may have been processed. (The default is more careful: it retries `UNAVAILABLE` as an answer only.)
    /// `ABORTED`, `CANCELLED`, `DEADLINE_EXCEEDED`, `INTERNAL` and `UNKNOWN` suit idempotent methods only.
    #[must_use]
    pub fn codes(mut self, codes: impl IntoIterator<Item = Code>) -> Self {
        self.codes = Some(codes.into_iter().collect());
        self
    }

    /// Whether processing a call twice does no more than processing it once, so that it may be repeated when
    /// nobody knows whether it was processed; no by default.
    ///
    /// Raw requests with an idempotent HTTP method such as GET or PUT are idempotent in any case (RFC 9110
    /// §9.2.2), except that a call's own word counts first
    /// ([`CallOptions::idempotent`](crate::CallOptions::idempotent)).
    #[must_use]
    pub const fn idempotent(mut self, yes: bool) -> Self {
        self.idempotent = yes;
        self
    }

    /// Sets how long one attempt may take from its sending to the response's headers; no limit by default.
    /// More than 0, at most a year, and not more than the channel's timeout. It does not hold for the calls of a
    /// [`PinnedChannel`](crate::PinnedChannel).
    ///
    /// An attempt that takes longer is cancelled, and stands for `DEADLINE_EXCEEDED`. It may have been
    /// processed, so it is repeated only for idempotent calls or with that code configured. Once the headers
    /// are there only the call's own deadline holds.
    #[must_use]
    pub const fn per_try_timeout(mut self, timeout: Duration) -> Self {
        self.per_try_timeout = Some(timeout);
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

    /// How much of a request is kept to send it again, in bytes.
    #[must_use]
    pub const fn replay_limit(&self) -> usize {
        self.replay_buffer
    }

    /// How long to wait before trying once more where no endpoint was.
    pub(crate) fn pause(&self, n: u32, rng_unit: f64) -> Duration {
        self.backoff.delay(n, rng_unit)
    }

    pub(crate) const fn has_retries(&self) -> bool {
        self.attempts > 1
    }

    pub(crate) const fn is_idempotent(&self) -> bool {
        self.idempotent
    }

    pub(crate) const fn try_limit(&self) -> Option<Duration> {
        self.per_try_timeout
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
        if self.codes.is_some_and(|codes| codes.contains(Code::Ok)) {
            return bad(
                "codes",
                "must not contain OK: a call that succeeded is not repeated",
            );
        }
        if self.attempts > 1 && self.codes.is_some_and(Codes::is_empty) {
            return bad(
                "codes",
                "must not be empty; for no retries use Retry::none()",
            );
        }
        if let Some(limit) = self.per_try_timeout
            && (limit.is_zero() || limit > YEAR)
        {
            return bad("per_try_timeout", "must be more than 0 and at most a year");
        }
        self.backoff.validate(&format!("{field}.backoff"))
    }

    /// Checks what depends on the time that a call has.
    pub(crate) fn validate_under(&self, field: &str, timeout: Duration) -> Result<(), Error> {
        match self.per_try_timeout {
            Some(limit) if limit > timeout => {
                let problem =
                    format!("{limit:?} is longer than the calls' own timeout, {timeout:?}");
                Err(Error::config(&format!("{field}.per_try_timeout"), problem))
            }
            _ => Ok(()),
        }
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
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_as_documented() {
        let retry = Retry::default();
        retry.validate("retry").unwrap();
        assert_eq!(retry.attempts, 3);
        assert_eq!(retry.backoff, Backoff::calls());
        assert_eq!(retry.codes, None);
        assert!(!retry.idempotent && retry.try_limit().is_none());
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
        let codes = replaced.codes.unwrap();
        assert_eq!(format!("{codes:?}"), "{Unknown, Aborted}");
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
            ("per_try_timeout", good().per_try_timeout(Duration::ZERO)),
            ("per_try_timeout", good().per_try_timeout(YEAR * 2)),
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
            good().per_try_timeout(YEAR),
        ] {
            edge.validate("retry").unwrap();
        }
    }
}
