//! The response body that callers read.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tonic::Code;

use crate::classify::{Bearing, Outcome};
use crate::endpoint::{Origin, Subchannel};
use crate::error::{Delivery, Error, Kind, Stage};
use crate::token::Held;
use crate::transport::connection::Incoming;

use super::call::Slot;
use super::first_message::FirstMessage;
use super::handle::Inner;
use super::options::TimeLimit;
use super::past::{Ended, Past, closed_under};
use super::pinned::Pinned;

pin_project! {
    /// A response's data and trailers.
    ///
    /// It holds the call's stream until it has ended. Dropping it before resets the stream, and stops the
    /// request's body if that is still being sent. The call's deadline holds here too.
    pub struct ResponseBody {
        running: Option<Running>,
        // Made when there is something to wait for: often there is not.
        #[pin]
        timer: Option<Sleep>,
        limit: Option<TimeLimit>,
        subchannel: Arc<Subchannel>,
        past: Past,
    }
}

/// What the call holds until its response has ended.
struct Running {
    incoming: Incoming,
    hold: Hold,
    /// What the call led to if the response does not say.
    unless_told: Outcome,
    /// The endpoint has been told already what it led to.
    is_counted: bool,
    token: Option<Arc<Held>>,
    /// Keeps the channel open.
    inner: Arc<Inner>,
}

/// The right that is given back when the response has ended.
pub(super) enum Hold {
    /// A slot of its own.
    Slot(Slot),
    /// None: the response ended with its headers, or was discarded but for these, and the slot went before it.
    Nothing,
    /// Its turn on a pinned connection.
    Turn {
        _turn: OwnedSemaphorePermit,
        pinned: Arc<Pinned>,
        first: Option<FirstMessage>,
        /// How often the endpoint's breaker had opened when it was sent.
        openings: u32,
    },
}

impl Hold {
    fn origin(&self) -> Origin {
        match self {
            Self::Slot(slot) => slot.origin(),
            Self::Nothing => Origin {
                connection: 0,
                openings: 0,
            },
            Self::Turn {
                pinned, openings, ..
            } => pinned.origin(*openings),
        }
    }

    /// Until the response has a message.
    fn take_first(&mut self) -> Option<FirstMessage> {
        match self {
            Self::Slot(slot) => slot.first.take(),
            Self::Nothing => None,
            Self::Turn { first, .. } => first.take(),
        }
    }
}

impl ResponseBody {
    /// The response as callers get it. What it led to is counted when it has ended, at once if it has no body, unless its
    /// head said so already: `ended`, which is counted.
    pub(super) fn wrap(
        (response, ended): (Response<Incoming>, Option<Outcome>),
        mut hold: Hold,
        token: Option<Arc<Held>>,
        limit: Option<TimeLimit>,
        subchannel: Arc<Subchannel>,
        past: Past,
        inner: Arc<Inner>,
    ) -> Response<Self> {
        let unless_told =
            ended.unwrap_or_else(|| Outcome::of_http(response.status(), response.headers()));
        let has_ended = response.body().is_end_stream();
        // There is none if a status ended the attempt.
        if (has_ended || unless_told.code != Code::Ok)
            && let Some(first) = hold.take_first()
        {
            first.ended(unless_told, unless_told.bearing());
        }
        if has_ended && ended.is_none() {
            subchannel.record(unless_told, hold.origin());
        }
        response.map(|incoming| {
            let running = Running {
                incoming,
                hold,
                unless_told,
                is_counted: ended.is_some(),
                token,
                inner,
            };
            Self {
                running: Some(running).filter(|_| !has_ended),
                timer: None,
                limit,
                subchannel,
                past,
            }
        })
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut this = self.project();
        let Some(running) = this.running.as_mut() else {
            return Poll::Ready(None);
        };
        let limit = this.limit.as_ref();
        let mut frame = match Pin::new(&mut running.incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let Some(limit) = limit else {
                    return Poll::Pending;
                };
                if this.timer.is_none() {
                    let timer = tokio::time::sleep_until(limit.deadline.instant());
                    this.timer.set(Some(timer));
                }
                if let Some(timer) = this.timer.as_pin_mut() {
                    ready!(timer.poll(cx));
                }
                Some(Err(deadline_passed(limit)))
            }
        };
        let unless_told = running.unless_told;
        let mut outcome = outcome_of(&frame, unless_told);
        if let Some(limit) = limit.filter(|limit| limit.ends_with(outcome)) {
            let error = deadline_passed(limit);
            outcome = Some(Outcome::of_error(&error));
            frame = Some(Err(error));
        }
        if outcome.is_none() && running.incoming.is_end_stream() {
            outcome = Some(unless_told);
        }
        let mut closed = false;
        if outcome.is_none_or(|it| it.code == Code::Ok)
            && let Some(first) = running.hold.take_first()
        {
            first.came();
        }
        if let Some(outcome) = outcome {
            // A stream that is cut at its deadline has done what it could.
            let bearing = match limit {
                Some(limit) if limit.is_behind(outcome.code) => Bearing::Neutral,
                _ => outcome.bearing(),
            };
            if let Some(first) = running.hold.take_first() {
                first.ended(outcome, bearing);
            }
            if !running.is_counted {
                let origin = running.hold.origin();
                this.subchannel.record_as(outcome, bearing, origin);
            }
            if let Some(Ok(frame)) = &frame
                && let Some(trailers) = frame.trailers_ref()
            {
                running.inner.note_report(this.subchannel, trailers);
            }
            closed = running.inner.tasks.is_cancelled();
            if outcome.code == Code::Unauthenticated {
                // Too late for this call.
                running.inner.token_refused(running.token.as_ref());
            }
            if let Some(Err(_)) = &frame {
                running.inner.counters.failed();
            }
            *this.running = None;
        }
        let told = |error: Error| {
            let name = &this.subchannel.name;
            this.past.failed(&Ended::with(&error, Some(name)));
            let error = error.at(name);
            let error = match error.kind() {
                Kind::Disconnected if closed => closed_under(error, Some(name)),
                _ => error,
            };
            this.past.tell(error)
        };
        Poll::Ready(frame.map(|frame| frame.map_err(told)))
    }

    fn is_end_stream(&self) -> bool {
        self.running.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.running {
            Some(running) => running.incoming.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("endpoint", &self.subchannel.name)
            .field("ended", &self.running.is_none())
            .finish_non_exhaustive()
    }
}

/// What the call led to, if it ends with this.
fn outcome_of(
    frame: &Option<Result<Frame<Bytes>, Error>>,
    unless_told: Outcome,
) -> Option<Outcome> {
    match frame {
        None => Some(unless_told),
        Some(Err(error)) => Some(Outcome::of_error(error)),
        Some(Ok(frame)) => {
            let trailers = frame.trailers_ref()?;
            Some(Outcome::of_headers(trailers).unwrap_or(unless_told))
        }
    }
}

impl TimeLimit {
    /// Whether the call is over for lack of time although a frame came.
    fn ends_with(&self, outcome: Option<Outcome>) -> bool {
        match outcome {
            Some(outcome) => self.explains(outcome.code),
            // The timer is asked only when nothing is ready, and a reader that is slower than the peer
            // never gets there.
            None => self.has_passed(),
        }
    }
}

fn deadline_passed(limit: &TimeLimit) -> Error {
    let timeout = limit.timeout;
    let message = format!("the deadline of {timeout:?} passed while the response was read");
    Error::new(Kind::Timeout, Code::DeadlineExceeded, message)
        .in_stage(Stage::Body)
        .delivered(Delivery::MaybeProcessed)
}
