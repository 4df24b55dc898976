//! A hand-made `grpc.health.v1.Health`, which does what the test says.

use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::unfold;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower_service::Service;

/// What it takes to say so.
const EXPIRES: Duration = Duration::from_millis(100);

/// What the service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthMode {
    /// Says SERVING.
    Serving,
    /// Says NOT_SERVING.
    NotServing,
    /// Answers as a server without the service.
    Unimplemented,
    /// Answers nothing any more, and ends nothing.
    Stalled,
    /// Answers, a little late, that the time is over, as Tonic's servers do by themselves: CANCELLED.
    Expired,
    /// Breaks off every answer, those that have begun and those to come.
    Broken,
}

/// The service of one server. Clones share it.
#[derive(Clone, Debug)]
pub struct HealthScript(Arc<Script>);

#[derive(Debug)]
struct Script {
    mode: watch::Sender<HealthMode>,
    requests: Mutex<Vec<HealthRequest>>,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct HealthRequest {
    pub at: Instant,
    /// `Check` or `Watch`.
    pub method: String,
    /// The service that it asks for.
    pub service: String,
}

type Frames = Result<Frame<Bytes>, Status>;

impl HealthScript {
    pub fn new(mode: HealthMode) -> Self {
        Self(Arc::new(Script {
            mode: watch::Sender::new(mode),
            requests: Mutex::default(),
        }))
    }

    /// Does this from now on; those that watch are told.
    pub fn set(&self, mode: HealthMode) {
        self.0.mode.send_replace(mode);
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<HealthRequest> {
        self.0.requests.lock().unwrap().clone()
    }

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let at = Instant::now();
        let (head, body) = request.into_parts();
        let method = head.uri.path().rsplit('/').next().unwrap().to_owned();
        let Ok(body) = body.collect().await else {
            // The client is gone.
            return pending().await;
        };
        let watches = method == "Watch";
        self.0.requests.lock().unwrap().push(HealthRequest {
            at,
            method,
            service: service_of(&body.to_bytes()),
        });
        let modes = self.0.mode.subscribe();
        if watches {
            return respond(unfold(Some((modes, None)), next_word));
        }
        let mode = *modes.borrow();
        match mode {
            HealthMode::Serving | HealthMode::NotServing => {
                let frames = [Ok(Frame::data(message(mode))), Ok(status(0))];
                respond(tokio_stream::iter(frames))
            }
            HealthMode::Unimplemented => respond(tokio_stream::iter([Ok(status(12))])),
            HealthMode::Stalled => pending().await,
            HealthMode::Expired => {
                sleep(EXPIRES).await;
                respond(tokio_stream::iter([Ok(status(1))]))
            }
            HealthMode::Broken => respond(tokio_stream::iter([Err(broken())])),
        }
    }
}

impl NamedService for HealthScript {
    const NAME: &'static str = "grpc.health.v1.Health";
}

impl Service<Request<Body>> for HealthScript {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.clone().answer(request).map(Ok).boxed()
    }
}

/// What is said next to one that watches, and has been told of this mode.
async fn next_word(
    state: Option<(watch::Receiver<HealthMode>, Option<HealthMode>)>,
) -> Option<(
    Frames,
    Option<(watch::Receiver<HealthMode>, Option<HealthMode>)>,
)> {
    let (mut modes, told) = state?;
    loop {
        let mode = *modes.borrow_and_update();
        match mode {
            HealthMode::Serving | HealthMode::NotServing if told != Some(mode) => {
                return Some((Ok(Frame::data(message(mode))), Some((modes, Some(mode)))));
            }
            HealthMode::Unimplemented => return Some((Ok(status(12)), None)),
            HealthMode::Broken => return Some((Err(broken()), None)),
            HealthMode::Expired => {
                sleep(EXPIRES).await;
                return Some((Ok(status(1)), None));
            }
            HealthMode::Serving | HealthMode::NotServing | HealthMode::Stalled => {}
        }
        if modes.changed().await.is_err() {
            return pending().await;
        }
    }
}

fn respond(frames: impl tokio_stream::Stream<Item = Frames> + Send + 'static) -> Response<Body> {
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    let kind = "application/grpc".parse().unwrap();
    response.headers_mut().insert("content-type", kind);
    response
}

/// A `HealthCheckResponse` with gRPC's prefix.
fn message(mode: HealthMode) -> Bytes {
    let status = if mode == HealthMode::Serving { 1 } else { 2 };
    Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status])
}

/// The call's end with this code.
fn status(code: u8) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.to_string().parse().unwrap());
    Frame::trailers(trailers)
}

/// Ends the stream with RST_STREAM.
fn broken() -> Status {
    Status::internal("the health service is dead")
}

/// Of a `HealthCheckRequest`: what follows gRPC's prefix, the field's tag and a length of one byte.
fn service_of(body: &[u8]) -> String {
    let name = body.get(7..).unwrap_or_default();
    String::from_utf8(name.to_vec()).expect("a service's name")
}
