//! Raw gRPC requests, with bodies that the test feeds frame by frame.

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;

/// Frames that may wait for whoever reads the body.
const ROOM: usize = 16;

/// A request of the echo service as tonic sends it, to no scheme and authority of its own.
pub fn post(body: Body) -> Request<Body> {
    Request::post("/trunkline.echo.v1.Echo/Unary")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap()
}

/// A body that is there as a whole.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Body::new(http_body_util::Full::new(bytes.into()))
}

/// Feeds one body. Dropping it ends the body.
#[derive(Debug)]
pub struct Feed(mpsc::Sender<Result<Frame<Bytes>, Status>>);

impl Feed {
    /// A body, and what feeds it.
    pub fn body() -> (Self, Body) {
        let (sender, receiver) = mpsc::channel(ROOM);
        let body = StreamBody::new(ReceiverStream::new(receiver));
        (Self(sender), Body::new(body))
    }

    pub async fn data(&self, bytes: impl Into<Bytes>) {
        self.put(Ok(Frame::data(bytes.into()))).await;
    }

    pub async fn trailers(&self, trailers: HeaderMap) {
        self.put(Ok(Frame::trailers(trailers))).await;
    }

    /// The body's error.
    pub async fn fail(&self, status: Status) {
        self.put(Err(status)).await;
    }

    async fn put(&self, frame: Result<Frame<Bytes>, Status>) {
        let sent = self.0.send(frame).await;
        sent.expect("the body is being read");
    }

    /// Waits until nobody holds the body any more.
    pub async fn dropped(&self) {
        self.0.closed().await;
    }
}
