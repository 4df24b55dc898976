//! What passes between a generated client or service and the transport below it: headers, trailers, and for each message
//! whether it was compressed. Used on the client's side of the crate and on tonic's server alike.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame};
use tonic::body::Body;
use tower::Service;
use trunkline::{Channel, Error, ResponseBody};

/// A record that the test reads while it is written.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Record>>);

/// One direction of a call.
#[derive(Debug, Default)]
pub struct Record {
    pub headers: HeaderMap,
    pub messages: Vec<Framed>,
    pub trailers: HeaderMap,
    pub end: End,
}

/// A message as the five bytes before it announce it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framed {
    pub compressed: bool,
    pub length: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    #[default]
    Open,
    /// Read to its end.
    Complete,
    /// Given up before that.
    Dropped,
}

impl Log {
    pub fn read(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap()
    }

    /// Which of the messages were compressed.
    pub fn compressed(&self) -> Vec<bool> {
        self.read()
            .messages
            .iter()
            .map(|it| it.compressed)
            .collect()
    }
}

/// Makes the direction complete, or, when dropped before, given up.
#[derive(Debug)]
pub struct Mark(pub Log);

impl Mark {
    fn complete(&self) {
        self.0.read().end = End::Complete;
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let mut record = self.0.read();
        if record.end == End::Open {
            record.end = End::Dropped;
        }
    }
}

/// A body whose messages, trailers and end are noted.
pub struct Tapped<B: HttpBody> {
    body: Pin<Box<B>>,
    mark: Mark,
    /// What was read of the message at hand: its first five bytes at most.
    prefix: BytesMut,
    /// How much of it is still to come.
    rest: usize,
    added: HeaderMap,
}

impl<B: HttpBody> Tapped<B> {
    pub fn new(body: B, mark: Mark) -> Self {
        Self {
            body: Box::pin(body),
            mark,
            prefix: BytesMut::new(),
            rest: 0,
            added: HeaderMap::new(),
        }
    }

    /// Adds these to the trailers.
    pub fn with_trailers(mut self, added: HeaderMap) -> Self {
        self.added = added;
        self
    }

    fn note_data(&mut self, mut data: Bytes) {
        while !data.is_empty() {
            let skipped = self.rest.min(data.len());
            data.advance(skipped);
            self.rest -= skipped;
            let wanted = (5 - self.prefix.len()).min(data.len());
            self.prefix.extend_from_slice(&data.split_to(wanted));
            if self.prefix.len() == 5 {
                let compressed = self.prefix.get_u8() == 1;
                let length = self.prefix.get_u32() as usize;
                self.rest = length;
                let message = Framed { compressed, length };
                self.mark.0.read().messages.push(message);
            }
        }
    }
}

impl<B: HttpBody<Data = Bytes>> HttpBody for Tapped<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut polled = ready!(self.body.as_mut().poll_frame(cx));
        match &mut polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.note_data(data.clone());
                } else if let Some(trailers) = frame.trailers_mut() {
                    trailers.extend(self.added.clone());
                    self.mark.0.read().trailers = trailers.clone();
                    self.mark.complete();
                }
            }
            Some(Err(_)) => {}
            None => self.mark.complete(),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

impl<B: HttpBody> Drop for Tapped<B> {
    fn drop(&mut self) {
        // Nobody asks a body for more that says it has none.
        if self.body.is_end_stream() {
            self.mark.complete();
        }
    }
}

/// The channel under test, with a note of what its calls send and receive.
#[derive(Clone, Debug)]
pub struct Tap {
    channel: Channel,
    case: HeaderValue,
    pub sent: Log,
    pub received: Log,
}

impl Tap {
    /// The calls say that they belong to this case.
    pub fn new(channel: Channel, case: &str) -> Self {
        Self {
            channel,
            case: case.try_into().unwrap(),
            sent: Log::default(),
            received: Log::default(),
        }
    }
}

impl Service<Request<Body>> for Tap {
    type Response = Response<Tapped<ResponseBody>>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.headers_mut().insert("x-case", self.case.clone());
        self.sent.read().headers = request.headers().clone();
        let mark = Mark(self.sent.clone());
        let request = request.map(|body| Body::new(Tapped::new(body, mark)));
        let received = self.received.clone();
        let calling = self.channel.call(request);
        Box::pin(async move {
            let mark = Mark(received.clone());
            let response = calling.await?;
            received.read().headers = response.headers().clone();
            Ok(response.map(|body| Tapped::new(body, mark)))
        })
    }
}
