//! How request bodies go over the wire: in which frames, within which window, and what an error in one does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod client;
mod support;

use std::time::Duration;

use bytes::Bytes;
use client::counting::CountingDialer;
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use support::body::{Feed, post, whole};
use support::frames::{code, flag, kind, setting};
use support::h2_server::H2Peer;
use support::leak::LeakCheck;
use support::raw_conn::RawConn;
use support::raw_peer::RawPeer;
use support::response;
use support::wait::{wait_equal, within};
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::{Code, Status};
use trunkline::{Channel, Connector, Delivery, Error, ResponseBody};

const LIMIT: Duration = Duration::from_secs(5);

type Answer = Result<Response<ResponseBody>, Error>;

async fn connect(peer: &RawPeer, settings: &[(u16, u32)]) -> (Channel, RawConn) {
    let connecting = Connector::target(peer.uri()).connect();
    let (channel, mut conn) = peer.meet(settings, connecting).await;
    conn.settings_acked().await;
    (channel.unwrap(), conn)
}

fn send(channel: &Channel, body: Body) -> JoinHandle<Answer> {
    let channel = channel.clone();
    tokio::spawn(async move { channel.send(post(body)).await })
}

/// Reads the answer to its end: the bytes of the data, and the trailers' `grpc-status`.
async fn read(answer: JoinHandle<Answer>) -> (Bytes, String) {
    let response = within(LIMIT, "the answer", answer).await.unwrap().unwrap();
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().expect("the answer has trailers");
    let status = trailers["grpc-status"].to_str().unwrap().to_owned();
    (body.to_bytes(), status)
}

/// Answers, and ends the test: everything goes, slots included.
async fn finish(peer: RawPeer, channel: Channel, conn: RawConn, leaks: LeakCheck) {
    wait_equal(LIMIT, 0, || channel.status().endpoints[0].in_flight).await;
    drop(channel);
    conn.closed().await;
    drop(peer);
    leaks.finish().await;
}

/// The next frame that belongs to a stream.
async fn next_of_stream(conn: &mut RawConn) -> support::frames::Frame {
    loop {
        let frame = conn.recv().await.expect("the connection is open");
        if frame.stream != 0 {
            return frame;
        }
    }
}

/// Asserts that nothing of the stream is on the way.
async fn nothing_more(conn: &mut RawConn) {
    conn.ping(*b"in order").await;
    let next = conn.recv().await.unwrap();
    assert!(next.kind == kind::PING && next.has(flag::ACK), "{next:?}");
}

#[tokio::test]
async fn an_empty_body_is_headers_only() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, mut conn) = connect(&peer, &[]).await;
    for body in [Body::empty(), whole("")] {
        let answer = send(&channel, body);
        let headers = next_of_stream(&mut conn).await;
        assert_eq!(headers.kind, kind::HEADERS);
        assert!(headers.ends_stream());
        nothing_more(&mut conn).await;
        conn.respond_ok(headers.stream, b"").await;
        assert_eq!(read(answer).await.1, "0");
    }
    finish(peer, channel, conn, leaks).await;
}

/// A body of one frame, like that of every unary call: its end is a flag on that frame, and all is one write.
#[tokio::test]
async fn a_body_of_one_frame_leaves_with_its_headers_and_its_end() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let dialer = CountingDialer::default();
    let writes = dialer.clone();
    let connecting = Connector::target(peer.uri()).dialer(dialer).connect();
    let (channel, mut conn) = peer.meet(&[], connecting).await;
    let channel = channel.unwrap();
    conn.settings_acked().await;
    for size in [1, 100, 1_000, 8_000] {
        // A body that knows that its frame is the last, and one that doesn't, as tonic's.
        let (feed, unknowing) = Feed::body();
        feed.data(vec![7; size]).await;
        drop(feed);
        for body in [whole(vec![7; size]), unknowing] {
            conn.ping(*b"settled?").await;
            conn.next_frame(kind::PING, 0).await;
            let before = writes.writes();
            let answer = send(&channel, body);
            let headers = next_of_stream(&mut conn).await;
            let data = next_of_stream(&mut conn).await;
            assert_eq!((headers.kind, data.kind), (kind::HEADERS, kind::DATA));
            assert!(!headers.ends_stream() && data.ends_stream());
            assert_eq!(data.payload.len(), size);
            assert_eq!(writes.writes() - before, 1, "{size} bytes");
            conn.respond_ok(headers.stream, b"").await;
            assert_eq!(read(answer).await.1, "0");
        }
    }
    finish(peer, channel, conn, leaks).await;
}

/// Each frame leaves when it is there, whatever the pauses between them.
#[tokio::test]
async fn a_streaming_body_leaves_frame_by_frame() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, mut conn) = connect(&peer, &[]).await;
    let (feed, body) = Feed::body();
    let answer = send(&channel, body);
    // The headers do not wait for the body.
    let stream = conn.next_request().await;
    for text in ["one", "two", "three"] {
        feed.data("").await;
        feed.data(text).await;
        // An empty frame says nothing, and is not sent.
        let frame = next_of_stream(&mut conn).await;
        assert_eq!((frame.kind, frame.stream), (kind::DATA, stream));
        assert_eq!(frame.payload, text);
        assert!(!frame.ends_stream());
        nothing_more(&mut conn).await;
    }
    drop(feed);
    let end = next_of_stream(&mut conn).await;
    assert!(end.ends_stream() && end.payload.is_empty());
    conn.respond_ok(stream, b"ok").await;
    assert_eq!(read(answer).await.1, "0");
    finish(peer, channel, conn, leaks).await;
}

