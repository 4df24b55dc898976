//! What to do about a failed attempt.

use std::sync::Arc;
use std::time::Duration;

use tonic::Code;

use super::{Budget, Retry, Withdrawal};
use crate::classify::{Outcome, Pushback};
use crate::error::Delivery;

/// What is known about an attempt that failed, and about its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttemptFacts {
    pub outcome: Outcome,
    /// Processing the call twice does no harm.
    pub idempotent: bool,
    /// The attempts made, the failed one included: 1 after the first. A resend is the same attempt once
    /// more, and doesn't count.
    pub attempts_made: u32,
    /// Those of them that were made since the server last said when to retry: the backoff starts over
    /// there.
    pub attempts_since_pushback: u32,
    /// A peer refused the call before, and it was resent for that.
    pub refused_before: bool,
    /// Response headers were seen, or [the request can't be read again](super::Replay::is_committed).
    pub committed: bool,
    /// The time left until the call's deadline, if it has one.
    pub remaining: Option<Duration>,
    /// How long the endpoint that would be next takes to answer of late, if that is known.
    pub next_takes: Option<Duration>,
}

/// What the attempt loop does next.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Send the request again at once. It is still the same attempt, and it is free.
    ///
    /// Nothing limits these but the deadline, so go on only where something changed: another endpoint,
    /// another connection.
    ResendNow,
    /// Wait, then make one more attempt.
    RetryAfter {
        /// How long to wait; less than the time that remains.
        delay: Duration,
        /// The retry, paid for. Spend it when the attempt is sent.
        withdrawal: Withdrawal,
    },
    /// Return the failure to the caller.
    GiveUp(GiveUp),
}

/// Why a call is not attempted again. When several reasons apply, the first of this list is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub(crate) enum GiveUp {
    /// All attempts were made.
    AttemptsUsed,
    /// The status code is not one to retry on.
    NotRetryable,
    /// The request may have been processed, and nobody said that it may be processed twice.
    NotIdempotent,
    /// The server asked not to be tried again.
    PushedBack,
    /// Response headers were seen, or the request outgrew the replay buffer.
    Committed,
    /// The deadline would pass before the next attempt starts, or before its answer is likely to come.
    DeadlineTooClose,
    /// The channel as a whole has retried as much as it may.
    BudgetUsed,
}

impl GiveUp {
    /// For the caller's error; `None` where the error itself says enough.
    pub(crate) fn why(self) -> Option<&'static str> {
        match self {
            Self::AttemptsUsed | Self::NotRetryable => None,
            Self::NotIdempotent => {
                Some("it may have been processed, and is not marked idempotent (Retry::idempotent)")
            }
            Self::PushedBack => Some("the server asked not to (grpc-retry-pushback-ms)"),
            Self::Committed => Some("the request is too large to be kept (retry.replay_buffer)"),
            Self::DeadlineTooClose => Some("too little time is left"),
            Self::BudgetUsed => Some("the retry budget is used up"),
        }
    }
}

impl AttemptFacts {
    /// What becomes of work that was provably not processed; `None` if this is none.
    pub(crate) fn resend(&self) -> Option<Verdict> {
        let resend = match self.outcome.delivery {
            Delivery::NotSent => true,
            Delivery::Refused => !self.refused_before,
            Delivery::MaybeProcessed | Delivery::Answered => false,
        };
        resend.then(|| match self.committed {
            true => Verdict::GiveUp(GiveUp::Committed),
            false if self.is_too_late(Duration::ZERO) => Verdict::GiveUp(GiveUp::DeadlineTooClose),
            false => Verdict::ResendNow,
        })
    }

    /// Whether so much more time than that is not left.
    pub(crate) fn is_too_late(&self, needed: Duration) -> bool {
        self.remaining.is_some_and(|remaining| remaining <= needed)
    }
}

impl Retry {
    /// Decides about a failed attempt, and draws on the budget if it is to be retried.
    ///
    /// `now` is the budget's time, `rng_unit` a random number in `[0, 1)` for the delay's jitter.
    ///
    /// The rules are those of [gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md),
    /// with one that is stricter: work that may have been processed is not repeated by default.
    ///
    /// - what was never sent is resent, what was refused is resent once (transparent retries);
    /// - anything else is retried if attempts are left, [its kind allows it](Self::may_repeat), the server
    ///   does not object, the delay ends so long before the deadline that an answer can be expected, and the budget
    ///   allows it;
    /// - nothing is sent again after the call is committed.
    #[must_use]
    pub(crate) fn decide(
        &self,
        facts: &AttemptFacts,
        budget: &Arc<Budget>,
        now: Duration,
        rng_unit: f64,
    ) -> Verdict {
        if let Some(verdict) = facts.resend() {
            return verdict;
        }
        if let Err(reason) = self.may_retry(facts) {
            return Verdict::GiveUp(reason);
        }
        let delay = match facts.outcome.pushback {
            Some(Pushback::After(delay)) => delay,
            _ => self.backoff.delay(facts.attempts_since_pushback, rng_unit),
        };
        if facts.is_too_late(delay.saturating_add(facts.next_takes.unwrap_or_default())) {
            return Verdict::GiveUp(GiveUp::DeadlineTooClose);
        }
        match budget.try_withdraw(now) {
            Some(withdrawal) => Verdict::RetryAfter { delay, withdrawal },
            None => Verdict::GiveUp(GiveUp::BudgetUsed),
        }
    }

    /// Whether it may be retried, if there is time and money for it.
    pub(crate) fn may_retry(&self, facts: &AttemptFacts) -> Result<(), GiveUp> {
        if facts.attempts_made >= self.attempts {
            return Err(GiveUp::AttemptsUsed);
        }
        self.may_repeat(facts)?;
        if facts.outcome.pushback == Some(Pushback::Never) {
            return Err(GiveUp::PushedBack);
        }
        if facts.committed {
            return Err(GiveUp::Committed);
        }
        Ok(())
    }

    /// Whether a hedged call, which may be processed twice, goes on after an attempt that ended like this.
    pub(crate) fn tolerates(&self, facts: &AttemptFacts) -> bool {
        self.may_repeat(facts).is_ok()
    }

    /// Whether this kind of failure may be retried at all.
    fn may_repeat(&self, facts: &AttemptFacts) -> Result<(), GiveUp> {
        let Outcome {
            delivery,
            code,
            pushback,
            ..
        } = facts.outcome;
        let configured = self.codes.is_some_and(|codes| codes.contains(code));
        match delivery {
            Delivery::MaybeProcessed if facts.idempotent || configured => Ok(()),
            Delivery::MaybeProcessed => Err(GiveUp::NotIdempotent),
            _ if configured => Ok(()),
            _ if self.codes.is_none() && code == Code::Unavailable => Ok(()),
            // Other servers say this of limits that a repetition runs into again; one that names a time
            // means its load.
            _ if code == Code::ResourceExhausted && pushback.is_some() => Ok(()),
            _ => Err(GiveUp::NotRetryable),
        }
    }
}

#[cfg(test)]
mod tests;
