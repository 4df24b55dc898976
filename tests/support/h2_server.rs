//! A real `h2` server that hands each request to the test: for what must be seen decoded, such as authority, scheme,
//! timeout and trailers.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::request::Parts;
use http::{HeaderMap, Response};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::net::{Listener, Stream};
use super::place::Place;
use super::response;
use super::wait::within;

/// How long the client may take for what a test waits for.
const LIMIT: Duration = Duration::from_secs(5);

/// Requests that may wait for the test on one connection.
const QUEUE: usize = 1024;

/// A listening `h2` server on the test's own runtime.
#[derive(Debug)]
pub struct H2Peer {
    place: Place,
    listener: Listener,
}

impl H2Peer {
    /// Listens on a free loopback port.
    pub fn tcp() -> Self {
        Self::listening(Place::tcp())
    }

    /// Listens on a Unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::listening(Place::Unix(path.into()))
    }

    fn listening(place: Place) -> Self {
        let listener = place.listen().into_listener();
        Self { place, listener }
    }

    /// The TCP address.
    pub fn addr(&self) -> SocketAddr {
        self.place.addr()
    }

    /// The path of the Unix socket.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// `http://address` or `unix://path`.
    pub fn uri(&self) -> String {
        self.place.uri()
    }

    /// The next connection, with h2's default settings. Panics when none comes within 5 s.
    pub async fn accept(&self) -> H2Conn {
        self.accept_with(&Builder::new()).await
    }

    /// The next connection, with settings of your own.
    pub async fn accept_with(&self, builder: &Builder) -> H2Conn {
        let accepted = within(LIMIT, "a client's connection", self.listener.accept()).await;
        let io = accepted.expect("connections can be accepted");
        let handshake = within(LIMIT, "the handshake", builder.handshake(io)).await;
        H2Conn::start(handshake.expect("the client speaks HTTP/2"))
    }
}

/// One connection. Dropping it closes the socket without GOAWAY.
#[derive(Debug)]
pub struct H2Conn {
    requests: mpsc::Receiver<H2Request>,
    shutdown: Option<oneshot::Sender<()>>,
    driver: AbortHandle,
}

impl H2Conn {
    fn start(connection: h2::server::Connection<Stream, Bytes>) -> Self {
        let (forward, requests) = mpsc::channel(QUEUE);
        let (shutdown, asked) = oneshot::channel();
        let driver = tokio::spawn(drive(connection, forward, asked)).abort_handle();
        Self {
            requests,
            shutdown: Some(shutdown),
            driver,
        }
    }

    /// The next request. Panics when none comes within 5 s or the connection ends.
    pub async fn next(&mut self) -> H2Request {
        let next = within(LIMIT, "a request", self.requests.recv()).await;
        next.expect("the connection is open")
    }

    /// Waits until the connection has ended with no request left over.
    pub async fn ended(mut self) {
        let next = within(LIMIT, "the end of the connection", self.requests.recv()).await;
        assert!(next.is_none(), "another request came");
    }

    /// Starts a graceful shutdown: GOAWAY, and the end once its streams are through.
    pub fn graceful_shutdown(&mut self) {
        self.shutdown.take();
    }
}

impl Drop for H2Conn {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Polling for requests is also what moves the bytes of the connection.
async fn drive(
    mut connection: h2::server::Connection<Stream, Bytes>,
    forward: mpsc::Sender<H2Request>,
    mut asked: oneshot::Receiver<()>,
) {
    let mut leaving = false;
    loop {
        let request = tokio::select! {
            request = connection.accept() => request,
            _ = &mut asked, if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(Ok((request, respond))) = request else {
            return;
        };
        let (parts, body) = request.into_parts();
        let request = H2Request {
            parts,
            body,
            respond,
        };
        forward
            .try_send(request)
            .expect("the test takes the requests it causes");
    }
}

/// One request and the means to answer it. Dropping it unanswered resets the stream with CANCEL.
#[derive(Debug)]
pub struct H2Request {
    /// Method, URI with scheme and authority, headers.
    pub parts: Parts,
    pub body: RecvStream,
    pub respond: SendResponse<Bytes>,
}

impl H2Request {
    /// The URI's path.
    pub fn path(&self) -> &str {
        self.parts.uri.path()
    }

    /// The value of a header that must be text; `None` when it is missing.
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = self.parts.headers.get(name)?;
        Some(value.to_str().expect("the header is text"))
    }

    /// The payloads of all its gRPC messages, once the body has ended, and the trailers.
    pub async fn read(&mut self) -> (Vec<Bytes>, Option<HeaderMap>) {
        within(LIMIT, "the end of the request", self.read_all()).await
    }

    async fn read_all(&mut self) -> (Vec<Bytes>, Option<HeaderMap>) {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.body.data().await {
            let chunk = chunk.expect("the body arrives whole");
            let flow = self.body.flow_control();
            flow.release_capacity(chunk.len()).expect("it was received");
            body.extend_from_slice(&chunk);
        }
        let trailers = self.body.trailers().await.expect("the trailers arrive");
        let messages = std::iter::from_fn(|| response::take_message(&mut body)).collect();
        (messages, trailers)
    }

    /// Answers OK with one message of this payload.
    pub fn ok(mut self, payload: &[u8]) {
        let response = grpc_response().body(()).unwrap();
        let mut send = self
            .respond
            .send_response(response, false)
            .expect("the client waits");
        send.send_data(response::message(payload), false)
            .expect("the client waits");
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), 0.into())]);
        send.send_trailers(trailers).expect("the client waits");
    }

    /// Answers with this gRPC status in place of response headers.
    pub fn fail(mut self, code: i32, message: &str) {
        let response = grpc_response()
            .header("grpc-status", code)
            .header("grpc-message", message)
            .body(())
            .unwrap();
        self.respond
            .send_response(response, true)
            .expect("the client waits");
    }

    /// Resets the stream.
    pub fn reset(mut self, reason: Reason) {
        self.respond.send_reset(reason);
    }

    /// Waits for the client to reset the stream, and gives its reason. Panics when it does not within 5 s.
    pub async fn was_reset(&mut self) -> Reason {
        let reset = poll_fn(|cx| self.respond.poll_reset(cx));
        let reason = within(LIMIT, "a reset of the stream", reset).await;
        reason.expect("the connection is open")
    }
}

fn grpc_response() -> http::response::Builder {
    Response::builder().header("content-type", "application/grpc")
}
