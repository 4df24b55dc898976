//! The attempt loop: everything that may happen between a request and its response.

use std::sync::Arc;

use http::{Extensions, Request, Response};
use tonic::Code;
use tonic::body::Body;

use crate::classify::Outcome;
use crate::endpoint::{Choice, Subchannel};
use crate::error::{Delivery, Error, Kind, Stage};
use crate::pool::{Lease, LeaseError};
use crate::retry::{AttemptFacts, Replay, Verdict, Withdrawal};
use crate::time::Instant;
use crate::transport::connection::Incoming;

use super::ResponseBody;
use super::attempt::{Head, trailers_only};
use super::body::Hold;
use super::handle::Inner;
use super::options::Settings;

/// One call. Owns the deadline, the endpoints tried, the replay buffer and the count of attempts; nothing
/// below it repeats anything.
pub(super) struct Call {
    inner: Arc<Inner>,
    head: Head,
    extensions: Extensions,
    settings: Settings,
    replay: Replay,
    /// The attempts that count. Resends of provably unprocessed work do not.
    attempts: u32,
    refused: bool,
    /// What the budget gave for the next attempt. Given back if that is never sent.
    paid: Option<Withdrawal>,
    tried: Vec<u64>,
    /// An attempt may have been processed, whatever became of later ones.
    in_doubt: bool,
    started: Instant,
    /// What the call is waiting for, to say so when its deadline passes.
    waiting: Waiting,
    /// The endpoint that was picked last.
    endpoint: Option<Arc<Subchannel>>,
    last_error: Option<Error>,
}

#[derive(Clone, Copy, PartialEq)]
enum Waiting {
    ForEndpoint,
    ForStream,
    ForResponse,
    ToRetry,
}

/// An endpoint's answer, and what the call holds of it.
struct Answer {
    response: Response<Incoming>,
    subchannel: Arc<Subchannel>,
    lease: Lease,
}

impl Call {
    pub(super) fn new(inner: Arc<Inner>, request: Request<Body>) -> Self {
        let (mut parts, body) = request.into_parts();
        let extensions = std::mem::take(&mut parts.extensions);
        let now = Instant::now();
        let settings = inner.defaults.settings(&parts.headers, &extensions, now);
        Self {
            replay: Replay::new(body, inner.retry.replay_limit()),
            head: Head::new(parts),
            inner,
            extensions,
            settings,
            attempts: 0,
            refused: false,
            paid: None,
            tried: Vec::new(),
            in_doubt: false,
            started: now,
            waiting: Waiting::ForEndpoint,
            endpoint: None,
            last_error: None,
        }
    }

    /// Runs the call to its response's headers, under its deadline.
    pub(super) async fn run(mut self) -> Result<Response<ResponseBody>, Error> {
        self.inner.counters.started();
        self.inner.budget.deposit(self.inner.age(self.started));
        let result = match &self.settings.limit {
            None => self.attempts().await,
            // Timers have a tick of 1 ms, and requests are sent in less.
            Some(limit) if limit.timeout.is_zero() => Err(self.deadline_passed()),
            Some(limit) => {
                let deadline = limit.deadline.instant();
                let result = tokio::time::timeout_at(deadline, self.attempts()).await;
                result.unwrap_or_else(|_| Err(self.deadline_passed()))
            }
        };
        match result {
            Ok(answer) => Ok(answer.response.map(|incoming| {
                let hold = Hold::Lease {
                    _lease: answer.lease,
                };
                let limit = self.settings.limit;
                let subchannel = answer.subchannel;
                ResponseBody::new(incoming, hold, limit, subchannel, self.attempts, self.inner)
            })),
            Err(error) => {
                self.inner.counters.failed();
                if error.kind() != Kind::Timeout {
                    // It may have come here without a pause. Callers that repeat the call in a loop would keep
                    // the runtime from the very tasks that connect the channel.
                    tokio::task::yield_now().await;
                }
                let error = if self.in_doubt && !error.maybe_processed() {
                    error.delivered(Delivery::MaybeProcessed)
                } else {
                    error
                };
                Err(error.after_attempts(self.attempts))
            }
        }
    }