#[tokio::test]
async fn trailers_end_a_body() {
    let leaks = LeakCheck::start().await;
    let peer = H2Peer::tcp();
    let connecting = Connector::target(peer.uri()).connect();
    let (channel, mut conn) = tokio::join!(connecting, peer.accept());
    let channel = channel.unwrap();
    for with_data in [true, false] {
        let (feed, body) = Feed::body();
        if with_data {
            feed.data(response::message(b"data")).await;
        }
        let trailers = HeaderMap::from_iter([("checksum".parse().unwrap(), 17.into())]);
        feed.trailers(trailers).await;
        let answer = send(&channel, body);
        let mut request = conn.next().await;
        let (messages, trailers) = request.read().await;
        assert_eq!(messages.len(), usize::from(with_data));
        assert_eq!(trailers.unwrap()["checksum"], "17");
        request.ok(b"");
        assert_eq!(read(answer).await.1, "0");
    }
    drop(channel);
    conn.ended().await;
    drop(peer);
    leaks.finish().await;
}

/// Never more than the peer's windows allow, whether the body is one large frame or many small ones.
#[tokio::test]
async fn a_body_keeps_to_the_window() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let settings = [(setting::INITIAL_WINDOW_SIZE, 0)];
    let (channel, mut conn) = connect(&peer, &settings).await;
    for chunk in [40_000, 1_000] {
        let (feed, body) = Feed::body();
        let answer = send(&channel, body);
        let stream = conn.next_request().await;
        let feeding = tokio::spawn(async move {
            for _ in 0..40_000 / chunk {
                feed.data(vec![7; chunk]).await;
            }
        });
        nothing_more(&mut conn).await;
        // More frames than may wait for a reader: what can't be sent isn't read either.
        assert_eq!(feeding.is_finished(), chunk == 40_000);
        let mut received = 0;
        for increment in [1, 10, 5_000, 34_989] {
            conn.window_update(stream, increment).await;
            let granted = received + increment as usize;
            while received < granted {
                let data = conn.next_frame(kind::DATA, stream).await;
                assert!(!data.ends_stream());
                received += data.payload.len();
            }
            assert_eq!(received, granted);
            if received < 40_000 {
                nothing_more(&mut conn).await;
            }
        }
        // The end needs no window.
        assert!(conn.next_frame(kind::DATA, stream).await.ends_stream());
        conn.window_update(0, 40_000).await;
        feeding.await.unwrap();
        conn.respond_ok(stream, b"").await;
        assert_eq!(read(answer).await.1, "0");
    }
    finish(peer, channel, conn, leaks).await;
}

fn own() -> Status {
    let mut status = Status::new(Code::OutOfRange, "the caller's own");
    status
        .metadata_mut()
        .insert("key", "value".parse().unwrap());
    status
}

fn assert_own(error: Error, delivery: Delivery) {
    assert_eq!(error.delivery(), delivery, "{error:?}");
    let status = Status::from(error);
    assert_eq!(status.code(), Code::OutOfRange);
    assert_eq!(status.message(), "the caller's own");
    assert_eq!(status.metadata().get("key").unwrap(), "value");
}

#[tokio::test]
async fn a_body_that_fails_at_once_sends_nothing() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, mut conn) = connect(&peer, &[]).await;
    for after_data in [false, true] {
        let (feed, body) = Feed::body();
        if after_data {
            feed.data("data").await;
        }
        feed.fail(own()).await;
        let answer = within(LIMIT, "the error", send(&channel, body)).await;
        assert_own(answer.unwrap().unwrap_err(), Delivery::NotSent);
        feed.dropped().await;
    }
    nothing_more(&mut conn).await;
    assert_eq!(peer.seen().requests(), 0);
    finish(peer, channel, conn, leaks).await;
}

#[tokio::test]
async fn a_body_that_fails_later_resets_its_stream() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, mut conn) = connect(&peer, &[]).await;
    let (feed, body) = Feed::body();
    let answer = send(&channel, body);
    let stream = conn.next_request().await;
    feed.data("data").await;
    conn.next_frame(kind::DATA, stream).await;
    feed.fail(own()).await;
    assert_eq!(conn.next_rst(stream).await, code::CANCEL);
    let answer = within(LIMIT, "the error", answer).await.unwrap();
    assert_own(answer.unwrap_err(), Delivery::MaybeProcessed);

    // The same when the response has begun: then its body ends with the error.
    let (feed, body) = Feed::body();
    let answer = send(&channel, body);
    let stream = conn.next_request().await;
    conn.send(&response::headers(stream)).await;
    let response = within(LIMIT, "headers", answer).await.unwrap().unwrap();
    feed.fail(own()).await;
    assert_eq!(conn.next_rst(stream).await, code::CANCEL);
    let read = within(LIMIT, "the error", response.into_body().collect()).await;
    assert_own(read.unwrap_err(), Delivery::MaybeProcessed);
    assert_eq!(peer.seen().requests(), 2);
    finish(peer, channel, conn, leaks).await;
}
