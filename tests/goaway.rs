//! GOAWAY, refused streams and lost connections: what is in flight, what is resent, what is dialled.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use support::burst::{all_ok, burst, ended};
use support::calls::request;
use support::frames::code;
use support::leak::LeakCheck;
use support::raw_conn::RawConn;
use support::raw_peer::RawPeer;
use support::reaction::Reaction;
use support::scratch::Scratch;
use support::wait::wait_equal;
use tokio::time::Instant;
use tonic::{Code, Status};
use trunkline::{
    Backoff, Channel, Connector, Delivery, EndpointStatus, Error, PoolOptions, Retry, State,
};
use trunkline_proto::echo_client::EchoClient;

const LIMIT: Duration = Duration::from_secs(5);
/// A first GOAWAY's "everything so far, I will say later how much" (RFC 9113 section 6.8).
const ALL: u32 = (1 << 31) - 1;

/// Connections that end young are dialled again with backoff. Here it is short, and calls wait for it.
fn connector(uri: String) -> Connector {
    let backoff = Backoff::dialling()
        .initial(Duration::from_millis(1))
        .max(Duration::from_millis(5));
    Connector::target(uri)
        .pool(PoolOptions::new().max_connections(1).dial_backoff(backoff))
        .wait_for_ready(true)
}

async fn connect(peer: &RawPeer, retry: Retry) -> (Channel, EchoClient<Channel>, RawConn) {
    let connecting = connector(peer.uri()).retry(retry).connect();
    let (channel, conn) = peer.meet(&[], connecting).await;
    let channel = channel.unwrap();
    (channel.clone(), EchoClient::new(channel), conn)
}

async fn accept(peer: &RawPeer) -> RawConn {
    let mut conn = peer.accept().await;
    conn.handshake(&[]).await;
    conn
}

fn endpoint(channel: &Channel) -> EndpointStatus {
    channel.status().endpoints.remove(0)
}

/// Resends, and retries under the policy.
fn repeats(channel: &Channel) -> (u64, u64) {
    let stats = channel.stats();
    (stats.resends, stats.retries)
}

fn own(status: &Status) -> &Error {
    Error::from_status(status).expect("the channel's own error")
}

#[tokio::test]
async fn open_streams_finish_and_new_calls_go_to_a_new_connection() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, client, mut old) = connect(&peer, Retry::none()).await;
    let before = burst(&client, 1..=3);
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(old.next_echo_request().await);
    }
    old.goaway(5, code::NO_ERROR, "").await;
    // Dialled without waiting for a call.
    let mut new = accept(&peer).await;
    wait_equal(LIMIT, (State::Ready, 1, 1), || {
        let endpoint = endpoint(&channel);
        let draining = endpoint.draining_connections;
        (endpoint.state, endpoint.connections, draining)
    })
    .await;
    let after = burst(&client, 4..=5);
    let mut ids = [new.echo_next().await, new.echo_next().await];
    ids.sort();
    assert_eq!(ids, [4, 5]);
    all_ok(after).await;

    for (stream, id) in open {
        old.answer_echo(stream, id).await;
    }
    all_ok(before).await;
    // Its last stream has ended, so the client closes it.
    old.closed().await;
    wait_equal(LIMIT, 0, || endpoint(&channel).draining_connections).await;
    assert_eq!(repeats(&channel), (0, 0));
    drop((client, channel));
    new.closed().await;
    assert_eq!(peer.seen().requests(), 5);
    drop(peer);
    leaks.finish().await;
}

/// Whatever the code: what lies above the last stream was not processed.
#[tokio::test]
async fn streams_above_the_last_one_are_resent_once() {
    for code in [code::NO_ERROR, code::INTERNAL_ERROR] {
        let leaks = LeakCheck::start().await;
        let peer = RawPeer::tcp();
        let (channel, client, mut old) = connect(&peer, Retry::none()).await;
        let calls = burst(&client, 1..=3);
        let mut open = BTreeMap::new();
        for _ in 0..3 {
            let (stream, id) = old.next_echo_request().await;
            open.insert(stream, id);
        }
        old.goaway(1, code, "").await;
        let mut new = accept(&peer).await;
        let mut resent = [new.echo_next().await, new.echo_next().await];
        resent.sort();
        let mut above = [open[&3], open[&5]];
        above.sort();
        assert_eq!(resent, above);
        old.answer_echo(1, open[&1]).await;
        all_ok(calls).await;
        assert_eq!(repeats(&channel), (2, 0));
        old.closed().await;
        drop((client, channel));
        new.closed().await;
        assert_eq!(peer.seen().requests(), 5);
        drop(peer);
        leaks.finish().await;
    }
}

