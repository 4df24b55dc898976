//! The attempt loop: everything that may happen between a request and its response.

mod failure;
mod hedged;
mod lease;
mod repeat;

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::{Extensions, Request, Response};
use tonic::body::Body;

use crate::classify::Outcome;
use crate::endpoint::Subchannel;
use crate::error::{Delivery, Error, Kind};
use crate::retry::{Replay, Withdrawal};
use crate::time::Instant;
use crate::token::Held;
use crate::transport::connection::Incoming;

use super::ResponseBody;
use super::attempt::{Head, is_unauthorized};
use super::body::Hold;
use super::handle::Inner;
use super::options::Settings;
use super::past::Past;
use failure::{per_try_timeout_passed, unrepeatable};
use hedged::Leg;
pub(super) use lease::Slot;

/// One call. Owns the deadline, the endpoints tried, the replay buffer and the count of attempts; nothing
/// below it repeats anything.
pub(super) struct Call {
    inner: Arc<Inner>,
    head: Head,
    extensions: Extensions,
    settings: Settings,
    replay: Replay,
    past: Past,
    refused: bool,
    /// What the attempt carries.
    token: Option<Arc<Held>>,
    /// A server has refused one.
    token_refused: bool,
    /// What the budget gave for the next attempt. Given back if that is never sent.
    paid: Option<Withdrawal>,
    tried: Vec<u64>,
    /// An attempt may have been processed, whatever became of later ones.
    in_doubt: bool,
    started: Instant,
    /// When the attempt under way was sent, if not as it began.
    sent: Option<Instant>,
    /// How often the endpoint's breaker had opened then.
    openings: u32,
    /// What the call is waiting for, to say so when its deadline passes.
    waiting: Waiting,
    /// The endpoint that was picked last.
    endpoint: Option<Arc<Subchannel>>,
    last_error: Option<Error>,
    /// It is one attempt of a hedged call.
    leg: Option<Leg>,
}

#[derive(Clone, Copy, PartialEq)]
enum Waiting {
    ForToken,
    ForRoom,
    ForEndpoint,
    ForStream,
    ForResponse,
    ToRetry,
}

/// An endpoint's answer, and what the call holds of it: nothing, if it is a failure that is only kept.
struct Answer {
    response: Response<Incoming>,
    /// What it led to, if its head says so. The endpoint has been told of that.
    ended: Option<Outcome>,
    subchannel: Arc<Subchannel>,
    slot: Option<Slot>,
}

impl Call {
    pub(super) fn new(inner: Arc<Inner>, request: Request<Body>) -> Self {
        let (mut parts, body) = request.into_parts();
        let extensions = std::mem::take(&mut parts.extensions);
        let now = Instant::now();
        let settings = inner.defaults.settings(&parts.headers, &extensions, now);
        let head = Head::new(parts, settings.limit.as_ref());
        let replay_limit = inner.retry.of(head.path()).replay_limit();
        Self {
            replay: Replay::new(body, replay_limit),
            head,
            inner,
            extensions,
            settings,
            past: Past::none(now),
            refused: false,
            token: None,
            token_refused: false,
            paid: None,
            tried: Vec::new(),
            in_doubt: false,
            started: now,
            sent: None,
            openings: 0,
            waiting: Waiting::ForEndpoint,
            endpoint: None,
            last_error: None,
            leg: None,
        }
    }

