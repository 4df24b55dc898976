//! What to do about a failed attempt.

use std::sync::Arc;
use std::time::Duration;

use tonic::Code;

use super::{Budget, Retry, Withdrawal};
use crate::error::Delivery;

/// What is known about an attempt that failed, and about its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttemptFacts {
    /// How far the request came.
    pub delivery: Delivery,
    /// The status: the peer's if it answered, else the one that the transport's failure stands for.
    pub code: Code,
    /// The attempts made, the failed one included: 1 after the first. A resend is the same attempt once
    /// more, and doesn't count.
    pub attempts_made: u32,
    /// A peer refused the call before, and it was resent for that.
    pub refused_before: bool,
    /// Response headers were seen, or [the request can't be read again](super::Replay::is_committed).
    pub committed: bool,
    /// The time left until the call's deadline, if it has one.
    pub remaining: Option<Duration>,
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
    /// The status code is not one to retry on, and the request may have been processed.
    NotRetryable,
    /// Response headers were seen, or the request outgrew the replay buffer.
    Committed,
    /// All attempts were made.
    AttemptsUsed,
    /// The deadline would pass before the next attempt starts.
    DeadlineTooClose,
    /// The channel as a whole has retried as much as it may.
    BudgetUsed,
}

impl GiveUp {
    /// For the caller's error; `None` where the error itself says enough.
    pub(crate) fn why(self) -> Option<&'static str> {
        match self {
            Self::NotRetryable | Self::AttemptsUsed => None,
            Self::Committed => Some("the request is too large to be kept (retry.replay_buffer)"),
            Self::DeadlineTooClose => Some("too little time is left"),
            Self::BudgetUsed => Some("the retry budget is used up"),
        }
    }
}