#[tokio::test]
async fn a_shutdown_in_two_steps_loses_nothing() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, client, mut old) = connect(&peer, Retry::none()).await;
    let calls = burst(&client, 1..=3);
    let mut open = BTreeMap::new();
    for _ in 0..3 {
        let (stream, id) = old.next_echo_request().await;
        open.insert(stream, id);
    }
    // The first step fails nothing, and already moves new calls away.
    old.goaway(ALL, code::NO_ERROR, "").await;
    let mut new = accept(&peer).await;
    let moved = burst(&client, [4]);
    assert_eq!(new.echo_next().await, 4);
    all_ok(moved).await;
    assert_eq!(endpoint(&channel).in_flight, 3);
    assert_eq!(repeats(&channel), (0, 0));

    old.goaway(3, code::NO_ERROR, "").await;
    assert_eq!(new.echo_next().await, open[&5]);
    old.answer_echo(1, open[&1]).await;
    old.answer_echo(3, open[&3]).await;
    all_ok(calls).await;
    assert_eq!(repeats(&channel), (1, 0));
    old.closed().await;
    drop((client, channel));
    new.closed().await;
    assert_eq!(peer.seen().requests(), 5);
    drop(peer);
    leaks.finish().await;
}

/// Makes one call, whose connection closes under it, after a GOAWAY that covers it or without a word. Gives the result,
/// the repeats, and how often the peer got the call; it would answer the second time.
async fn lose_in_flight(retry: Retry, goaway: bool) -> (Result<(), Status>, (u64, u64), u64) {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp().serve(&[], move |request| match request.nth {
        0 if goaway => Reaction::Close.after_goaway(request.stream, code::INTERNAL_ERROR, ""),
        0 => Reaction::Close,
        _ => Reaction::echo(request, "raw"),
    });
    let connecting = connector(peer.uri()).retry(retry);
    let channel = connecting.connect().await.unwrap();
    let mut client = EchoClient::new(channel.clone());
    let result = client.unary(request(1)).await.map(drop);
    let ended = (result, repeats(&channel), peer.seen().handled()[&1]);
    drop((client, channel, peer));
    leaks.finish().await;
    ended
}

#[tokio::test]
async fn a_call_lost_in_flight_may_have_been_processed() {
    for goaway in [true, false] {
        let (result, repeats, requests) = lose_in_flight(Retry::none(), goaway).await;
        let status = result.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        let error = own(&status);
        assert_eq!(error.delivery(), Delivery::MaybeProcessed);
        assert!(error.maybe_processed() && error.is_disconnected());
        assert_eq!(error.attempts(), 1);
        assert_eq!(error.to_string().contains("INTERNAL_ERROR"), goaway);
        assert_eq!((repeats, requests), ((0, 0), 1));
    }
}

#[tokio::test]
async fn a_call_lost_in_flight_is_retried_if_idempotent_or_configured() {
    let configured = Retry::exponential().codes([Code::Unavailable]);
    let idempotent = Retry::exponential().idempotent(true);
    let neither = Retry::exponential().codes([Code::Aborted]);
    for goaway in [true, false] {
        for retry in [&configured, &idempotent] {
            let (result, repeats, requests) = lose_in_flight(retry.clone(), goaway).await;
            result.unwrap();
            assert_eq!((repeats, requests), ((0, 1), 2));
        }
        for retry in [&neither, &Retry::default()] {
            let (result, repeats, requests) = lose_in_flight(retry.clone(), goaway).await;
            assert_eq!(result.unwrap_err().code(), Code::Unavailable);
            assert_eq!((repeats, requests), ((0, 0), 1));
        }
    }
}

#[tokio::test]
async fn a_refused_stream_is_resent_once_without_counting() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, client, mut conn) = connect(&peer, Retry::none()).await;
    let call = burst(&client, [1]);
    let (stream, _) = conn.next_echo_request().await;
    conn.rst(stream, code::REFUSED_STREAM).await;
    assert_eq!(conn.echo_next().await, 1);
    all_ok(call).await;
    assert_eq!(repeats(&channel), (1, 0));

    // The second refusal of a call is the policy's business, and here there is none.
    let call = burst(&client, [2]);
    for _ in 0..2 {
        let (stream, _) = conn.next_echo_request().await;
        conn.rst(stream, code::REFUSED_STREAM).await;
    }
    let (_, result) = ended(call).await.remove(0);
    let status = result.unwrap_err();
    let error = own(&status);
    assert!(error.is_refused() && !error.maybe_processed(), "{error:?}");
    assert_eq!(error.delivery(), Delivery::Refused);
    assert_eq!(error.attempts(), 1);
    assert_eq!(repeats(&channel), (2, 0));
    assert_eq!(endpoint(&channel).connections, 1);
    drop((client, channel));
    conn.closed().await;
    assert_eq!(peer.seen().requests(), 4);
    drop(peer);
    leaks.finish().await;
}