    /// Only picks an endpoint and leases a slot of it, under the deadline.
    pub(super) async fn lease_only(mut self) -> Result<(Arc<Subchannel>, Lease), Error> {
        match &self.settings.limit {
            None => self.lease().await,
            Some(limit) => {
                let deadline = limit.deadline.instant();
                let leased = tokio::time::timeout_at(deadline, self.lease()).await;
                leased.unwrap_or_else(|_| Err(self.deadline_passed()))
            }
        }
    }

    async fn attempts(&mut self) -> Result<Answer, Error> {
        loop {
            self.attempts += 1;
            let result = self.attempt().await;
            let outcome = match &result {
                // Response headers: the call is committed to this answer.
                Ok(answer) => match trailers_only(&answer.response) {
                    Some(outcome) => outcome,
                    None => return result,
                },
                Err(error) => match error.kind() {
                    Kind::Connect | Kind::Refused | Kind::Disconnected | Kind::Protocol => {
                        Outcome::of_error(error)
                    }
                    // Nothing left, but a resend at once would find the same endpoints: gRPC hands a failed
                    // pick to the configured policy.
                    Kind::NoEndpoint => Outcome {
                        delivery: Delivery::Answered,
                        code: error.code(),
                    },
                    // The same again would come of repeating these.
                    Kind::Config
                    | Kind::Timeout
                    | Kind::PoolWait
                    | Kind::Request
                    | Kind::Dropped
                    | Kind::Closed => return result,
                },
            };
            let limit = self.settings.limit.as_ref();
            if limit.is_some_and(|limit| limit.explains(outcome.code)) {
                return Err(self.deadline_passed());
            }
            match self.decide(outcome) {
                Verdict::GiveUp(reason) => {
                    return result.map_err(|error| error.given_up(reason.why()));
                }
                Verdict::ResendNow => {
                    self.last_error = result.err();
                    self.waiting = Waiting::ToRetry;
                    self.attempts -= 1;
                    self.refused |= outcome.delivery == Delivery::Refused;
                    self.inner.counters.resent();
                    // Lets a driver run that has not noticed yet that its connection is gone.
                    tokio::task::yield_now().await;
                }
                Verdict::RetryAfter { delay, withdrawal } => {
                    self.paid = Some(withdrawal);
                    self.waiting = Waiting::ToRetry;
                    // Drops an answer, and with it the slot: not needed while waiting.
                    self.last_error = result.err();
                    tokio::time::sleep(delay).await;
                }
            }
        }
    }

    fn decide(&self, outcome: Outcome) -> Verdict {
        let now = Instant::now();
        let limit = self.settings.limit.as_ref();
        let facts = AttemptFacts {
            delivery: outcome.delivery,
            code: outcome.code,
            attempts_made: self.attempts,
            refused_before: self.refused,
            committed: self.replay.is_committed(),
            remaining: limit.map(|limit| limit.deadline.remaining(now)),
        };
        let inner = &self.inner;
        inner
            .retry
            .decide(&facts, &inner.budget, inner.age(now), fastrand::f64())
    }

    /// Picks an endpoint, leases a slot of it and sends the request.
    async fn attempt(&mut self) -> Result<Answer, Error> {
        let (subchannel, lease) = self.lease().await?;
        self.waiting = Waiting::ForResponse;
        let Some(body) = self.replay.reader() else {
            // `decide` saw to it; only a pump that ran on in between can have changed it.
            return Err(self.last_error.take().unwrap_or_else(unrepeatable));
        };
        if let Some(paid) = self.paid.take() {
            paid.spend();
            self.inner.counters.retried();
        }
        let limit = self.settings.limit.as_ref();
        let sent = self
            .head
            .send(body, &subchannel, &lease, limit, &self.inner.tasks);
        let sent = sent.await;
        let outcome = match &sent {
            Ok(response) => trailers_only(response),
            Err(error) => Some(Outcome::of_error(error)),
        };
        if let Some(outcome) = outcome {
            subchannel.record(outcome);
            // Once each: resends have no other limit than the deadline.
            if !self.tried.contains(&subchannel.identity) {
                self.tried.push(subchannel.identity);
            }
            self.in_doubt |= !matches!(outcome.delivery, Delivery::NotSent | Delivery::Refused);
        }
        sent.map(|response| Answer {
            response,
            subchannel,
            lease,
        })
    }

