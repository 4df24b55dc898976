//! The request body: sent with the headers when it is one frame, pumped by a task when it streams.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body, Frame};
use tonic::Status;

/// The start of a request body, as far as it is ready.
pub(super) enum Opening {
    /// All of it: nothing, or one data frame.
    Whole(Option<Bytes>),
    /// It streams; these frames were ready.
    Streaming(VecDeque<Frame<Bytes>>),
}

impl Opening {
    /// Polls the body with one frame of look-ahead, because tonic's bodies do not say that their only message
    /// is the last one. Headers, message and end of stream then leave in one write.
    pub(super) fn poll<B>(body: &mut B, cx: &mut Context<'_>) -> Result<Self, Status>
    where
        B: Body<Data = Bytes, Error = Status> + Unpin,
    {
        if body.is_end_stream() {
            return Ok(Self::Whole(None));
        }
        let first = match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => return Ok(Self::Streaming(VecDeque::new())),
            Poll::Ready(None) => return Ok(Self::Whole(None)),
            Poll::Ready(Some(frame)) => match frame?.into_data() {
                Ok(data) => data,
                Err(trailers) => return Ok(Self::Streaming(VecDeque::from([trailers]))),
            },
        };
        if body.is_end_stream() {
            return Ok(Self::Whole(Some(first)));
        }
        match Pin::new(body).poll_frame(cx) {
            Poll::Ready(None) => Ok(Self::Whole(Some(first))),
            Poll::Pending => Ok(Self::Streaming(VecDeque::from([Frame::data(first)]))),
            Poll::Ready(Some(second)) => Ok(Self::Streaming(VecDeque::from([
                Frame::data(first),
                second?,
            ]))),
        }
    }
}

/// Sends the ready frames and the rest of the body. Ends early when the peer resets the stream. An error of
/// the body is left in `failed`, and the stream is reset.
pub(super) async fn pump<B>(
    mut stream: SendStream<Bytes>,
    mut ready: VecDeque<Frame<Bytes>>,
    mut body: B,
    failed: Arc<OnceLock<Status>>,
) where
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    loop {
        let next = match ready.pop_front() {
            Some(frame) => Some(Ok(frame)),
            None => {
                let polled = poll_fn(|cx| {
                    if stream.poll_reset(cx).is_ready() {
                        return Poll::Ready(None);
                    }
                    Pin::new(&mut body).poll_frame(cx).map(Some)
                });
                match polled.await {
                    Some(next) => next,
                    None => return,
                }
            }
        };
        let sent = match next {
            None => {
                let _ = stream.send_data(Bytes::new(), true);
                return;
            }
            Some(Err(status)) => {
                let _ = failed.set(status);
                stream.send_reset(Reason::CANCEL);
                return;
            }
            Some(Ok(frame)) => match frame.into_data() {
                // An empty frame says nothing to the peer, and some close the connection over many of them.
                Ok(data) if data.is_empty() => Ok(()),
                Ok(data) => match window(&mut stream).await {
                    Ok(()) => stream.send_data(data, false),
                    Err(error) => Err(error),
                },
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        let _ = stream.send_trailers(trailers);
                    }
                    return;
                }
            },
        };
        if sent.is_err() {
            // The response side of the stream reports it.
            return;
        }
    }
}

/// Waits until the peer would take at least a byte. Asks for one only: window that is reserved is missing on
/// other streams, and h2 queues the rest of a chunk without copying it.
async fn window(stream: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    stream.reserve_capacity(1);
    // The capacity first: `poll_capacity` reports changes only.
    while stream.capacity() == 0 {
        match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
            None => return Err(Reason::CANCEL.into()),
        }
    }
    Ok(())
}
