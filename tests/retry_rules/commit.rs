//! From when on a call is not repeated any more, whatever speaks for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use tonic::Code;
use trunkline::{Backoff, CallOptions, Connector, Delivery, Error, Retry, Stage};

use super::{LIMIT, send};
use crate::client::calls::{ask, unary};
use crate::client::pair::{Pair, echo, quick, unavailable};
use crate::support::body::{Feed, post};
use crate::support::calls::request;
use crate::support::frames::{Frame, code};
use crate::support::leak::LeakCheck;
use crate::support::reaction::{Reaction, RequestInfo};
use crate::support::response;
use crate::support::server::EchoServer;
use crate::support::wait::within;

/// May repeat anything.
fn eager() -> Retry {
    quick()
        .idempotent(true)
        .codes([Code::Unavailable, Code::Internal, Code::Unknown])
}

#[tokio::test]
async fn response_headers_commit_it_however_it_ends() {
    let leaks = LeakCheck::start().await;
    let ends: [fn(u32) -> Vec<Frame>; 4] = [
        |stream| vec![Frame::rst(stream, code::INTERNAL_ERROR)],
        |stream| vec![Frame::rst(stream, code::REFUSED_STREAM)],
        |stream| vec![response::trailers(stream, 14, "late")],
        |stream| {
            let message = response::data(stream, b"");
            vec![message, response::trailers(stream, 14, "later")]
        },
    ];
    for end in ends {
        let react = move |_, request: &RequestInfo| {
            let mut frames = vec![response::headers(request.stream)];
            frames.extend(end(request.stream));
            Reaction::Frames(frames)
        };
        let pair = Pair::start(|it| it.retry(eager()), react).await;
        unary(&pair.channel, 1).await.unwrap_err();
        assert_eq!(pair.path(1), [0]);
        let stats = pair.channel.stats();
        assert_eq!((stats.retries, stats.resends), (0, 0));
    }
    leaks.finish().await;
}

/// The connection is lost between headers and trailers.
#[tokio::test]
async fn a_response_that_has_begun_is_not_begun_again_elsewhere() {
    let leaks = LeakCheck::start().await;
    let react = |_, request: &RequestInfo| {
        let headers = response::headers(request.stream);
        Reaction::Frames(vec![headers, response::data(request.stream, b"")])
    };
    let mut pair = Pair::start(|it| it.retry(eager()), react).await;
    let response = send(&pair.channel, 1).await.unwrap();
    let mut body = Box::pin(response.into_body());
    assert!(body.frame().await.unwrap().is_ok());
    pair.peers[0].kill();
    let rest = within(LIMIT, "the rest", body.collect()).await;
    let error = rest.unwrap_err();
    assert!(error.is_disconnected(), "{error:?}");
    assert_eq!(error.stage(), Some(Stage::Body));
    assert_eq!(error.delivery(), Delivery::MaybeProcessed);
    assert_eq!((error.attempts(), pair.path(1)), (1, vec![0]));
    drop(pair);
    leaks.finish().await;
}

/// A response that is nothing but a status commits nothing.
#[tokio::test]
async fn a_status_in_place_of_headers_commits_nothing() {
    let leaks = LeakCheck::start().await;
    let react = |nth, request: &_| match nth {
        0 => unavailable(),
        1 => Reaction::Fail(2, "unknown".to_owned()),
        _ => echo(request),
    };
    let pair = Pair::start(|it| it.retry(eager()), react).await;
    assert_eq!(unary(&pair.channel, 1).await.unwrap().id, 1);
    assert_eq!(pair.path(1), [0, 1, 0]);
    drop(pair);
    leaks.finish().await;
}

/// The deadline is the server's to miss, not the client's to wait for.
#[tokio::test]
async fn no_attempt_is_begun_after_the_deadline() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    server.behaviour().fail(1.0, Code::Unavailable);
    let long = Duration::from_secs(60);
    let backoff = Backoff::calls().initial(long).max(long).jitter(0.0);
    let retry = Retry::exponential().backoff(backoff);
    let connector = Connector::target(server.uri()).retry(retry);
    let channel = connector.connect().await.unwrap();
    for (id, timeout) in [(1, long), (2, long / 2)] {
        let options = CallOptions::new().timeout(timeout);
        let asked = ask(&channel, request(id), options);
        let status = within(LIMIT, "the call", asked).await.unwrap_err();
        // The server's word, and no guess about time.
        assert_eq!(status.message(), "asked to fail");
        assert!(Error::from_status(&status).is_none());
        assert_eq!(server.journal().handled()[&id], 1);
    }
    assert_eq!(channel.stats().retries, 0);
    drop((channel, server));
    leaks.finish().await;
}

/// Counts the frames that somebody still holds.
struct Held {
    bytes: Vec<u8>,
    count: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.count.fetch_sub(1, SeqCst);
    }
}

/// The frames that were kept are let go, those that follow are not kept, and the failed call is not repeated although
/// its code is to be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_outgrows_the_replay_buffer_streams_on() {
    const FRAME: usize = 16 << 10;
    const FRAMES: usize = 256;
    let leaks = LeakCheck::start().await;
    let server = EchoServer::builder("a")
        .max_message_size(FRAME * FRAMES + 100)
        .tcp();
    let retry = eager().replay_buffer(4 * FRAME);
    let connector = Connector::target(server.uri()).retry(retry);
    let channel = connector.connect().await.unwrap();
    let count = Arc::<AtomicUsize>::default();
    let (feed, body) = Feed::body();
    let feeding = {
        let count = Arc::clone(&count);
        tokio::spawn(async move {
            let mut most = 0;
            let mut message = failing_message(FRAME * FRAMES);
            while !message.is_empty() {
                let rest = message.split_off(FRAME.min(message.len()));
                let bytes = std::mem::replace(&mut message, rest);
                count.fetch_add(1, SeqCst);
                let held = Held {
                    bytes,
                    count: Arc::clone(&count),
                };
                feed.data(Bytes::from_owner(held)).await;
                most = most.max(count.load(SeqCst));
            }
            most
        })
    };
    let sent = within(LIMIT * 2, "the call", channel.send(post(body))).await;
    let response = sent.unwrap();
    assert_eq!(response.headers()["grpc-status"], "14");
    let most = feeding.await.unwrap();
    // What fits into the queue before the body, the buffer and the window, and not the 256 of the whole.
    assert!(most <= 64, "{most} frames at once");
    assert_eq!(count.load(SeqCst), 0);
    assert_eq!(server.journal().handled()[&1], 1);
    assert_eq!(channel.stats().retries, 0);
    drop((channel, server));
    leaks.finish().await;
}

/// A gRPC message of about this size that asks the server to fail.
fn failing_message(size: usize) -> Vec<u8> {
    use trunkline_proto::{EchoRequest, Message};
    let request = EchoRequest {
        payload: vec![7; size],
        fail_code: Code::Unavailable as u32,
        ..request(1)
    };
    response::message(&request.encode_to_vec()).to_vec()
}
