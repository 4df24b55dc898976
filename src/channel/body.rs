//! The response body that callers read.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tonic::Code;

use crate::classify::Outcome;
use crate::endpoint::Subchannel;
use crate::error::{Delivery, Error, Kind, Stage};
use crate::pool::Lease;
use crate::transport::connection::Incoming;

use super::handle::Inner;
use super::options::TimeLimit;
use super::past::{Ended, Past};
use super::pinned::Pinned;

pin_project! {
    /// A response's data and trailers.
    ///
    /// It holds the call's stream until it has ended. Dropping it before resets the stream, and stops the
    /// request's body if that is still being sent. The call's deadline holds here too.
    pub struct ResponseBody {
        running: Option<Running>,
        #[pin]
        deadline: Option<Sleep>,
        limit: Option<TimeLimit>,
        subchannel: Arc<Subchannel>,
        past: Past,
    }
}

/// What the call holds until its response has ended.
struct Running {
    incoming: Incoming,
    _hold: Hold,
    /// Keeps the channel open.
    inner: Arc<Inner>,
}

/// The right that is given back when the response has ended.
pub(super) enum Hold {
    /// A slot of its own.
    Lease { _lease: Lease },
    /// Its turn on a pinned connection.
    Turn {
        _turn: OwnedSemaphorePermit,
        _pinned: Arc<Pinned>,
    },
}

impl ResponseBody {
    pub(super) fn new(
        incoming: Incoming,
        hold: Hold,
        limit: Option<TimeLimit>,
        subchannel: Arc<Subchannel>,
        past: Past,
        inner: Arc<Inner>,
    ) -> Self {
        let running = Some(Running {
            incoming,
            _hold: hold,
            inner,
        });
        Self {
            running: running.filter(|it| !it.incoming.is_end_stream()),
            deadline: limit
                .as_ref()
                .map(|limit| tokio::time::sleep_until(limit.deadline.instant())),
            limit,
            subchannel,
            past,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.project();
        let Some(running) = this.running.as_mut() else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut running.incoming).poll_frame(cx);
        let frame = match polled {
            Poll::Ready(frame) => match this.limit.as_ref() {
                Some(limit) if limit.ends_at(&frame) => Some(Err(deadline_passed(Some(limit)))),
                _ => frame,
            },
            Poll::Pending => match this.deadline.as_pin_mut().map(|it| it.poll(cx)) {
                Some(Poll::Ready(())) => Some(Err(deadline_passed(this.limit.as_ref()))),
                _ => return Poll::Pending,
            },
        };
        let ended = match &frame {
            Some(Ok(frame)) => match frame.trailers_ref() {
                Some(trailers) => {
                    let outcome = Outcome::of_headers(trailers);
                    this.subchannel.record(outcome.unwrap_or(Outcome::ANSWERED));
                    true
                }
                None => running.incoming.is_end_stream(),
            },
            Some(Err(error)) => {
                this.subchannel.record(Outcome::of_error(error));
                running.inner.counters.failed();
                true
            }
            None => {
                this.subchannel.record(Outcome::ANSWERED);
                true
            }
        };
        if ended {
            *this.running = None;
        }
        let told = |error: Error| {
            let name = &this.subchannel.name;
            this.past.failed(&Ended::with(&error, Some(name)));
            this.past.tell(error.at(name))
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

impl TimeLimit {
    /// Whether the call is over for lack of time although a frame came.
    fn ends_at(&self, frame: &Option<Result<Frame<Bytes>, Error>>) -> bool {
        match frame {
            None => false,
            Some(Err(error)) => self.explains(error.code()),
            Some(Ok(frame)) => match frame.trailers_ref() {
                Some(trailers) => {
                    Outcome::of_headers(trailers).is_some_and(|outcome| self.explains(outcome.code))
                }
                // The timer is asked only when nothing is ready, and a reader that is slower than the peer
                // never gets there.
                None => self.has_passed(),
            },
        }
    }
}

fn deadline_passed(limit: Option<&TimeLimit>) -> Error {
    let timeout = limit.map(|limit| limit.timeout).unwrap_or_default();
    let message = format!("the deadline of {timeout:?} passed while the response was read");
    Error::new(Kind::Timeout, Code::DeadlineExceeded, message)
        .in_stage(Stage::Body)
        .delivered(Delivery::MaybeProcessed)
}
