//! One call on a connection.

use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tonic::{Code, Status};

use crate::classify::{self, Evidence};
use crate::error::{Delivery, Error, Kind, Stage};
use crate::task::Tasks;

use super::incoming::Incoming;
use super::outgoing::{self, Opening};
use super::{Connection, Shared};

impl Connection {
    /// Sends a request and waits for the response's headers. The caller holds a slot until the response's
    /// body has ended.
    ///
    /// Cancel safety: dropping the future, or the response's body, resets the stream.
    #[expect(
        clippy::manual_async_fn,
        reason = "the future of an `async fn` has room for each argument twice"
    )]
    pub(crate) fn exchange<B>(
        &self,
        head: Request<()>,
        mut body: B,
        tasks: &Tasks,
    ) -> impl Future<Output = Result<Response<Incoming>, Error>> + Send
    where
        B: Body<Data = Bytes, Error = Status> + Send + Unpin + 'static,
    {
        async move {
            self.shared.batch().await;
            let opening = poll_fn(|cx| Poll::Ready(Opening::poll(&mut body, cx)))
                .await
                .map_err(Error::request_body)?;
            let mut send = self.send.clone();
            // Before the request is given away: h2 does not hand it back.
            poll_fn(|cx| send.poll_ready(cx))
                .await
                .map_err(|error| self.shared.closed(error))?;
            let whole_and_empty = matches!(opening, Opening::Whole(None));
            let (mut response, mut stream) = match send.send_request(head, whole_and_empty) {
                Ok(sent) => sent,
                Err(error) => {
                    // Another call may have had the last stream in between.
                    let ready = poll_fn(|cx| Poll::Ready(send.poll_ready(cx))).await;
                    return Err(match ready {
                        Poll::Ready(Err(_)) => self.shared.closed(error),
                        _ => self.shared.failure(error, Evidence::UNSENT, Stage::Send),
                    });
                }
            };
            drop(send);
            self.shared.queued.fetch_add(1, Ordering::Relaxed);
            let failed = match opening {
                Opening::Whole(data) => {
                    if let Some(data) = data {
                        // Fails only if the stream is gone already; then the response says why.
                        let _ = stream.send_data(data, true);
                    }
                    drop(stream);
                    None
                }
                Opening::Streaming(ready) => {
                    let failed = Arc::new(OnceLock::new());
                    let pump = outgoing::pump(stream, ready, body, Arc::clone(&failed));
                    Some((tasks.spawn_guarded(pump), failed))
                }
            };
            match (&mut response).await {
                Ok(response) => {
                    Ok(response.map(|body| Incoming::new(body, Arc::clone(&self.shared), failed)))
                }
                Err(error) => {
                    if let Some(status) = failed.as_ref().and_then(|(_, failed)| failed.get()) {
                        return Err(
                            Error::request_body(status.clone()).delivered(Delivery::MaybeProcessed)
                        );
                    }
                    // Takes h2's lock, so only here.
                    let id = response.stream_id().as_u32();
                    let evidence = Evidence {
                        written: id <= self.shared.headers_written.load(Ordering::Acquire),
                        answered: false,
                    };
                    Err(self.shared.failure(error, evidence, Stage::Response))
                }
            }
        }
    }
}

impl Shared {
    /// Lets the driver write first, once, if half of the connection's calls wait to be written.
    ///
    /// Callers whose answers came together are ready together, and would all be in one write: then the peer
    /// has nothing to do while they are worked off here, and these have nothing to do while the peer works.
    /// With two halves on the way, each side has one while the other is away.
    fn batch(&self) -> impl Future<Output = ()> + Send {
        let mut asked = false;
        poll_fn(move |cx| {
            if asked || !self.half_is_queued() {
                return Poll::Ready(());
            }
            asked = true;
            // To the end of the run queue, behind the driver.
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    /// The connection takes no more streams. That is never the request's fault, although h2 calls it a user
    /// error when the stream ids are used up.
    fn closed(&self, error: h2::Error) -> Error {
        // Nothing else need happen on it for a long time, and calls would come back to it until something does.
        self.refuses.store(true, Ordering::Release);
        self.driver.wake();
        let failure = self.failure(error, Evidence::UNSENT, Stage::Send);
        if failure.kind() == Kind::Request {
            Error::new(Kind::Disconnected, Code::Unavailable, failure.message()).because(failure)
        } else {
            failure
        }
    }

    pub(super) fn failure(&self, error: h2::Error, evidence: Evidence, stage: Stage) -> Error {
        // h2 reports an end that this side chose as a broken pipe; the connection knows better.
        let known = self
            .end
            .get()
            .filter(|_| error.is_io())
            .map(ToString::to_string);
        let failure = classify::stream_error(error, evidence, stage);
        match known {
            Some(text) => failure.with_message(text),
            None => failure,
        }
    }
}