#[tokio::test]
async fn refusals_end_with_the_attempts_of_the_policy() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp().serve(&[], |_| Reaction::refuse());
    let connecting = connector(peer.uri()).retry(Retry::exponential().attempts(3));
    let channel = connecting.connect().await.unwrap();
    let mut client = EchoClient::new(channel.clone());
    let status = client.unary(request(1)).await.unwrap_err();
    assert_eq!(own(&status).attempts(), 3);
    assert_eq!(repeats(&channel), (1, 2));
    assert_eq!(peer.seen().requests(), 4);
    assert_eq!(peer.seen().connections(), 1);
    drop((client, channel, peer));
    leaks.finish().await;
}

/// After response headers a refusal contradicts itself, and the call may have been processed.
#[tokio::test]
async fn a_refusal_after_headers_is_not_believed() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, client, mut conn) = connect(&peer, Retry::default()).await;
    let call = burst(&client, [1]);
    let (stream, _) = conn.next_echo_request().await;
    conn.send(&support::response::headers(stream)).await;
    conn.rst(stream, code::REFUSED_STREAM).await;
    let (_, result) = ended(call).await.remove(0);
    let status = result.unwrap_err();
    assert_eq!(own(&status).delivery(), Delivery::MaybeProcessed);
    assert_eq!(repeats(&channel), (0, 0));
    drop((client, channel));
    conn.closed().await;
    assert_eq!(peer.seen().requests(), 1);
    drop(peer);
    leaks.finish().await;
}

#[tokio::test]
async fn an_idle_connection_that_retires_is_replaced_by_one() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let (channel, client, mut conn) = connect(&peer, Retry::none()).await;
    for round in 1..=5 {
        conn.goaway(ALL, code::NO_ERROR, "").await;
        conn.closed().await;
        conn = accept(&peer).await;
        let ready = (State::Ready, 1, 0);
        wait_equal(LIMIT, ready, || {
            let endpoint = endpoint(&channel);
            let draining = endpoint.draining_connections;
            (endpoint.state, endpoint.connections, draining)
        })
        .await;
        let call = burst(&client, [round]);
        assert_eq!(conn.echo_next().await, round);
        all_ok(call).await;
    }
    assert_eq!(repeats(&channel), (0, 0));
    drop((client, channel));
    conn.closed().await;
    assert_eq!(peer.seen().connections(), 6);
    drop(peer);
    leaks.finish().await;
}

/// A peer that retires its connection with every answer: each call is answered, each connection replaced by one.
#[tokio::test]
async fn each_retirement_costs_one_dial() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp().serve(&[], |request| {
        Reaction::echo(request, "raw").after_goaway(request.stream, code::NO_ERROR, "")
    });
    let connecting = connector(peer.uri()).retry(Retry::none());
    let channel = connecting.connect().await.unwrap();
    let client = EchoClient::new(channel.clone());
    for id in 1..=20 {
        all_ok(burst(&client, [id])).await;
    }
    wait_equal(LIMIT, (State::Ready, 1), || {
        let endpoint = endpoint(&channel);
        (endpoint.state, endpoint.connections)
    })
    .await;
    let handled = peer.seen().handled();
    assert!(handled.values().eq([&1; 20]), "{handled:?}");
    drop((client, channel));
    wait_equal(LIMIT, 0, || peer.seen().open()).await;
    assert_eq!(peer.seen().connections(), 21);
    drop(peer);
    leaks.finish().await;
}

/// A draining proxy still accepts, and retires each connection before it served a call. The clock is paused.
#[tokio::test(start_paused = true)]
async fn a_peer_that_retires_every_connection_at_once_is_dialled_with_backoff() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let peer = RawPeer::unix(scratch.path("peer.sock"));
    let channel = Connector::target(peer.uri()).connect_lazy().unwrap();
    let start = Instant::now();
    for _ in 0..6 {
        let mut conn = accept(&peer).await;
        conn.settings_acked().await;
        conn.goaway(0, code::NO_ERROR, "").await;
        conn.closed().await;
    }
    // Five delays, each at its shortest: 80 ms, and 1.6 times as long each time.
    let delays = start.elapsed();
    assert!(delays >= Duration::from_millis(1258), "{delays:?}");
    drop((channel, peer));
    leaks.finish().await;
}
