//! What the peer's SETTINGS do: an endpoint is ready only after them, and their stream limit is kept.

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
use support::frames::setting::MAX_CONCURRENT_STREAMS;
use support::leak::LeakCheck;
use support::raw_conn::RawConn;
use support::raw_peer::RawPeer;
use support::reaction::Reaction;
use support::wait::{wait_equal, within};
use trunkline::{Channel, Connector, EndpointStatus, Http2Options, PoolOptions, Stage, State};
use trunkline_proto::echo_client::EchoClient;

const LIMIT: Duration = Duration::from_secs(5);

/// One connection at most, so that its limit can't be dodged by dialling another.
fn one_connection(uri: String) -> Connector {
    Connector::target(uri).pool(PoolOptions::new().max_connections(1))
}

async fn connect_one(peer: &RawPeer, settings: &[(u16, u32)]) -> (Channel, RawConn) {
    let connecting = one_connection(peer.uri()).connect();
    let (channel, conn) = peer.meet(settings, connecting).await;
    (channel.unwrap(), conn)
}

fn endpoint(channel: &Channel) -> EndpointStatus {
    channel.status().endpoints.remove(0)
}

/// Waits until so many calls have a stream and so many wait for one.
async fn wait_for_calls(channel: &Channel, in_flight: usize, waiting: usize) {
    wait_equal(LIMIT, (in_flight, waiting), || {
        let endpoint = endpoint(channel);
        (endpoint.in_flight, endpoint.waiting)
    })
    .await;
}

/// Everything that the client sent before now has been received when this returns.
async fn sync(conn: &mut RawConn) {
    conn.ping(*b"in order").await;
    conn.next_frame(support::frames::kind::PING, 0).await;
}

#[tokio::test]
async fn connect_fails_at_its_limit_when_no_settings_come() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let connecting = tokio::spawn(
        Connector::target(peer.uri())
            .pool(PoolOptions::new().connect_timeout(Duration::from_millis(100)))
            .ready_timeout(Duration::from_millis(500))
            .connect(),
    );
    let mut conn = peer.accept().await;
    conn.read_preface().await;
    let connected = within(LIMIT, "connect()", connecting).await.unwrap();
    let error = connected.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(error.stage(), Some(Stage::Handshake), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("no HTTP/2 SETTINGS came"), "{text}");
    conn.closed().await;
    drop(peer);
    leaks.finish().await;
}

#[tokio::test]
async fn an_endpoint_is_ready_once_settings_came_and_not_before() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let pool = PoolOptions::new().connect_timeout(Duration::from_millis(300));
    let channel = Connector::target(peer.uri()).pool(pool).connect_lazy();
    let channel = channel.unwrap();
    let mut state = channel.watch_state();

    // The first connection stays silent: TCP and the client's half of the handshake are not enough.
    let mut silent = peer.accept().await;
    silent.read_preface().await;
    let left = state.wait_for(|state| *state != State::Connecting);
    let left = *within(LIMIT, "the end of the first try", left)
        .await
        .unwrap();
    assert_eq!(left, State::TransientFailure);
    let mut client = EchoClient::new(channel.clone());
    let status = client.unary(support::calls::request(1)).await.unwrap_err();
    assert!(
        status.message().contains("no HTTP/2 SETTINGS came"),
        "{status:?}"
    );
    silent.closed().await;

    let mut conn = peer.accept().await;
    conn.handshake(&[]).await;
    let ready = state.wait_for(|state| *state == State::Ready);
    within(LIMIT, "readiness", ready).await.unwrap();
    let call = burst(&client, [2]);
    assert_eq!(conn.echo_next().await, 2);
    all_ok(call).await;
    drop((client, channel, state));
    conn.closed().await;
    assert_eq!(peer.seen().requests(), 1);
    drop(peer);
    leaks.finish().await;
}

#[tokio::test]
async fn without_a_limit_of_the_peer_ours_holds() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let connecting = one_connection(peer.uri())
        .http2(Http2Options::new().max_streams(150))
        .connect();
    let (channel, mut conn) = peer.meet(&[], connecting).await;
    let channel = channel.unwrap();
    let calls = burst(&EchoClient::new(channel.clone()), 0..200);
    wait_for_calls(&channel, 150, 50).await;
    let mut requests = Vec::new();
    for _ in 0..150 {
        requests.push(conn.next_echo_request().await);
    }
    sync(&mut conn).await;
    assert_eq!(peer.seen().requests(), 150);
    for (stream, id) in requests {
        conn.answer_echo(stream, id).await;
    }
    for _ in 150..200 {
        conn.echo_next().await;
    }
    all_ok(calls).await;
    drop(channel);
    conn.closed().await;
    drop(peer);
    leaks.finish().await;
}

