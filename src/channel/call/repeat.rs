//! Whether another attempt follows one that has ended.

use std::ops::ControlFlow;
use std::time::Duration;

use tonic::Code;

use crate::classify::Outcome;
use crate::error::{Delivery, Error, Kind, Stage};
use crate::retry::{AttemptFacts, GiveUp, Verdict};
use crate::time::Instant;

use super::super::past::Ended;
use super::{Answer, Call, Waiting};

impl Call {
    /// What follows an attempt that ended so: the end, or another one, after this pause if there is one.
    pub(super) fn after(
        &mut self,
        result: Result<Answer, Error>,
    ) -> ControlFlow<Result<Answer, Error>, Option<Duration>> {
        // If it was never sent. What follows may draw anew, and must not find this one missing.
        self.paid = None;
        let outcome = match &result {
            // Response headers: the call is committed to this answer.
            Ok(answer) => match answer.ended {
                Some(outcome) if outcome.code != Code::Ok => outcome,
                _ => return ControlFlow::Break(result),
            },
            Err(error) => match error.kind() {
                Kind::Disconnected if self.inner.tasks.is_cancelled() => {
                    return ControlFlow::Break(result.map_err(|error| self.closed_under(error)));
                }
                // Of the attempt: the call's own deadline ends all of this.
                Kind::Timeout
                | Kind::Connect
                | Kind::Refused
                | Kind::Disconnected
                | Kind::Protocol => Outcome::of_error(error),
                // Nothing left, but a resend at once would find the same endpoints: gRPC hands a failed
                // pick to the configured policy.
                Kind::NoEndpoint => Outcome {
                    delivery: Delivery::Answered,
                    ..Outcome::of_error(error)
                },
                // The same again would come of repeating these.
                Kind::Config
                | Kind::PoolWait
                | Kind::Request
                | Kind::Token
                | Kind::Dropped
                | Kind::Closed => {
                    return ControlFlow::Break(result.map_err(|error| self.failed(error)));
                }
            },
        };
        let limit = self.settings.limit.as_ref();
        if limit.is_some_and(|limit| limit.explains(outcome.code)) {
            return ControlFlow::Break(Err(self.deadline_passed()));
        }
        let verdict = match self.gets_another_token(outcome.code) {
            true => Verdict::ResendNow,
            false => self.decide(outcome),
        };
        let endpoint = self.endpoint.as_ref().map(|it| &it.name);
        let ended = match &result {
            Ok(_) => Ended {
                endpoint,
                stage: Stage::Response,
                delivery: outcome.delivery,
                code: outcome.code,
            },
            Err(error) => Ended::with(error, endpoint),
        };
        let pause = match verdict {
            Verdict::GiveUp(reason) => {
                let given_up = |error| self.failed(error).given_up(reason.why());
                return ControlFlow::Break(result.map_err(given_up));
            }
            Verdict::ResendNow => {
                self.past.resent(&ended);
                self.refused |= outcome.delivery == Delivery::Refused;
                self.inner.counters.resent();
                None
            }
            Verdict::RetryAfter { delay, withdrawal } => {
                self.past.failed(&ended);
                if outcome.pushback.is_some() {
                    self.past.since_pushback = 0;
                }
                self.paid = Some(withdrawal);
                Some(delay)
            }
        };
        self.waiting = Waiting::ToRetry;
        // Drops an answer, and with it the slot: not needed while waiting.
        self.last_error = result.err();
        ControlFlow::Continue(pause)
    }

    /// Whether a server refused the token, and there may be another one: once.
    fn gets_another_token(&mut self, code: Code) -> bool {
        if code != Code::Unauthenticated {
            return false;
        }
        let another = self.inner.token_refused(self.token.as_ref());
        let again = another && !self.token_refused && !self.replay.is_committed();
        self.token_refused = true;
        again
    }

    fn decide(&self, outcome: Outcome) -> Verdict {
        let now = Instant::now();
        let limit = self.settings.limit.as_ref();
        let inner = &self.inner;
        let policy = inner.retry.of(self.head.path());
        let mut facts = AttemptFacts {
            outcome,
            idempotent: self.is_idempotent(),
            attempts_made: self.past.attempts,
            attempts_since_pushback: self.past.since_pushback,
            refused_before: self.refused,
            committed: self.replay.is_committed(),
            remaining: limit.map(|limit| limit.deadline.remaining(now)),
            next_takes: None,
        };
        if self.leg.is_some() {
            // What follows a failure is the whole call's business.
            let resend = facts.resend();
            return resend.unwrap_or(Verdict::GiveUp(GiveUp::AttemptsUsed));
        }
        if limit.is_some() && policy.may_retry(&facts).is_ok() {
            facts.next_takes = self.next_takes(&self.tried, inner.age(now));
        }
        policy.decide(&facts, &inner.budget, inner.age(now), fastrand::f64())
    }
}
