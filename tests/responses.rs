//! Responses and their ends: read to the end, dropped half way, complete before the request is, cut off.

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

mod support;

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Body as _;
use http_body_util::BodyExt;
use support::body::{Feed, post};
use support::frames::{Frame, code, flag, kind, setting};
use support::h2_server::H2Peer;
use support::leak::LeakCheck;
use support::raw_conn::RawConn;
use support::raw_peer::RawPeer;
use support::response;
use support::wait::{wait_equal, within};
use tokio::task::JoinHandle;
use tonic::body::Body;
use trunkline::{
    Channel, Connector, Delivery, Error, Http2Options, PoolOptions, ResponseBody, Stage,
};

const LIMIT: Duration = Duration::from_secs(5);
/// HTTP/2's own initial window, and the smallest that can be set.
const SMALL: u32 = 65_535;

type Answer = Result<Response<ResponseBody>, Error>;

/// A channel with one connection of small windows, and a peer that allows one stream: a slot that is not given back
/// is missed by the next call.
async fn connect(peer: &RawPeer) -> (Channel, RawConn) {
    let http2 = Http2Options::new()
        .stream_window(SMALL)
        .connection_window(2 * SMALL);
    let connecting = Connector::target(peer.uri())
        .http2(http2)
        .pool(PoolOptions::new().max_connections(1))
        .connect();
    let settings = [(setting::MAX_CONCURRENT_STREAMS, 1)];
    let (channel, mut conn) = peer.meet(&settings, connecting).await;
    conn.settings_acked().await;
    (channel.unwrap(), conn)
}

fn send(channel: &Channel, body: Body) -> JoinHandle<Answer> {
    let channel = channel.clone();
    tokio::spawn(async move { channel.send(post(body)).await })
}

async fn answered(answer: JoinHandle<Answer>) -> Response<ResponseBody> {
    within(LIMIT, "the answer", answer).await.unwrap().unwrap()
}

fn in_flight(channel: &Channel) -> usize {
    channel.status().endpoints[0].in_flight
}

/// A call gets the only slot, and its answer.
async fn serves(channel: &Channel, conn: &mut RawConn) {
    let answer = send(channel, Body::empty());
    let stream = conn.next_request().await;
    conn.respond_ok(stream, b"served").await;
    let read = answered(answer).await.into_body().collect().await.unwrap();
    assert_eq!(read.to_bytes(), response::message(b"served"));
    wait_equal(LIMIT, 0, || in_flight(channel)).await;
}

async fn finish(peer: RawPeer, channel: Channel, mut conn: RawConn, leaks: LeakCheck) {
    serves(&channel, &mut conn).await;
    let endpoint = channel.status().endpoints.remove(0);
    assert_eq!((endpoint.free_streams, endpoint.waiting), (1, 0));
    drop(channel);
    conn.closed().await;
    assert_eq!(peer.seen().connections(), 1);
    drop(peer);
    leaks.finish().await;
}

#[tokio::test]
async fn data_and_trailers_arrive() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, mut conn) = connect(&peer).await;
    let answer = send(&channel, Body::empty());
    let stream = conn.next_request().await;
    conn.send(&response::headers(stream)).await;
    conn.send_data(stream, "one", false).await;
    conn.send_data(stream, "two", false).await;
    conn.send_headers(stream, &[("grpc-status", "0"), ("checksum", "17")], true)
        .await;
    let response = answered(answer).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(in_flight(&channel), 1);
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["checksum"], "17");
    assert_eq!(body.to_bytes(), "onetwo");
    assert_eq!(in_flight(&channel), 0);
    finish(peer, channel, conn, leaks).await;
}

#[tokio::test]
async fn a_response_of_headers_only_holds_no_slot() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, mut conn) = connect(&peer).await;
    let answer = send(&channel, Body::empty());
    let stream = conn.next_request().await;
    conn.respond_trailers_only(stream, 5, "gone").await;
    let response = answered(answer).await;
    assert_eq!(response.headers()["grpc-status"], "5");
    assert!(response.body().is_end_stream());
    assert_eq!(response.body().size_hint().exact(), Some(0));
    // The response is still there.
    assert_eq!(in_flight(&channel), 0);
    drop(response);
    finish(peer, channel, conn, leaks).await;
}

