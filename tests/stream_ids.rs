//! A connection has 2^30 stream ids. What happens when they are used up.

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

use std::time::Duration;

use support::burst::{all_ok, burst};
use support::frames::{Frame, code, setting};
use support::leak::LeakCheck;
use support::raw_peer::RawPeer;
use support::reaction::Reaction;
use support::response;
use support::scratch::Scratch;
use support::wait::wait_equal;
use tokio::time::Instant;
use trunkline::{Backoff, Connector, PoolOptions, Retry, State};
use trunkline_proto::echo_client::EchoClient;

const LIMIT: Duration = Duration::from_secs(5);

/// The peer says nothing when the last id is taken, so only the calls themselves show it.
#[tokio::test]
async fn a_connection_without_ids_is_replaced_and_finishes_its_calls() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let connecting = Connector::target(peer.uri())
        .pool(PoolOptions::new().max_connections(1))
        .retry(Retry::none())
        .connect();
    let (channel, mut old) = peer.meet(&[], connecting).await;
    let channel = channel.unwrap();
    let client = EchoClient::new(channel.clone());
    // Only a connection that served is replaced without backoff.
    let first = burst(&client, [0]);
    old.echo_next().await;
    all_ok(first).await;
    old.send(&Frame::skip_to(Frame::LAST_STREAM - 4)).await;
    let reset = old.next_rst(Frame::LAST_STREAM - 4).await;
    assert_eq!(reset, code::PROTOCOL_ERROR);

    let last = burst(&client, 1..=2);
    let mut open = [old.next_echo_request().await, old.next_echo_request().await];
    open.sort();
    assert_eq!(
        open.map(|it| it.0),
        [Frame::LAST_STREAM - 2, Frame::LAST_STREAM]
    );
    let more = burst(&client, 3..=20);
    let mut new = peer.accept().await;
    new.handshake(&[]).await;
    for _ in 3..=20 {
        new.echo_next().await;
    }
    all_ok(more).await;
    // Nothing went wrong, and nobody ran in circles until it was noticed.
    let stats = channel.stats();
    assert_eq!((stats.failed, stats.retries), (0, 0));
    assert!(stats.resends <= 3 * 18, "{} resends", stats.resends);
    let endpoint = channel.status().endpoints.remove(0);
    assert_eq!((endpoint.state, endpoint.failed_dials), (State::Ready, 0));
    assert_eq!(
        (endpoint.connections, endpoint.draining_connections),
        (1, 1)
    );
    assert_eq!(endpoint.last_error, None);

    for (stream, id) in open {
        old.answer_echo(stream, id).await;
    }
    all_ok(last).await;
    old.closed().await;
    wait_equal(LIMIT, 0, || {
        channel.status().endpoints[0].draining_connections
    })
    .await;
    drop((client, channel));
    new.closed().await;
    assert_eq!(peer.seen().requests(), 21);
    drop(peer);
    leaks.finish().await;
}

/// A peer can use them up by itself, before there was a call. The clock is paused.
#[tokio::test(start_paused = true)]
async fn a_peer_that_leaves_no_ids_is_dialled_with_backoff() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let peer = RawPeer::unix(scratch.path("peer.sock"));
    let channel = Connector::target(peer.uri()).connect_lazy().unwrap();
    let start = Instant::now();
    for _ in 0..6 {
        let mut conn = peer.accept().await;
        conn.handshake(&[]).await;
        conn.settings_acked().await;
        conn.send(&Frame::skip_to(Frame::LAST_STREAM)).await;
        conn.closed().await;
    }
    // Five delays, each at its shortest: 80 ms, and 1.6 times as long each time.
    let delays = start.elapsed();
    assert!(delays >= Duration::from_millis(1258), "{delays:?}");
    drop((channel, peer));
    leaks.finish().await;
}

/// Calls that race for the last ids: those that lose go elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_that_find_no_id_left_are_sent_elsewhere() {
    const LEFT: u32 = 8;
    const CALLS: u64 = 1000;
    const ROUNDS: u64 = 5;
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp().serve(&[(setting::MAX_CONCURRENT_STREAMS, 32)], |request| {
        let Reaction::Answer(reply) = Reaction::echo(request, "raw") else {
            unreachable!("an echo is an answer");
        };
        let mut frames = response::ok(request.stream, &reply);
        if request.nth_on_connection == 0 {
            frames.insert(0, Frame::skip_to(Frame::LAST_STREAM - 2 * LEFT));
        }
        Reaction::Frames(frames)
    });
    // Some are used up before a call on them was seen to be answered, and redialled with backoff.
    let backoff = Backoff::dialling()
        .initial(Duration::from_millis(1))
        .max(Duration::from_millis(5));
    let channel = Connector::target(peer.uri())
        .retry(Retry::none())
        .pool(PoolOptions::new().dial_backoff(backoff))
        .wait_for_ready(true)
        .connect()
        .await
        .unwrap();
    let client = EchoClient::new(channel.clone());
    for round in 0..ROUNDS {
        all_ok(burst(&client, (0..CALLS).map(|id| id + round * CALLS))).await;
    }
    let seen = peer.seen();
    assert_eq!(seen.requests(), ROUNDS * CALLS);
    let connections = seen.connections();
    assert!(connections >= 10 * ROUNDS, "{connections} connections");
    let stats = channel.stats();
    assert_eq!((stats.failed, stats.retries), (0, 0));
    drop(client);
    drop((channel, peer));
    leaks.finish().await;
}
