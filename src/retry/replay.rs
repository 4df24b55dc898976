//! A request body that several attempts can read.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::tape::{Item, Source, Tape};

/// Makes a request body repeatable: keeps what attempts have read of it, up to a limit.
///
/// Each attempt takes a [`reader`](Self::reader), which starts at the beginning: first the kept frames,
/// then the rest of the body as it comes. Frames are kept by reference count, nothing is copied.
///
/// When the frames read exceed the limit, the call is *committed* (gRFC A6): what was kept is dropped, the
/// current reader goes on without keeping, and there is no other. Dropping the `Replay` does the same: drop
/// it when response headers have come.
///
/// A unary request, the common case, is known whole from the start. Its readers are plain values that
/// share nothing, without lock or allocation, and know their exact size and end. Other bodies are shared
/// with the reader through a mutex, since it may be in another task; nobody else wants that lock while the
/// reader works.
///
/// The attempts of a hedged call, which run at the same time, have [one each](Self::share) on the same body.
pub(crate) struct Replay {
    origin: Origin,
    /// The reader that it gave last.
    reader: Option<u64>,
    /// It has been shared by another one, which goes on to own the body.
    shared: bool,
}

/// The request body as one attempt sees it, from its start.
///
/// Once a later attempt has its own, this one yields an error instead of frames, and is woken to do so if
/// it waits. (Of a body that is known whole, each reader has its own copy and stays good.)
///
/// Polling it is cancel safe: a frame is either returned or still there for the next poll or reader.
pub(crate) struct AttemptBody {
    origin: Origin,
    /// Which reader of the tape this is.
    number: u64,
}

#[derive(Clone)]
enum Origin {
    /// The body ended within two frames, and they are within the limit.
    Whole([Option<Item>; 2]),
    Tape(Arc<Mutex<Tape>>),
}

impl Replay {
    /// Takes the body, and keeps at most `limit` bytes of it. Every frame counts 64 bytes besides its own.
    ///
    /// Looks at the first two frames, if they are ready. Frames that no attempt has read are held as part
    /// of the body, whatever their size, and commit nothing.
    #[must_use]
    pub(crate) fn new(body: Body, limit: usize) -> Self {
        let mut source = Source::new(body);
        let ahead = source.look_ahead();
        let cost: usize = ahead.iter().flatten().map(Item::cost).sum();
        let origin = if source.is_ended() && cost <= limit {
            Origin::Whole(ahead)
        } else {
            Origin::Tape(Arc::new(Mutex::new(Tape::new(ahead, source, limit))))
        };
        Self {
            origin,
            reader: None,
            shared: false,
        }
    }

    /// Another one on the same body, whose readers leave those of this one alone. Dropping it ends nothing.
    #[must_use]
    pub(crate) fn share(&self) -> Self {
        Self {
            origin: self.origin.clone(),
            reader: None,
            shared: true,
        }
    }

    /// The last reader given here is the last of all, whoever reads the body now.
    pub(crate) fn commit(&self) {
        if let Origin::Tape(tape) = &self.origin {
            let stale = lock(tape).commit(self.reader);
            wake(stale);
        }
    }

    /// The body from its start, for one more attempt. From now on the reader before it yields an error.
    ///
    /// `None` once the call is committed; a reader that is still at work isn't disturbed then.
    #[must_use]
    pub(crate) fn reader(&mut self) -> Option<AttemptBody> {
        let number = match &self.origin {
            Origin::Whole(_) => 0,
            Origin::Tape(tape) => {
                let (number, stale) = lock(tape).start_over(self.reader)?;
                wake(stale);
                self.reader = Some(number);
                number
            }
        };
        Some(AttemptBody {
            origin: self.origin.clone(),
            number,
        })
    }

    /// Whether the body can't be read from its start any more.
    ///
    /// While a reader is at work this may change at any time. To be sure, take the next reader.
    #[must_use]
    pub(crate) fn is_committed(&self) -> bool {
        match &self.origin {
            Origin::Whole(_) => false,
            Origin::Tape(tape) => lock(tape).is_committed(),
        }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if !self.shared {
            self.commit();
        }
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("committed", &self.is_committed())
            .finish_non_exhaustive()
    }
}

impl http_body::Body for AttemptBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let number = self.number;
        let item = match &mut self.origin {
            Origin::Whole(items) => items.iter_mut().find_map(Option::take),
            Origin::Tape(tape) => {
                let (polled, stale) = lock(tape).poll_next(number, cx);
                wake(stale);
                ready!(polled)
            }
        };
        Poll::Ready(item.map(Item::into_frame))
    }

    fn is_end_stream(&self) -> bool {
        match &self.origin {
            Origin::Whole(items) => items.iter().all(Option::is_none),
            Origin::Tape(tape) => lock(tape).is_end(self.number),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.origin {
            Origin::Whole(items) => {
                SizeHint::with_exact(items.iter().flatten().map(Item::bytes).sum())
            }
            Origin::Tape(tape) => lock(tape).size_hint(self.number),
        }
    }
}

impl fmt::Debug for AttemptBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttemptBody")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Drop for AttemptBody {
    fn drop(&mut self) {
        if let Origin::Tape(tape) = &self.origin {
            let stale = lock(tape).leave(self.number);
            wake(stale);
        }
    }
}

/// Once the lock is free again: waking may run code of others.
fn wake(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

/// A body that panicked while it was polled leaves the tape as it was.
fn lock(tape: &Mutex<Tape>) -> MutexGuard<'_, Tape> {
    tape.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