/// `100 Continue`, `103 Early Hints` and their like announce a response, and are none.
#[tokio::test]
async fn interim_responses_are_passed_over() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, mut conn) = connect(&peer).await;
    let answer = send(&channel, Body::empty());
    let stream = conn.next_request().await;
    for status in ["100", "103"] {
        conn.send_headers(stream, &[(":status", status)], false)
            .await;
    }
    conn.respond_ok(stream, b"").await;
    let response = answered(answer).await;
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap();
    finish(peer, channel, conn, leaks).await;
}

#[tokio::test]
async fn a_dropped_call_resets_its_stream_and_stops_its_body() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, mut conn) = connect(&peer).await;
    for streaming in [false, true] {
        let (feed, body) = Feed::body();
        let (feed, body) = match streaming {
            false => (None, Body::empty()),
            true => (Some(feed), body),
        };
        let call = send(&channel, body);
        let stream = conn.next_request().await;
        call.abort();
        assert_eq!(conn.next_rst(stream).await, code::CANCEL);
        wait_equal(LIMIT, 0, || in_flight(&channel)).await;
        if let Some(feed) = feed {
            within(LIMIT, "the body's end", feed.dropped()).await;
        }
    }
    finish(peer, channel, conn, leaks).await;
}

#[tokio::test]
async fn a_call_dropped_in_the_queue_leaves_nothing() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, mut conn) = connect(&peer).await;
    let first = send(&channel, Body::empty());
    let stream = conn.next_request().await;
    let waiting: Vec<_> = (0..10).map(|_| send(&channel, Body::empty())).collect();
    let queue = || channel.status().endpoints[0].waiting;
    wait_equal(LIMIT, 10, queue).await;
    waiting.iter().for_each(JoinHandle::abort);
    wait_equal(LIMIT, 0, queue).await;
    conn.respond_ok(stream, b"").await;
    answered(first).await.into_body().collect().await.unwrap();
    assert_eq!(peer.seen().requests(), 1);
    finish(peer, channel, conn, leaks).await;
}

#[tokio::test]
async fn a_body_dropped_half_read_resets_its_stream() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, mut conn) = connect(&peer).await;
    let (feed, body) = Feed::body();
    let answer = send(&channel, body);
    let stream = conn.next_request().await;
    conn.send(&response::headers(stream)).await;
    conn.send_data(stream, "half", false).await;
    {
        let mut body = pin!(answered(answer).await.into_body());
        let frame = within(LIMIT, "the first half", body.frame()).await;
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "half");
        assert!(!body.is_end_stream());
        assert_eq!(in_flight(&channel), 1);
    }
    assert_eq!(in_flight(&channel), 0);
    assert_eq!(conn.next_rst(stream).await, code::CANCEL);
    within(LIMIT, "the request body's end", feed.dropped()).await;
    finish(peer, channel, conn, leaks).await;
}

/// What was read, and what never will be, goes back into the connection's window.
#[tokio::test]
async fn bodies_dropped_unread_take_no_window_with_them() {
    const SIZE: usize = 48 << 10;
    let leaks = LeakCheck::start().await;
    let peer = H2Peer::tcp();
    let http2 = Http2Options::new()
        .stream_window(SMALL)
        .connection_window(SMALL);
    let connecting = Connector::target(peer.uri()).http2(http2).connect();
    let (channel, mut conn) = tokio::join!(connecting, peer.accept());
    let channel = channel.unwrap();
    for round in 0..50 {
        let answer = send(&channel, Body::empty());
        let mut request = conn.next().await;
        let mut stream = request
            .respond
            .send_response(Response::new(()), false)
            .unwrap();
        stream
            .send_data(Bytes::from(vec![7; SIZE]), true)
            .expect("the client waits");
        let response = answered(answer).await;
        if round == 49 {
            let body = within(LIMIT, "the data", response.into_body().collect()).await;
            assert_eq!(body.unwrap().to_bytes().len(), SIZE);
        }
    }
    drop(channel);
    conn.ended().await;
    drop(peer);
    leaks.finish().await;
}

