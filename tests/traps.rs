//! The traps of the `h2` crate, each with the mend that the connection layer has for it: where they are not set right,
//! one stream's trouble ends the connection under all the others.
//!
//! Two more are elsewhere: that calls above the stream limit wait in the pool and not inside h2 is in `settings.rs`, and
//! what a local reset, GOAWAY or lost connection says of a call is in `goaway.rs`.
//!
//! One can't be run: stream ids are used up after 2^30 calls on one connection, and only h2's unstable features let a
//! client begin elsewhere than at 1. h2 then answers the driver's `poll_ready` with an error, which is the path of
//! GOAWAY: the connection drains and is replaced.

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

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Frame as BodyFrame;
use http_body_util::StreamBody;
use support::body::post;
use support::burst::{all_ok, burst, ended};
use support::calls::request;
use support::frames::{Frame, code, setting};
use support::leak::LeakCheck;
use support::raw_conn::RawConn;
use support::raw_peer::RawPeer;
use support::reaction::Reaction;
use support::response;
use support::wait::{wait_equal, within};
use tonic::body::Body;
use tonic::{Code, Status};
use trunkline::{Backoff, Channel, Connector, Http2Options, Keepalive, PoolOptions, Retry};
use trunkline_proto::echo_client::EchoClient;

const LIMIT: Duration = Duration::from_secs(10);

/// One connection at a time; calls wait while it is replaced, which is soon.
fn connector(uri: String) -> Connector {
    let backoff = Backoff::dialling()
        .initial(Duration::from_millis(1))
        .max(Duration::from_millis(5));
    Connector::target(uri)
        .retry(Retry::exponential().idempotent(true))
        .pool(PoolOptions::new().max_connections(1).dial_backoff(backoff))
        .wait_for_ready(true)
}

async fn connect(peer: &RawPeer) -> (Channel, EchoClient<Channel>, RawConn) {
    let connecting = connector(peer.uri()).connect();
    let (channel, conn) = peer.meet(&[], connecting).await;
    let channel = channel.unwrap();
    (channel.clone(), EchoClient::new(channel), conn)
}

/// A call comes through on this connection.
async fn serves(client: &EchoClient<Channel>, conn: &mut RawConn, id: u64) {
    let call = burst(client, [id]);
    assert_eq!(conn.echo_next().await, id);
    all_ok(call).await;
}

/// Sends many frames in few writes.
async fn send_all(conn: &mut RawConn, frames: impl IntoIterator<Item = Frame>) {
    let mut bytes = BytesMut::new();
    for frame in frames {
        bytes.extend_from_slice(&frame.encode());
    }
    conn.send_raw(&bytes).await;
}

/// h2 takes a peer for an attacker that sends many small DATA frames which nobody reads.
#[tokio::test]
async fn a_slow_reader_of_small_messages_harms_no_other_call() {
    const MESSAGES: usize = 30_000;
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, client, mut conn) = connect(&peer).await;
    let mut slow = client.clone();
    let (replies, stream) = tokio::join!(slow.server_stream(request(1)), async {
        let (stream, _) = conn.next_echo_request().await;
        conn.send(&response::headers(stream)).await;
        stream
    });
    // Ten bytes each: the id's field, and a payload of six.
    let message = response::data(stream, b"\x08\x01\x12\x06unread");
    send_all(&mut conn, std::iter::repeat_n(message, MESSAGES)).await;
    conn.send_trailers(stream, 0, "").await;
    serves(&client, &mut conn, 2).await;

    let mut replies = replies.unwrap().into_inner();
    for nth in 0..MESSAGES {
        let reply = replies.message().await.unwrap();
        assert_eq!(reply.expect("all are there").payload, b"unread", "{nth}");
    }
    assert!(replies.message().await.unwrap().is_none());
    serves(&client, &mut conn, 3).await;
    drop((replies, slow, client, channel));
    conn.closed().await;
    assert_eq!((peer.seen().connections(), peer.seen().goaways()), (1, 0));
    drop(peer);
    leaks.finish().await;
}