    /// Runs the call to its response's headers, under its deadline.
    #[expect(
        clippy::manual_async_fn,
        reason = "the future of an `async fn` has room for the call twice"
    )]
    pub(super) fn run(
        mut self,
    ) -> impl Future<Output = Result<Response<ResponseBody>, Error>> + Send {
        async move {
            self.inner.counters.started();
            self.inner.budget.deposit(self.inner.age(self.started));
            // Nothing large may be alive where this waits: the future has room for it then, next to all else.
            let hedged = self.is_hedged();
            let error = match hedged {
                // Calls without hedging have no room for this.
                true => match Box::pin(self.hedged()).await {
                    Ok(answer) => return Ok(self.answered(answer)),
                    Err(error) => error,
                },
                false => match self.limited().await {
                    Ok(answer) => return Ok(self.answered(answer)),
                    Err(error) => error,
                },
            };
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
            Err(self.past.tell(error))
        }
    }

    /// The call ends with this answer, as far as the attempts go.
    fn answered(self, answer: Answer) -> Response<ResponseBody> {
        let (ended, mut response) = (answer.ended, answer.response);
        let hold = answer.slot.map_or(Hold::Nothing, Hold::Slot);
        if !self.past.history.is_empty() {
            let history = self.past.history.clone();
            response.extensions_mut().insert(history);
        }
        // Of a gRPC call, the attempt has seen to it.
        if ended.is_none() && is_unauthorized(&response) {
            self.inner.token_refused(self.token.as_ref());
        }
        let (subchannel, token) = (answer.subchannel, self.token);
        let (past, inner, limit) = (self.past, self.inner, self.settings.limit);
        let answer = (response, ended);
        ResponseBody::wrap(answer, hold, token, limit, subchannel, past, inner)
    }

    /// The attempts, under the deadline.
    async fn limited(&mut self) -> Result<Answer, Error> {
        match &self.settings.limit {
            None => self.attempts().await,
            // Timers have a tick of 1 ms, and requests are sent in less.
            Some(limit) if limit.timeout.is_zero() => Err(self.deadline_passed()),
            Some(limit) => {
                let deadline = limit.deadline.instant();
                let result = tokio::time::timeout_at(deadline, self.attempts()).await;
                result.unwrap_or_else(|_| {
                    self.record_lateness();
                    Err(self.deadline_passed())
                })
            }
        }
    }

    /// Whether several attempts may run at the same time: only if processing the call twice does no harm.
    fn is_hedged(&self) -> bool {
        let hedging = self.inner.hedging.as_ref();
        hedging.is_some_and(|it| it.of(self.head.path()).attempts() > 1) && self.is_idempotent()
    }

    fn is_idempotent(&self) -> bool {
        let policy = self.inner.retry.of(self.head.path());
        (self.settings.idempotent)
            .unwrap_or_else(|| policy.is_idempotent() || self.head.is_idempotent())
    }

    async fn attempts(&mut self) -> Result<Answer, Error> {
        loop {
            self.past.begin();
            let result = self.attempt().await;
            let pause = match self.after(result) {
                ControlFlow::Break(result) => return result,
                ControlFlow::Continue(pause) => pause,
            };
            match pause {
                // Lets a driver run that has not noticed yet that its connection is gone.
                None => tokio::task::yield_now().await,
                Some(delay) => tokio::time::sleep(delay).await,
            }
        }
    }

    /// Picks an endpoint, leases a slot of it and sends the request.
    async fn attempt(&mut self) -> Result<Answer, Error> {
        self.waiting = Waiting::ForToken;
        self.sent = None;
        let mut waited = false;
        self.token = noting(&mut waited, pin!(self.inner.token(&self.head))).await?;
        let (subchannel, mut slot) = noting(&mut waited, pin!(self.lease())).await?;
        self.inner.check_privacy(self.token.as_ref(), &subchannel)?;
        self.waiting = Waiting::ForResponse;
        self.sent = waited.then(Instant::now);
        self.openings = slot.openings;
        let Some(body) = self.replay.reader() else {
            // `decide` saw to it; only a pump that ran on in between can have changed it.
            return Err(self.last_error.take().unwrap_or_else(unrepeatable));
        };
        if let Some(paid) = self.paid.take() {
            paid.spend();
            match self.leg {
                Some(_) => self.inner.counters.hedged(),
                None => self.inner.counters.retried(),
            }
        }
        let limit = self.settings.limit.as_ref();
        let previous = self.past.attempts - 1;
        let token = self.token.as_ref().map(|it| &it.value);
        let rest = self.head.rest(limit);
        if rest.is_some() {
            // Or nobody polled the call for some of its time.
            self.sent.get_or_insert_with(Instant::now);
        }
        let request = (self.head).to_request(&subchannel, rest, previous, token)?;
        let tasks = &self.inner.tasks;
        let try_limit = self.inner.retry.of(self.head.path()).try_limit();
        if let Some(first) = &mut slot.first {
            first.sent();
        }
        if let Some(leg) = &self.leg {
            leg.sent();
        }
        let exchange = slot.lease.connection().exchange(request, body, tasks);
        let sent = within(try_limit, pin!(exchange)).await;
        let sent = sent.map_err(|error| error.at(&subchannel.name));
        let outcome = match &sent {
            Ok(response) => self.head.ended_by(response),
            Err(error) => Some(Outcome::of_error(error)),
        };
        if let (Some(_), Ok(response)) = (&outcome, &sent) {
            self.inner.note_report(&subchannel, response.headers());
        }
        if let Some(outcome) = outcome {
            let bearing = match limit {
                Some(limit) if limit.is_behind(outcome.code) => self.blame_for_lateness(),
                _ => outcome.bearing(),
            };
            if let Some(first) = slot.first.take() {
                first.ended(outcome, bearing);
            }
            subchannel.record_as(outcome, bearing, slot.origin());
            // Once each: resends have no other limit than the deadline.
            if !self.tried.contains(&subchannel.identity) {
                self.tried.push(subchannel.identity);
            }
            self.in_doubt |= !matches!(outcome.delivery, Delivery::NotSent | Delivery::Refused);
        }
        sent.map(|response| Answer {
            response,
            ended: outcome,
            subchannel,
            slot: Some(slot),
        })
    }
}

/// The answer of an exchange, if it comes in time.
///
/// The call awaits it in this one place: what is alive in several has bytes of its own in the call's future, beside those of
/// the wait for a slot, which is over then.
fn within<T>(
    limit: Option<Duration>,
    mut exchange: Pin<&mut impl Future<Output = Result<T, Error>>>,
) -> impl Future<Output = Result<T, Error>> {
    // Calls without it have no room for it.
    let mut timer = limit.map(|limit| Box::pin(tokio::time::sleep(limit)));
    poll_fn(move |cx| match (exchange.as_mut().poll(cx), &mut timer) {
        (Poll::Pending, Some(timer)) => {
            ready!(timer.as_mut().poll(cx));
            Poll::Ready(Err(per_try_timeout_passed(limit.unwrap_or_default())))
        }
        (polled, _) => polled,
    })
}

/// The same future, noting whether anything had to be waited for. Most of the time nothing has, and no clock is read.
fn noting<F: Future>(
    waited: &mut bool,
    mut future: Pin<&mut F>,
) -> impl Future<Output = F::Output> {
    poll_fn(move |cx| {
        let polled = future.as_mut().poll(cx);
        *waited |= polled.is_pending();
        polled
    })
}
