//! A sequence of calls on one connection.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use http::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Code;
use tonic::body::Body;
use tower_service::Service;

use crate::classify::{Bearing, Outcome};
use crate::endpoint::{Origin, Subchannel};
use crate::error::{Delivery, Error, Kind, Stage};
use crate::time::Instant;
use crate::token::Held;
use crate::transport::connection::Incoming;

use super::ResponseBody;
use super::attempt::{Head, is_unauthorized};
use super::body::Hold;
use super::call::{Call, Slot};
use super::first_message::FirstMessage;
use super::handle::Inner;
use super::options::TimeLimit;
use super::past::{Ended, Past, closed_under};

/// One connection of a [`Channel`](crate::Channel), for calls that belong together.
///
/// It holds one stream of the connection until it is dropped. Calls made through it (it goes under a tonic
/// client) take turns on that stream in their order, each to the end of its response. They have the
/// channel's deadlines, and are never repeated: elsewhere they would be out of sequence. Once the connection
/// has ended they fail; acquire another one then.
pub struct PinnedChannel {
    pinned: Arc<Pinned>,
}

/// Kept by the handle and by running calls.
pub(super) struct Pinned {
    inner: Arc<Inner>,
    subchannel: Arc<Subchannel>,
    /// If the endpoint has to prove itself, the calls are what it does so with.
    slot: Slot,
    turn: Arc<Semaphore>,
}

/// When a call was sent.
struct Sent {
    at: Instant,
    /// How often the endpoint's breaker had opened then.
    openings: u32,
}

/// The endpoint's answer, and what the call holds of it.
struct Answer {
    response: Response<Incoming>,
    /// What it led to, if its head says so.
    ended: Option<Outcome>,
    turn: OwnedSemaphorePermit,
    token: Option<Arc<Held>>,
    first: Option<FirstMessage>,
}

impl PinnedChannel {
    pub(super) async fn lease(inner: Arc<Inner>) -> Result<Self, Error> {
        let call = Call::new(Arc::clone(&inner), Request::new(Body::empty()));
        let (subchannel, mut slot) = call.lease_only().await?;
        // Each call has its own.
        slot.first = None;
        let turn = Arc::new(Semaphore::new(1));
        let pinned = Pinned {
            inner,
            subchannel,
            slot,
            turn,
        };
        Ok(Self {
            pinned: Arc::new(pinned),
        })
    }

    /// The address of the endpoint that the connection leads to.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.pinned.subchannel.name
    }

    /// Whether the connection still takes calls.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.pinned.slot.lease.connection().end().is_none()
    }

    /// Sends a request on the pinned connection.
    ///
    /// # Errors
    ///
    /// If there was no answer. An error status that the endpoint answered with is a response.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future resets the stream and passes the turn on. The call may have been processed.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<ResponseBody>, Error> {
        Arc::clone(&self.pinned).send(request).await
    }
}

impl Pinned {
    /// Of a call for which the endpoint's breaker had opened so often when it was sent.
    pub(super) fn origin(&self, openings: u32) -> Origin {
        Origin {
            openings,
            ..self.slot.origin()
        }
    }

    async fn send(
        self: Arc<Self>,
        request: Request<Body>,
    ) -> Result<Response<ResponseBody>, Error> {
        let now = Instant::now();
        let defaults = &self.inner.defaults;
        let settings = defaults.settings(request.headers(), request.extensions(), now);
        let limit = settings.limit;
        self.inner.counters.started();
        let mut past = Past::none(now);
        past.begin();
        let sent = OnceLock::new();
        let result = match &limit {
            None => self.exchange(request, None, &sent).await,
            // Timers have a tick of 1 ms, and requests are sent in less.
            Some(limit) if limit.timeout.is_zero() => Err(deadline_passed(limit, false)),
            Some(limit) => {
                let exchange = self.exchange(request, Some(limit), &sent);
                let result = tokio::time::timeout_at(limit.deadline.instant(), exchange).await;
                result.unwrap_or_else(|_| Err(deadline_passed(limit, sent.get().is_some())))
            }
        };
        let outcome = match &result {
            Ok(answer) => {
                let outcome = answer.ended;
                let code = outcome.map(|it| it.code);
                if code == Some(Code::Unauthenticated) || is_unauthorized(&answer.response) {
                    // For the calls to come: this one is not repeated.
                    self.inner.token_refused(answer.token.as_ref());
                }
                outcome
            }
            Err(error) => Some(Outcome::of_error(error)),
        };
        if let Some(outcome) = outcome {
            let bearing = bearing(outcome, limit.as_ref(), sent.get());
            let openings = sent.get().map_or(0, |it| it.openings);
            self.subchannel
                .record_as(outcome, bearing, self.origin(openings));
        }
        let code = outcome.map(|it| it.code);
        let result = match &limit {
            Some(limit) if code.is_some_and(|code| limit.explains(code)) => {
                Err(deadline_passed(limit, true))
            }
            _ => result,
        };
        match result {
            Ok(answer) => {
                let Answer {
                    response,
                    ended,
                    turn,
                    token,
                    first,
                } = answer;
                let subchannel = Arc::clone(&self.subchannel);
                let inner = Arc::clone(&self.inner);
                // The body keeps the connection's slot through the turn's owner.
                let hold = Hold::Turn {
                    _turn: turn,
                    openings: sent.get().map_or(0, |it| it.openings),
                    pinned: self,
                    first,
                };
                Ok(ResponseBody::wrap(
                    (response, ended),
                    hold,
                    token,
                    limit,
                    subchannel,
                    past,
                    inner,
                ))
            }
            Err(error) => {
                self.inner.counters.failed();
                let name = &self.subchannel.name;
                past.failed(&Ended::with(&error, Some(name)));
                let error = match error.at(name) {
                    lost if lost.kind() == Kind::Disconnected
                        && self.inner.tasks.is_cancelled() =>
                    {
                        closed_under(lost, Some(name))
                    }
                    error => error,
                };
                Err(past.tell(error))
            }
        }
    }