/// The peer may send more as it is read, and not before.
#[tokio::test]
async fn window_is_given_back_by_reading() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, mut conn) = connect(&peer).await;
    let answer = send(&channel, Body::empty());
    let stream = conn.next_request().await;
    conn.send(&response::headers(stream)).await;
    for _ in 0..SMALL / 13_107 {
        conn.send_data(stream, vec![7; 13_107], false).await;
    }
    conn.ping(*b"in order").await;
    let next = conn.recv().await.unwrap();
    assert!(next.kind == kind::PING && next.has(flag::ACK), "{next:?}");

    let mut body = Box::pin(answered(answer).await.into_body());
    let mut read = 0;
    while read < SMALL as usize {
        let frame = within(LIMIT, "the data", body.frame()).await;
        read += frame.unwrap().unwrap().into_data().unwrap().len();
    }
    let update = conn.next_frame(kind::WINDOW_UPDATE, stream).await;
    assert!(update.number_at(0) > SMALL / 2);
    conn.send_trailers(stream, 0, "").await;
    assert!(body.frame().await.unwrap().unwrap().is_trailers());
    drop(body);
    finish(peer, channel, conn, leaks).await;
}

/// A server may answer in full while the request still streams; the rest of the request is then called off.
#[tokio::test]
async fn an_early_answer_ends_the_request() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, mut conn) = connect(&peer).await;
    let (feed, body) = Feed::body();
    let answer = send(&channel, body);
    let stream = conn.next_request().await;
    conn.respond_ok(stream, b"early").await;
    // The response's end counts, not the drop of what is left of it.
    let mut body = Box::pin(answered(answer).await.into_body());
    let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(data, response::message(b"early"));
    assert!(body.frame().await.unwrap().unwrap().is_trailers());
    assert!(body.frame().await.is_none());
    assert_eq!(conn.next_rst(stream).await, code::CANCEL);
    within(LIMIT, "the request body's end", feed.dropped()).await;
    assert_eq!(in_flight(&channel), 0);
    drop(body);
    finish(peer, channel, conn, leaks).await;
}

/// RFC 9113 section 8.1: with NO_ERROR the server asks for the rest of the request to be left out, and its response
/// stands, however late it is read.
#[tokio::test]
async fn an_early_answer_with_a_reset_is_kept() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, mut conn) = connect(&peer).await;
    let (feed, body) = Feed::body();
    let answer = send(&channel, body);
    let stream = conn.next_request().await;
    conn.respond_ok(stream, b"early").await;
    conn.rst(stream, code::NO_ERROR).await;
    within(LIMIT, "the request body's end", feed.dropped()).await;
    let body = answered(answer).await.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), response::message(b"early"));
    finish(peer, channel, conn, leaks).await;
}

/// A body that breaks off ends with an error: data without its end must not pass for all of it.
#[tokio::test]
async fn a_body_that_is_cut_off_fails() {
    for reset in [true, false] {
        let leaks = LeakCheck::start().await;
        let peer = RawPeer::tcp();
        let (channel, mut conn) = connect(&peer).await;
        let answer = send(&channel, Body::empty());
        let stream = conn.next_request().await;
        conn.send(&response::headers(stream)).await;
        conn.send_data(stream, "half", false).await;
        if reset {
            conn.send(&Frame::rst(stream, code::INTERNAL_ERROR)).await;
        } else {
            conn.finish_sending().await;
        }
        let mut body = Box::pin(answered(answer).await.into_body());
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(data, "half");
        let frame = within(LIMIT, "the error", body.frame()).await;
        let error = frame.unwrap().unwrap_err();
        // Once.
        assert!(body.is_end_stream() && body.frame().await.is_none());
        assert_eq!(error.delivery(), Delivery::MaybeProcessed, "{error:?}");
        assert_eq!(error.stage(), Some(Stage::Body));
        assert_eq!(
            (error.is_protocol(), error.is_disconnected()),
            (reset, !reset)
        );
        let stats = channel.stats();
        assert_eq!((stats.failed, stats.retries, stats.resends), (1, 0, 0));
        assert_eq!(in_flight(&channel), 0);
        drop((channel, conn, peer));
        leaks.finish().await;
    }
}
