//! Connections that serve calls and break soon.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use support::burst::{all_ok, burst};
use support::frames::Frame;
use support::leak::LeakCheck;
use support::raw_peer::RawPeer;
use support::response;
use support::scratch::Scratch;
use support::wait::wait_until;
use tokio::time::Instant;
use trunkline::{Connector, State};
use trunkline_proto::echo_client::EchoClient;
use trunkline_proto::{EchoReply, Message};

const LIMIT: Duration = Duration::from_secs(5);
/// The default initial delay of `dial_backoff`.
const INITIAL: Duration = Duration::from_millis(100);

/// A network that resets connections says nothing about the endpoint: it is dialled again soon, each time, and calls
/// wait for that instead of failing. The clock is paused.
#[tokio::test(start_paused = true)]
async fn a_connection_that_served_a_call_is_replaced_soon_however_short_its_life() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let peer = RawPeer::unix(scratch.path("peer.sock"));
    let channel = Connector::target(peer.uri()).connect_lazy().unwrap();
    let client = EchoClient::new(channel.clone());
    let state = || channel.status().endpoints[0].state;
    let mut conn = peer.accept().await;
    for id in 1..=20 {
        conn.handshake(&[]).await;
        wait_until(LIMIT, || state() == State::Ready).await;
        let call = burst(&client, [id]);
        assert_eq!(conn.echo_next().await, id);
        all_ok(call).await;
        let broken = Instant::now();
        conn.abort();
        wait_until(LIMIT, || state() != State::Ready).await;
        // Under a state of failure they would not wait.
        let waiting = burst(&client, [0]);
        conn = peer.accept().await;
        let absent = broken.elapsed();
        assert!(absent <= INITIAL * 11 / 10, "{absent:?} after {id} times");
        conn.handshake(&[]).await;
        assert_eq!(conn.echo_next().await, 0);
        all_ok(waiting).await;
        conn.abort();
        conn = peer.accept().await;
    }
    assert_eq!(channel.status().endpoints[0].failed_dials, 0);
    drop((client, channel));
    conn.closed().await;
    drop(peer);
    leaks.finish().await;
}

/// Envoy and nginx can be told to end a connection with its first answer: the GOAWAY comes with it, perhaps in the same
/// packet. That is no failure, and the next connection is made at once, each time.
#[tokio::test(start_paused = true)]
async fn a_goaway_with_the_first_answer_is_no_failure() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let peer = RawPeer::unix(scratch.path("peer.sock"));
    let channel = Connector::target(peer.uri()).connect_lazy().unwrap();
    let client = EchoClient::new(channel.clone());
    let start = Instant::now();
    for id in 1..=20 {
        let mut conn = peer.accept().await;
        conn.handshake(&[]).await;
        let call = burst(&client, [id]);
        let (stream, _) = conn.next_echo_request().await;
        let reply = EchoReply {
            id,
            ..EchoReply::default()
        };
        let mut frames = response::ok(stream, &reply.encode_to_vec());
        frames.push(Frame::goaway(stream, 0, ""));
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        conn.send_raw(&bytes).await;
        all_ok(call).await;
        conn.closed().await;
    }
    assert!(start.elapsed() < INITIAL, "{:?}", start.elapsed());
    assert_eq!(channel.status().endpoints[0].failed_dials, 0);
    drop((client, channel, peer));
    leaks.finish().await;
}

/// Header blocks that can't be read are no answers: whoever sends nothing else is not dialled in a tight loop.
#[tokio::test(start_paused = true)]
async fn answers_that_break_the_protocol_are_failures() {
    /// An index that no table has (RFC 7541, section 2.3.3).
    const UNREADABLE: &[u8] = b"\xff\x7f";
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let peer = RawPeer::unix(scratch.path("peer.sock"));
    let channel = Connector::target(peer.uri()).connect_lazy().unwrap();
    let client = EchoClient::new(channel.clone());
    for nth in 1..=3 {
        let mut conn = peer.accept().await;
        conn.handshake(&[]).await;
        let status = || channel.status().endpoints.remove(0);
        wait_until(LIMIT, || status().state == State::Ready).await;
        let call = burst(&client, [nth]);
        let (stream, _) = conn.next_echo_request().await;
        let frame = Frame::headers(stream, UNREADABLE, false);
        conn.send_raw(&frame.encode()).await;
        conn.closed().await;
        wait_until(LIMIT, || status().state == State::TransientFailure).await;
        assert_eq!(u64::from(status().failed_dials), nth);
        let error = status().last_error.unwrap();
        assert!(
            error.contains("protocol error on the connection"),
            "{error}"
        );
        drop(call);
    }
    drop((client, channel, peer));
    leaks.finish().await;
}