impl Retry {
    /// Decides about a failed attempt, and draws on the budget if it is to be retried.
    ///
    /// `now` is the budget's time, `rng_unit` a random number in `[0, 1)` for the delay's jitter.
    ///
    /// The rules are those of [gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md):
    ///
    /// - what was never sent is resent, what was refused is resent once (transparent retries);
    /// - what was refused again, may have been processed, or was answered is retried if its code is
    ///   configured, attempts are left, the delay ends before the deadline and the budget allows it;
    /// - nothing is sent again after the call is committed.
    #[must_use]
    pub(crate) fn decide(
        &self,
        facts: &AttemptFacts,
        budget: &Arc<Budget>,
        now: Duration,
        rng_unit: f64,
    ) -> Verdict {
        let resend = match facts.delivery {
            Delivery::NotSent => true,
            Delivery::Refused => !facts.refused_before,
            Delivery::MaybeProcessed | Delivery::Answered => false,
        };
        if !resend && !self.codes.contains(facts.code) {
            return Verdict::GiveUp(GiveUp::NotRetryable);
        }
        if facts.committed {
            return Verdict::GiveUp(GiveUp::Committed);
        }
        if !resend && facts.attempts_made >= self.attempts {
            return Verdict::GiveUp(GiveUp::AttemptsUsed);
        }
        let delay = if resend {
            Duration::ZERO
        } else {
            self.backoff.delay(facts.attempts_made, rng_unit)
        };
        if facts.remaining.is_some_and(|remaining| remaining <= delay) {
            return Verdict::GiveUp(GiveUp::DeadlineTooClose);
        }
        if resend {
            return Verdict::ResendNow;
        }
        match budget.try_withdraw(now) {
            Some(withdrawal) => Verdict::RetryAfter { delay, withdrawal },
            None => Verdict::GiveUp(GiveUp::BudgetUsed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::BudgetLimits;
    use super::*;

    use Delivery::{Answered, MaybeProcessed, NotSent, Refused};

    const DELIVERIES: [Delivery; 4] = [NotSent, Refused, MaybeProcessed, Answered];

    /// A verdict without what can't be compared.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Short {
        Resend,
        Retry(u64),
        No(GiveUp),
    }

    fn budget(retries_per_second: u32) -> Arc<Budget> {
        let limits = BudgetLimits::default()
            .ratio(0.0)
            .min_per_second(retries_per_second);
        Arc::new(Budget::new(limits))
    }

    fn decide(retry: &Retry, facts: &AttemptFacts) -> Short {
        match retry.decide(facts, &budget(1), Duration::ZERO, 0.5) {
            Verdict::ResendNow => Short::Resend,
            Verdict::RetryAfter { delay, .. } => Short::Retry(delay.as_millis() as u64),
            Verdict::GiveUp(reason) => Short::No(reason),
        }
    }

    fn failed(delivery: Delivery, code: Code) -> AttemptFacts {
        AttemptFacts {
            delivery,
            code,
            attempts_made: 1,
            refused_before: false,
            committed: false,
            remaining: None,
        }
    }

    #[test]
    fn every_code_delivery_attempt_and_commitment() {
        const YES: Short = Short::Retry(50);
        const CODE: Short = Short::No(GiveUp::NotRetryable);
        const COMMIT: Short = Short::No(GiveUp::Committed);
        const USED: Short = Short::No(GiveUp::AttemptsUsed);
        const SEND: Short = Short::Resend;
        // Delivery, refused before, committed; then: configured code at attempt 1, 2, 3, other code.
        let table = [
            (NotSent, false, false, [SEND, SEND, SEND], SEND),
            (NotSent, true, false, [SEND, SEND, SEND], SEND),
            (NotSent, false, true, [COMMIT, COMMIT, COMMIT], COMMIT),
            (NotSent, true, true, [COMMIT, COMMIT, COMMIT], COMMIT),
            (Refused, false, false, [SEND, SEND, SEND], SEND),
            (Refused, true, false, [YES, Short::Retry(100), USED], CODE),
            (Refused, false, true, [COMMIT, COMMIT, COMMIT], COMMIT),
            (Refused, true, true, [COMMIT, COMMIT, COMMIT], CODE),
            (
                MaybeProcessed,
                false,
                false,
                [YES, Short::Retry(100), USED],
                CODE,
            ),
            (
                MaybeProcessed,
                true,
                false,
                [YES, Short::Retry(100), USED],
                CODE,
            ),
            (MaybeProcessed, false, true, [COMMIT, COMMIT, COMMIT], CODE),
            (MaybeProcessed, true, true, [COMMIT, COMMIT, COMMIT], CODE),
            (Answered, false, false, [YES, Short::Retry(100), USED], CODE),
            (Answered, true, false, [YES, Short::Retry(100), USED], CODE),
            (Answered, false, true, [COMMIT, COMMIT, COMMIT], CODE),
            (Answered, true, true, [COMMIT, COMMIT, COMMIT], CODE),
        ];
        let retry = Retry::exponential().codes([Code::Unavailable, Code::Aborted]);
        for (delivery, refused_before, committed, configured, other) in table {
            for code in (0..17).map(Code::from_i32) {
                for (attempt, expected) in (1..).zip(configured) {
                    let facts = AttemptFacts {
                        attempts_made: attempt,
                        refused_before,
                        committed,
                        ..failed(delivery, code)
                    };
                    let listed = matches!(code, Code::Unavailable | Code::Aborted);
                    let expected = if listed { expected } else { other };
                    assert_eq!(decide(&retry, &facts), expected, "{facts:?}");
                }
            }
        }
    }

    #[test]
    fn without_retries_only_the_provably_unprocessed_is_sent_again() {
        for delivery in DELIVERIES {
            let expected = match delivery {
                NotSent | Refused => Short::Resend,
                MaybeProcessed | Answered => Short::No(GiveUp::AttemptsUsed),
            };
            let facts = failed(delivery, Code::Unavailable);
            assert_eq!(decide(&Retry::none(), &facts), expected, "{delivery:?}");
        }
    }

    #[test]
    fn the_delay_must_end_before_the_deadline() {
        let left = |delivery, millis| AttemptFacts {
            remaining: Some(Duration::from_millis(millis)),
            ..failed(delivery, Code::Unavailable)
        };
        let late = Short::No(GiveUp::DeadlineTooClose);
        for (delivery, millis, expected) in [
            (MaybeProcessed, 51, Short::Retry(50)),
            (MaybeProcessed, 50, late),
            (Answered, 51, Short::Retry(50)),
            (Answered, 0, late),
            (NotSent, 1, Short::Resend),
            (NotSent, 0, late),
            (Refused, 1, Short::Resend),
            (Refused, 0, late),
        ] {
            let facts = left(delivery, millis);
            assert_eq!(decide(&Retry::exponential(), &facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn the_budget_is_asked_last_and_only_for_retries() {
        let retry = Retry::exponential();
        let budget = budget(1);
        let ask = |facts: &AttemptFacts| retry.decide(facts, &budget, Duration::ZERO, 0.5);
        let unavailable = failed(MaybeProcessed, Code::Unavailable);

        // None of these draws on it ...
        let mut held = Vec::new();
        for facts in [
            failed(NotSent, Code::Unavailable),
            failed(Refused, Code::Unavailable),
            failed(Answered, Code::NotFound),
            AttemptFacts {
                committed: true,
                ..unavailable
            },
            AttemptFacts {
                attempts_made: 3,
                ..unavailable
            },
            AttemptFacts {
                remaining: Some(Duration::from_millis(10)),
                ..unavailable
            },
        ] {
            held.extend((0..20).map(|_| ask(&facts)));
        }
        // ... so that all ten are left.
        for _ in 0..10 {
            let verdict = ask(&unavailable);
            assert!(matches!(verdict, Verdict::RetryAfter { .. }), "{verdict:?}");
            held.push(verdict);
        }
        let used = ask(&unavailable);
        assert!(
            matches!(used, Verdict::GiveUp(GiveUp::BudgetUsed)),
            "{used:?}"
        );
        // An empty budget stops no resend.
        assert!(matches!(
            ask(&failed(NotSent, Code::Unavailable)),
            Verdict::ResendNow
        ));
        // Calls that are cancelled while they wait give theirs back.
        drop(held);
        assert!(matches!(ask(&unavailable), Verdict::RetryAfter { .. }));
    }
}