/// h2 closes a connection on which more than 100 empty DATA frames came, and no setting changes that. So it is
/// replaced, and the policy repeats what it may.
#[tokio::test]
async fn a_connection_that_empty_frames_ended_is_replaced() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, client, mut old) = connect(&peer).await;
    let calls = burst(&client, 1..=3);
    let (stream, broken) = old.next_echo_request().await;
    let (_, second) = old.next_echo_request().await;
    let (_, third) = old.next_echo_request().await;
    old.send(&response::headers(stream)).await;
    let empty = Frame::data(stream, Bytes::new(), false);
    send_all(&mut old, std::iter::repeat_n(empty, 150)).await;

    let mut new = peer.accept().await;
    new.handshake(&[]).await;
    let retried = BTreeSet::from([new.echo_next().await, new.echo_next().await]);
    assert_eq!(retried, BTreeSet::from([second, third]));
    for (id, result) in ended(calls).await {
        if id == broken {
            // Its response had begun.
            assert_eq!(result.unwrap_err().code(), Code::Unavailable);
        } else {
            assert_eq!(result.unwrap().id, id);
        }
    }
    let stats = channel.stats();
    assert_eq!((stats.retries, stats.resends), (2, 0));
    old.closed().await;
    drop((client, channel));
    new.closed().await;
    drop(peer);
    leaks.finish().await;
}

/// h2 remembers few streams that it reset, and takes answers to others for the peer's errors.
#[tokio::test]
async fn late_answers_to_cancelled_calls_harm_no_other_call() {
    const BATCHES: u64 = 6;
    const BATCH: u64 = 500;
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, client, mut conn) = connect(&peer).await;
    conn.auto.window = true;
    let mut cancelled = Vec::new();
    for batch in 0..BATCHES {
        let first = batch * BATCH;
        let calls = burst(&client, first..first + BATCH);
        let mut open = Vec::new();
        for _ in 0..BATCH {
            open.push(conn.next_echo_request().await.0);
        }
        drop(calls);
        for &stream in &open {
            assert_eq!(conn.next_rst(stream).await, code::CANCEL);
        }
        cancelled.extend(open);
    }
    for streams in cancelled.chunks(100) {
        let answers = streams.iter().flat_map(|&it| response::ok(it, b"\x08\x01"));
        send_all(&mut conn, answers).await;
    }
    serves(&client, &mut conn, 9_999).await;
    assert_eq!(channel.status().endpoints[0].in_flight, 0);
    drop((client, channel));
    conn.closed().await;
    assert_eq!((peer.seen().connections(), peer.seen().goaways()), (1, 0));
    assert_eq!(peer.seen().requests(), BATCHES * BATCH + 1);
    drop(peer);
    leaks.finish().await;
}

/// When a call is cancelled its slot is free at once, and h2 counts its stream until the reset is written.
#[tokio::test]
async fn the_slot_of_a_cancelled_call_is_good_at_once() {
    let leaks = LeakCheck::start().await;
    let settings = [(setting::MAX_CONCURRENT_STREAMS, 1)];
    let peer = RawPeer::tcp().serve(&settings, |request| match request.echo().unwrap().id % 3 {
        0 => Reaction::Silence,
        _ => Reaction::echo(request, "raw"),
    });
    let channel = connector(peer.uri()).connect().await.unwrap();
    let client = EchoClient::new(channel.clone());
    for first in (0..150).step_by(3) {
        let cancelled = burst(&client, [first]);
        wait_equal(LIMIT, 1, || peer.seen().streams()).await;
        let waiting = burst(&client, [first + 1]);
        drop(cancelled);
        let next = burst(&client, [first + 2]);
        all_ok(waiting).await;
        all_ok(next).await;
    }
    assert_eq!(peer.seen().peak_streams(), 1);
    assert_eq!(peer.seen().connections(), 1);
    assert_eq!(channel.stats().resends, 0);
    drop((client, channel, peer));
    leaks.finish().await;
}

