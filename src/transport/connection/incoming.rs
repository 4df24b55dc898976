//! The response body.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::classify::Evidence;
use crate::error::{Delivery, Error, Stage};
use crate::task::AbortOnDrop;

use super::Shared;

/// A response body on its stream. Dropping it before its end resets the stream and stops the request body.
#[derive(Debug)]
pub(crate) struct Incoming {
    /// Until it is discarded.
    stream: Option<RecvStream>,
    shared: Arc<Shared>,
    data_done: bool,
    /// The task that sends the request body, and the error that body may have had.
    pump: Option<(AbortOnDrop, Arc<OnceLock<Status>>)>,
}

impl Incoming {
    pub(super) fn new(
        stream: RecvStream,
        shared: Arc<Shared>,
        pump: Option<(AbortOnDrop, Arc<OnceLock<Status>>)>,
    ) -> Self {
        Self {
            stream: Some(stream),
            shared,
            data_done: false,
            pump,
        }
    }

    /// Gives the stream back: nobody reads what is left of it. Unless it has ended it is reset.
    pub(crate) fn discard(&mut self) {
        (self.stream, self.pump) = (None, None);
    }

    fn failure(&self, error: h2::Error) -> Error {
        if let Some(status) = self.pump.as_ref().and_then(|(_, failed)| failed.get()) {
            return Error::request_body(status.clone()).delivered(Delivery::MaybeProcessed);
        }
        let evidence = Evidence {
            written: true,
            answered: true,
        };
        self.shared.failure(error, evidence, Stage::Body)
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else {
            return Poll::Ready(None);
        };
        if !this.data_done {
            match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Fails only when the stream is closed, and then its window does not matter.
                    let _ = stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(this.failure(error)))),
                None => this.data_done = true,
            }
        }
        match ready!(stream.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(Some(Err(this.failure(error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        let stream = self.stream.as_ref();
        stream.is_none_or(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() {
            SizeHint::with_exact(0)
        } else {
            SizeHint::default()
        }
    }
}