    async fn lease(&mut self) -> Result<(Arc<Subchannel>, Lease), Error> {
        let directory = Arc::clone(&self.inner.directory);
        // Endpoints of one set that can't be used although the set says so: it is about to change. In the next
        // set they may be ready again; a call that still held them unready there would wait for one more change.
        let mut unready = Vec::new();
        let mut unready_in = 0;
        loop {
            self.waiting = Waiting::ForEndpoint;
            let (version, choice) = {
                let set = directory.set();
                if set.version != unready_in {
                    unready.clear();
                    unready_in = set.version;
                }
                let request = self
                    .head
                    .pick_request(&self.extensions)
                    .with_attempt(self.attempts);
                (set.version, set.pick(&request, &self.tried, &unready))
            };
            match choice {
                Choice::Use(subchannel) => {
                    self.waiting = Waiting::ForStream;
                    self.endpoint = Some(Arc::clone(&subchannel));
                    match subchannel.pool.lease().await {
                        Ok(lease) => return Ok((subchannel, lease)),
                        Err(LeaseError::Unready) => unready.push(subchannel.identity),
                        Err(error) => return Err(pool_error(error, &subchannel)),
                    }
                }
                Choice::Drop(error) => return Err(error),
                Choice::Fail(error) if !self.settings.wait_for_ready => return Err(error),
                Choice::Fail(error) => {
                    self.last_error = Some(error);
                    directory.newer_than(version).await;
                }
                Choice::Wait => directory.newer_than(version).await,
            }
        }
    }

    fn deadline_passed(&mut self) -> Error {
        let timeout = self
            .settings
            .limit
            .as_ref()
            .map(|it| it.timeout)
            .unwrap_or_default();
        let (stage, doing) = match self.waiting {
            Waiting::ForEndpoint => (Stage::Pick, "waiting for an endpoint to be ready"),
            Waiting::ForStream => (Stage::Pool, "waiting for a free stream"),
            Waiting::ForResponse => (Stage::Response, "waiting for the response"),
            Waiting::ToRetry => (Stage::Pick, "waiting to retry"),
        };
        let at_endpoint = matches!(stage, Stage::Pool | Stage::Response);
        let name = self
            .endpoint
            .as_ref()
            .map(|it| &it.name)
            .filter(|_| at_endpoint);
        let mut message = format!("the deadline of {timeout:?} passed while {doing}");
        if let Some(name) = name {
            message.push_str(" of ");
            message.push_str(name);
        }
        let last = self.last_error.take();
        if let Some(last) = &last {
            message.push_str("; before that: ");
            message.push_str(last.message());
        }
        self.in_doubt |= self.waiting == Waiting::ForResponse;
        let error = Error::new(Kind::Timeout, Code::DeadlineExceeded, message).in_stage(stage);
        let error = match name {
            Some(name) => error.about(name),
            None => error,
        };
        match last {
            Some(last) => error.because(last),
            None => error,
        }
    }
}

fn pool_error(error: LeaseError, subchannel: &Subchannel) -> Error {
    let message = match error {
        LeaseError::QueueFull => "too many calls are waiting for a free stream (pool.max_waiting)",
        LeaseError::TimedOut => "no stream became free in time (pool.wait_timeout)",
        LeaseError::Unready => "no connection is open",
    };
    Error::new(Kind::PoolWait, Code::Unavailable, message)
        .in_stage(Stage::Pool)
        .at(&subchannel.name)
}

fn unrepeatable() -> Error {
    let message = "the request's body is too large to be sent again (retry.replay_buffer)";
    Error::new(Kind::Disconnected, Code::Unavailable, message)
        .in_stage(Stage::Send)
        .delivered(Delivery::MaybeProcessed)
}