/// Headers above the limit, and trailers: the call fails, and the connection goes on. Of trailers h2 keeps the fields
/// that come before the limit is reached; here the status isn't among them.
#[tokio::test]
async fn too_large_headers_fail_their_call_only() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, client, mut conn) = connect(&peer).await;
    let large = "x".repeat(20 << 10);
    for (in_trailers, expected) in [(false, Code::Internal), (true, Code::Unknown)] {
        let calls = burst(&client, 1..=2);
        let (stream, failing) = conn.next_echo_request().await;
        let (other, fine) = conn.next_echo_request().await;
        let mut fields = vec![("large", large.as_str()), ("grpc-status", "0")];
        if in_trailers {
            conn.send(&response::headers(stream)).await;
        } else {
            fields.splice(..0, response::OK_HEADERS.iter().copied());
        }
        conn.send_headers(stream, &fields, true).await;
        conn.answer_echo(other, fine).await;
        for (id, result) in ended(calls).await {
            if id == failing {
                assert_eq!(result.unwrap_err().code(), expected);
            } else {
                result.unwrap();
            }
        }
        serves(&client, &mut conn, 3).await;
    }
    drop((client, channel));
    conn.closed().await;
    assert_eq!((peer.seen().connections(), peer.seen().goaways()), (1, 0));
    drop(peer);
    leaks.finish().await;
}

#[tokio::test]
async fn the_limit_on_headers_can_be_raised() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let connecting = connector(peer.uri())
        .http2(Http2Options::new().max_header_list_size(64 << 10))
        .connect();
    let (channel, mut conn) = peer.meet(&[], connecting).await;
    let mut client = EchoClient::new(channel.unwrap());
    let large = "x".repeat(20 << 10);
    let (reply, ()) = tokio::join!(client.unary(request(1)), async {
        let (stream, _) = conn.next_echo_request().await;
        let fields = [response::OK_HEADERS, &[("large", large.as_str())]].concat();
        conn.send_headers(stream, &fields, false).await;
        conn.send_message(stream, b"\x08\x01").await;
        conn.send_trailers(stream, 0, "").await;
    });
    assert_eq!(reply.unwrap().metadata().get("large").unwrap(), &large);
    drop(client);
    conn.closed().await;
    drop(peer);
    leaks.finish().await;
}

#[tokio::test]
async fn the_client_announces_what_it_takes() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, (conn, settings)) = tokio::join!(connector(peer.uri()).connect(), async {
        let mut conn = peer.accept().await;
        let settings = conn.handshake(&[]).await;
        (conn, settings)
    });
    for expected in [
        (setting::ENABLE_PUSH, 0),
        (setting::INITIAL_WINDOW_SIZE, 2 << 20),
        (setting::MAX_FRAME_SIZE, 64 << 10),
        (setting::MAX_HEADER_LIST_SIZE, 16 << 10),
    ] {
        assert!(settings.contains(&expected), "{expected:?} in {settings:?}");
    }
    drop(channel);
    conn.closed().await;
    drop(peer);
    leaks.finish().await;
}

/// A peer that does not read blocks our writes, PINGs included; the time limit of the PING counts all the same.
#[tokio::test]
async fn a_peer_that_does_not_read_is_found_by_keepalive() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let keepalive = Keepalive::every(Duration::from_millis(100))
        .timeout(Duration::from_millis(200))
        .allow_frequent();
    let connecting = connector(peer.uri())
        .keepalive(keepalive)
        .retry(Retry::none())
        .connect();
    // Windows far larger than what the sockets hold.
    let window = 1 << 30;
    let settings = [(setting::INITIAL_WINDOW_SIZE, window)];
    let (channel, mut frozen) = peer.meet(&settings, connecting).await;
    let channel = channel.unwrap();
    frozen.window_update(0, window).await;
    frozen.settings_acked().await;

    let chunk = Bytes::from(vec![7; 64 << 10]);
    let endless = std::iter::repeat_with(move || Ok::<_, Status>(BodyFrame::data(chunk.clone())));
    let body = StreamBody::new(tokio_stream::iter(endless));
    let upload = channel.send(post(Body::new(body)));
    let error = within(LIMIT, "the keepalive", upload).await.unwrap_err();
    assert!(error.to_string().contains("keepalive"), "{error:?}");
    assert!(error.maybe_processed() && error.is_disconnected());

    let mut new = peer.accept().await;
    new.handshake(&[]).await;
    serves(&EchoClient::new(channel.clone()), &mut new, 1).await;
    drop((channel, frozen));
    new.closed().await;
    drop(peer);
    leaks.finish().await;
}