#[tokio::test]
async fn our_own_limit_holds_below_the_peers() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp().serve(&[(MAX_CONCURRENT_STREAMS, 100)], |request| {
        Reaction::echo(request, "raw").after(Duration::from_millis(2))
    });
    let channel = one_connection(peer.uri())
        .http2(Http2Options::new().max_streams(5))
        .connect()
        .await
        .unwrap();
    all_ok(burst(&EchoClient::new(channel.clone()), 0..50)).await;
    assert_eq!(peer.seen().peak_streams(), 5);
    drop((channel, peer));
    leaks.finish().await;
}

#[tokio::test]
async fn a_limit_of_0_holds_calls_back_until_it_is_raised() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, mut conn) = connect_one(&peer, &[(MAX_CONCURRENT_STREAMS, 0)]).await;
    assert_eq!(endpoint(&channel).state, State::Ready);
    let calls = burst(&EchoClient::new(channel.clone()), 0..5);
    wait_for_calls(&channel, 0, 5).await;
    sync(&mut conn).await;
    assert_eq!(peer.seen().requests(), 0);

    conn.send_settings(&[(MAX_CONCURRENT_STREAMS, 2)]).await;
    wait_for_calls(&channel, 2, 3).await;
    for _ in 0..5 {
        conn.echo_next().await;
    }
    all_ok(calls).await;
    assert_eq!(channel.stats().resends, 0);
    drop(channel);
    conn.closed().await;
    drop(peer);
    leaks.finish().await;
}

/// Calls that come before SETTINGS do, and more than fit: none may be refused, none may exceed the limit.
#[tokio::test]
async fn a_burst_never_exceeds_a_small_limit() {
    for limit in 1..=4 {
        let leaks = LeakCheck::start().await;
        let settings = [(MAX_CONCURRENT_STREAMS, limit)];
        let peer = RawPeer::tcp().serve(&settings, |request| {
            Reaction::echo(request, "raw").after(Duration::from_millis(1))
        });
        let channel = one_connection(peer.uri()).connect_lazy().unwrap();
        all_ok(burst(&EchoClient::new(channel.clone()), 0..300)).await;
        let seen = peer.seen();
        assert_eq!(seen.peak_streams(), u64::from(limit));
        assert_eq!((seen.requests(), seen.connections()), (300, 1));
        assert_eq!(channel.stats().resends, 0);
        assert_eq!(endpoint(&channel).in_flight, 0);
        drop((channel, peer));
        leaks.finish().await;
    }
}

/// What does not fit waits in the pool's queue, where its limits hold, and not inside h2.
#[tokio::test]
async fn calls_above_the_limit_wait_in_the_pool() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, mut conn) = connect_one(&peer, &[(MAX_CONCURRENT_STREAMS, 4)]).await;
    let calls = burst(&EchoClient::new(channel.clone()), 0..300);
    wait_for_calls(&channel, 4, 296).await;
    for _ in 0..300 {
        conn.echo_next().await;
    }
    all_ok(calls).await;
    wait_for_calls(&channel, 0, 0).await;
    assert_eq!(endpoint(&channel).free_streams, 4);
    drop(channel);
    conn.closed().await;
    drop(peer);
    leaks.finish().await;
}

#[tokio::test]
async fn a_limit_may_fall_and_rise_under_open_calls() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, mut conn) = connect_one(&peer, &[(MAX_CONCURRENT_STREAMS, 10)]).await;
    let calls = burst(&EchoClient::new(channel.clone()), 0..20);
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(conn.next_echo_request().await);
    }
    conn.send_settings(&[(MAX_CONCURRENT_STREAMS, 3)]).await;
    conn.settings_acked().await;

    // The open ones finish, and down to the new limit nothing takes their place.
    for (stream, id) in open.split_off(3) {
        conn.answer_echo(stream, id).await;
    }
    wait_for_calls(&channel, 3, 10).await;
    sync(&mut conn).await;
    assert_eq!(peer.seen().requests(), 10);

    // Below it, one comes for each that ends.
    let (stream, id) = open.remove(0);
    conn.answer_echo(stream, id).await;
    open.push(conn.next_echo_request().await);
    wait_for_calls(&channel, 3, 9).await;
    sync(&mut conn).await;
    assert_eq!(peer.seen().requests(), 11);

    // Raised, it lets all others go at once.
    conn.send_settings(&[(MAX_CONCURRENT_STREAMS, 100)]).await;
    for _ in 0..9 {
        open.push(conn.next_echo_request().await);
    }
    wait_for_calls(&channel, 12, 0).await;
    for (stream, id) in open {
        conn.answer_echo(stream, id).await;
    }
    all_ok(calls).await;
    wait_for_calls(&channel, 0, 0).await;
    assert_eq!(endpoint(&channel).free_streams, 100);
    assert_eq!(channel.stats().resends, 0);
    drop(channel);
    conn.closed().await;
    drop(peer);
    leaks.finish().await;
}