    /// Waits for its turn and a token, then for the response's headers. Notes when it may be sent.
    async fn exchange(
        &self,
        request: Request<Body>,
        limit: Option<&TimeLimit>,
        sent: &OnceLock<Sent>,
    ) -> Result<Answer, Error> {
        let (parts, body) = request.into_parts();
        let turn = Arc::clone(&self.turn);
        // The semaphore is never closed.
        let turn = turn.acquire_owned().await.map_err(|_| closed())?;
        let head = Head::new(parts, limit);
        let tasks = &self.inner.tasks;
        let token = self.inner.token(&head).await?;
        self.inner.check_privacy(token.as_ref(), &self.subchannel)?;
        let value = token.as_ref().map(|it| &it.value);
        let request = head.to_request(&self.subchannel, head.rest(limit), 0, value)?;
        let connection = self.slot.lease.connection();
        let mut first = self.inner.first_message(&self.subchannel);
        if let Some(first) = &mut first {
            first.sent();
        }
        sent.get_or_init(|| Sent {
            at: Instant::now(),
            openings: self.subchannel.health.openings(),
        });
        let result = connection.exchange(request, body, tasks).await;
        let outcome = match &result {
            Ok(response) => head.ended_by(response),
            Err(error) => Some(Outcome::of_error(error)),
        };
        if let Some(outcome) = outcome
            && let Some(first) = first.take()
        {
            first.ended(outcome, bearing(outcome, limit, sent.get()));
        }
        Ok(Answer {
            response: result?,
            ended: outcome,
            turn,
            token,
            first,
        })
    }
}

impl TimeLimit {
    /// What a call that is late says about the endpoint that it was sent to then: one that had little of its time, because
    /// the call waited for its turn, is not to blame.
    fn blame(&self, sent: Option<&Sent>) -> Bearing {
        match sent {
            Some(sent) if sent.at.elapsed() >= self.timeout / 2 => Bearing::Fault,
            _ => Bearing::Neutral,
        }
    }
}

impl Service<Request<Body>> for PinnedChannel {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(Arc::clone(&self.pinned).send(request))
    }
}

impl fmt::Debug for PinnedChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedChannel")
            .field("endpoint", &self.endpoint())
            .field("open", &self.is_open())
            .finish()
    }
}

/// What it says about the endpoint that a call with that limit ended like this.
fn bearing(outcome: Outcome, limit: Option<&TimeLimit>, sent: Option<&Sent>) -> Bearing {
    match limit {
        Some(limit) if limit.is_behind(outcome.code) => limit.blame(sent),
        _ => outcome.bearing(),
    }
}

fn deadline_passed(limit: &TimeLimit, sent: bool) -> Error {
    let timeout = limit.timeout;
    let (doing, stage, delivery) = if sent {
        let doing = "waiting for the response";
        (doing, Stage::Response, Delivery::MaybeProcessed)
    } else {
        let doing = "waiting for the calls before it or for a token";
        (doing, Stage::Pool, Delivery::NotSent)
    };
    let message =
        format!("the deadline of {timeout:?} passed on a pinned connection while {doing}");
    Error::new(Kind::Timeout, Code::DeadlineExceeded, message)
        .in_stage(stage)
        .delivered(delivery)
}

fn closed() -> Error {
    Error::new(
        Kind::Closed,
        Code::Unavailable,
        "the pinned connection is closed",
    )
}
