//! `Channel::acquire`: a sequence of calls on one connection.

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

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::calls::{endpoint, hang, raw, unary};
use client::expected::Expected;
use http_body_util::BodyExt;
use support::calls::request;
use support::frames::{code, setting};
use support::leak::LeakCheck;
use support::raw_peer::RawPeer;
use support::reaction::Reaction;
use support::server::EchoServer;
use support::wait::{holds_within, wait_equal, wait_until, within};
use tonic::Code;
use trunkline::{
    Breaker, CallOptions, Connector, Delivery, Endpoint, EndpointStatus, Health, PinnedChannel,
    PoolOptions, Stage, State,
};
use trunkline_proto::EchoRequest;
use trunkline_proto::echo_client::EchoClient;

const LIMIT: Duration = Duration::from_secs(5);
const MILLI: Duration = Duration::from_millis(1);

/// One call on the pinned connection, read to its end.
async fn pinned_call(pinned: &PinnedChannel, id: u64) -> Result<(), trunkline::Error> {
    let response = pinned.send(raw(id, CallOptions::new())).await?;
    response.into_body().collect().await?;
    Ok(())
}

fn status(channel: &trunkline::Channel) -> EndpointStatus {
    channel.status().endpoints.swap_remove(0)
}

#[tokio::test]
async fn its_calls_go_over_one_connection() {
    let leaks = LeakCheck::start().await;
    // Which call came over which connection of which peer.
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let peers = ["a", "b"].map(|name| {
        let seen = Arc::clone(&seen);
        RawPeer::tcp().serve(&[(setting::MAX_CONCURRENT_STREAMS, 2)], move |request| {
            let id = request.echo().unwrap().id;
            let place = (name, request.connection);
            seen.lock().unwrap().insert(id, place);
            Reaction::echo(request, name).after(MILLI)
        })
    });
    let endpoints = peers
        .each_ref()
        .map(|peer| Endpoint::tcp(peer.addr().to_string()));
    let channel = Connector::endpoints(endpoints).connect().await.unwrap();
    let ready = || {
        channel
            .status()
            .endpoints
            .iter()
            .all(|it| it.connections > 0)
    };
    wait_until(LIMIT, ready).await;
    let pinned = [
        channel.acquire().await.unwrap(),
        channel.acquire().await.unwrap(),
        channel.acquire().await.unwrap(),
    ];
    let addresses = peers.each_ref().map(|peer| peer.addr().to_string());
    for one in &pinned {
        assert!(one.is_open() && addresses.iter().any(|it| it == one.endpoint()));
    }
    // Enough others for every connection that there may be.
    let others: Vec<_> = (1000..1100)
        .map(|id| {
            let channel = channel.clone();
            tokio::spawn(async move { unary(&channel, id).await })
        })
        .collect();
    let users: Vec<_> = (0..)
        .zip(pinned)
        .map(|(number, pinned)| {
            tokio::spawn(async move {
                let mut client = EchoClient::new(pinned);
                for id in number * 100..number * 100 + 20 {
                    let reply = client.unary(request(id)).await.unwrap();
                    assert_eq!(reply.into_inner().id, id);
                }
            })
        })
        .collect();
    for user in users {
        user.await.unwrap();
    }
    for other in others {
        other.await.unwrap().unwrap();
    }
    let seen = seen.lock().unwrap().clone();
    for number in 0..3 {
        let mut places: Vec<_> = seen.range(number * 100..number * 100 + 20).collect();
        assert_eq!(places.len(), 20);
        places.dedup_by_key(|(_, place)| **place);
        assert_eq!(places.len(), 1, "{places:?}");
    }
    let mut all: Vec<_> = seen.into_values().collect();
    all.sort_unstable();
    all.dedup();
    assert!(all.len() >= 4, "the others used more connections: {all:?}");
    drop((channel, peers));
    leaks.finish().await;
}

#[tokio::test]
async fn its_calls_take_turns_to_the_end_of_each_response() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let connector = Connector::endpoints([endpoint(&server)]);
    let channel = connector.connect().await.unwrap();
    let pinned = Arc::new(channel.acquire().await.unwrap());
    server.behaviour().set_delay(5 * MILLI);
    let calls: Vec<_> = (0..10)
        .map(|id| {
            let pinned = Arc::clone(&pinned);
            tokio::spawn(async move { pinned_call(&pinned, id).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(server.journal().peak_in_flight(), 1);
    assert_eq!(server.journal().finished(), 10);
    server.behaviour().heal();

    // The headers of a response are not its end.
    let mut stream = raw(11, CallOptions::new());
    *stream.uri_mut() = "/trunkline.echo.v1.Echo/ServerStream".parse().unwrap();
    let first = pinned.send(stream).await.unwrap();
    let other = Arc::clone(&pinned);
    let mut second = tokio::spawn(async move { pinned_call(&other, 12).await });
    assert!(!holds_within(50 * MILLI, || second.is_finished()).await);
    first.into_body().collect().await.unwrap();
    within(LIMIT, "the second call", &mut second)
        .await
        .unwrap()
        .unwrap();

    // A call that is given up passes its turn on.
    server.behaviour().set_delay(Duration::from_secs(3600));
    let other = Arc::clone(&pinned);
    let hanging = tokio::spawn(async move { pinned_call(&other, 13).await });
    wait_equal(LIMIT, 1, || server.journal().in_flight()).await;
    let brief = CallOptions::new().timeout(50 * MILLI);
    let waits = pinned.send(raw(14, brief)).await.unwrap_err();
    let expected = Expected {
        code: Code::DeadlineExceeded,
        endpoint: Some(server.addr().to_string()),
        ..Expected::new(
            "timeout",
            Stage::Pool,
            "*: the deadline of 50ms passed on a pinned connection while waiting for the calls before it or for a token",
        )
    };
    expected.check(&waits);
    hanging.abort();
    server.behaviour().heal();
    within(LIMIT, "a call", pinned_call(&pinned, 15))
        .await
        .unwrap();
    assert_eq!(server.journal().handled().get(&14), None);
    assert_eq!(server.journal().accepted(), 1);
    drop((pinned, channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn it_holds_a_slot_until_it_is_dropped() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::builder("a").max_concurrent_streams(1).tcp();
    let pool = PoolOptions::new().max_connections(1);
    let connector = Connector::endpoints([endpoint(&server)]).pool(pool);
    let channel = connector.connect().await.unwrap();
    let first = channel.acquire().await.unwrap();
    assert_eq!(status(&channel).free_streams, 0);
    let other = channel.clone();
    let second = tokio::spawn(async move { other.acquire().await });
    wait_equal(LIMIT, 1, || status(&channel).waiting).await;
    let call = client::calls::slow(&channel, 1, 0);
    wait_equal(LIMIT, 2, || status(&channel).waiting).await;
    pinned_call(&first, 2).await.unwrap();
    assert!(
        !second.is_finished() && !call.is_finished(),
        "a call's end frees nothing"
    );
    drop(first);
    let second = within(LIMIT, "the second", second).await.unwrap().unwrap();
    assert!(!call.is_finished());
    drop(second);
    within(LIMIT, "the call", call).await.unwrap().unwrap();

    // A running call holds it longer than its handle does.
    let pinned = channel.acquire().await.unwrap();
    let hanging = EchoRequest {
        repeat: u32::MAX,
        delay_ms: 10,
        ..request(3)
    };
    let mut client = EchoClient::new(pinned);
    let replies = client.server_stream(hanging).await.unwrap();
    drop(client);
    assert_eq!(
        (status(&channel).free_streams, status(&channel).in_flight),
        (0, 1)
    );
    drop(replies);
    wait_equal(LIMIT, 1, || status(&channel).free_streams).await;

    // An acquire that is given up leaves the queue.
    let hanging = hang(&channel, 4);
    wait_equal(LIMIT, 1, || server.journal().in_flight()).await;
    let other = channel.clone();
    let given_up = tokio::spawn(async move { other.acquire().await });
    wait_equal(LIMIT, 1, || status(&channel).waiting).await;
    given_up.abort();
    wait_equal(LIMIT, 0, || status(&channel).waiting).await;
    hanging.abort();
    wait_equal(LIMIT, 1, || status(&channel).free_streams).await;
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn it_keeps_its_connection_from_falling_idle() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let pool = PoolOptions::new()
        .min_connections(0)
        .idle_timeout(30 * MILLI);
    let connector = Connector::endpoints([endpoint(&server)]).pool(pool);
    let channel = connector.connect().await.unwrap();
    let pinned = channel.acquire().await.unwrap();
    let accepted = server.journal().accepted();
    let given_up = || status(&channel).connections != 1 || !pinned.is_open();
    assert!(!holds_within(300 * MILLI, given_up).await);
    assert_eq!(
        (status(&channel).state, server.journal().open()),
        (State::Ready, 1)
    );
    pinned_call(&pinned, 1).await.unwrap();
    assert_eq!(server.journal().accepted(), accepted);
    drop(pinned);
    wait_equal(LIMIT, 0, || server.journal().open()).await;
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn its_calls_are_not_repeated_and_fail_once_the_connection_has_ended() {
    let leaks = LeakCheck::start().await;
    let mut server = EchoServer::start_tcp("a");
    let connector = Connector::endpoints([endpoint(&server)]).wait_for_ready(true);
    let channel = connector.connect().await.unwrap();
    let address = server.addr().to_string();
    let mut client = EchoClient::new(channel.acquire().await.unwrap());
    let failing = EchoRequest {
        fail_code: Code::Unavailable as u32,
        ..request(1)
    };
    let status = client.unary(failing).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(server.journal().handled()[&1], 1);
    drop(client);

    let pinned = channel.acquire().await.unwrap();
    server.kill();
    wait_until(LIMIT, || !pinned.is_open()).await;
    server.restart();
    let expected = Expected {
        endpoint: Some(address.clone()),
        ..Expected::new("disconnected", Stage::Send, &format!("{address}: *"))
    };
    for id in 2..4 {
        let error = within(LIMIT, "the call", pinned_call(&pinned, id)).await;
        expected.check(&error.unwrap_err());
    }
    // Another one is on another connection.
    let again = within(LIMIT, "another", channel.acquire()).await.unwrap();
    assert!(again.is_open() && !pinned.is_open());
    pinned_call(&again, 4).await.unwrap();
    assert_eq!(
        server.journal().handled().into_keys().collect::<Vec<_>>(),
        [1, 4]
    );

    // Killed under a call.
    server.behaviour().set_delay(Duration::from_secs(3600));
    let dying = tokio::spawn(async move { (pinned_call(&again, 5).await, again) });
    wait_equal(LIMIT, 1, || server.journal().in_flight()).await;
    server.kill();
    let (error, _again) = within(LIMIT, "the call", dying).await.unwrap();
    let expected = Expected {
        stage: Some(Stage::Response),
        delivery: Delivery::MaybeProcessed,
        ..expected
    };
    expected.check(&error.unwrap_err());
    drop((_again, pinned, channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn after_a_goodbye_of_the_server_it_takes_no_more_calls() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp().serve(&[], |request| match request.echo().unwrap().id {
        2 => Reaction::echo(request, "raw").after_goaway(request.stream, code::NO_ERROR, ""),
        _ => Reaction::echo(request, "raw"),
    });
    let address = peer.addr().to_string();
    let channel = Connector::tcp(&address).connect().await.unwrap();
    let pinned = channel.acquire().await.unwrap();
    pinned_call(&pinned, 1).await.unwrap();
    // What the server still answers is an answer.
    pinned_call(&pinned, 2).await.unwrap();
    assert!(!pinned.is_open());
    let error = within(LIMIT, "the call", pinned_call(&pinned, 3)).await;
    let expected = Expected {
        endpoint: Some(address.clone()),
        ..Expected::new(
            "disconnected",
            Stage::Send,
            &format!("{address}: the peer is closing the connection (GOAWAY NO_ERROR)"),
        )
    };
    expected.check(&error.unwrap_err());
    let again = within(LIMIT, "another", channel.acquire()).await.unwrap();
    pinned_call(&again, 4).await.unwrap();
    assert_eq!(peer.seen().connections(), 2);
    drop((pinned, again));

    channel.close(Duration::ZERO).await;
    let closed = channel.acquire().await.unwrap_err();
    assert!(closed.is_closed(), "{closed:?}");
    drop((channel, peer));
    leaks.finish().await;
}

#[tokio::test]
async fn a_call_that_close_cuts_says_that_the_channel_was_closed() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    server.behaviour().set_delay(Duration::from_secs(3600));
    let channel = Connector::target(server.uri()).connect().await.unwrap();
    let pinned = channel.acquire().await.unwrap();
    let cut = tokio::spawn(async move { (pinned_call(&pinned, 1).await, pinned) });
    wait_equal(LIMIT, 1, || server.journal().in_flight()).await;
    within(LIMIT, "closing", channel.close(Duration::ZERO)).await;
    let (error, pinned) = within(LIMIT, "the call", cut).await.unwrap();
    let expected = Expected {
        delivery: Delivery::MaybeProcessed,
        endpoint: Some(server.addr().to_string()),
        ..Expected::new(
            "closed",
            Stage::Response,
            "the channel was closed while the call ran",
        )
    };
    expected.check(&error.unwrap_err());
    drop((pinned, channel, server));
    leaks.finish().await;
}

/// Calls that wait for the one before have little time left when they are sent. Their endpoint is not to blame.
#[tokio::test]
async fn calls_that_waited_for_their_turn_say_nothing_about_the_endpoint() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp().serve(&[], |request| {
        Reaction::echo(request, "a").after(MILLI * 150)
    });
    let connector = Connector::endpoints([Endpoint::tcp(peer.addr().to_string())]);
    let channel = connector.timeout(MILLI * 200).connect().await.unwrap();
    let pinned = channel.acquire().await.unwrap();
    // As many as the breaker asks for, of which half are late.
    for id in 0..5 {
        let (one, other) = tokio::join!(pinned_call(&pinned, id), pinned_call(&pinned, id + 100));
        one.unwrap();
        other.unwrap_err();
    }
    assert_eq!(status(&channel).health.health, Health::Healthy);
    drop((pinned, channel, peer));
    leaks.finish().await;
}

/// Who pins a connection of an endpoint that has to prove itself is the one who does so.
#[tokio::test]
async fn an_endpoint_on_trial_gives_one_pinned_connection() {
    let leaks = LeakCheck::start().await;
    let peers = ["a", "b"].map(|name| {
        RawPeer::tcp().serve(&[], move |request| match name {
            "a" => Reaction::Fail(Code::Internal as i32, String::new()),
            _ => Reaction::echo(request, name),
        })
    });
    let addresses = peers.each_ref().map(|peer| peer.addr().to_string());
    let channel = Connector::endpoints(addresses.clone().map(Endpoint::tcp))
        .breaker(Breaker::new().open_for(MILLI * 100, MILLI * 100))
        .connect()
        .await
        .unwrap();
    let all_ready = || {
        let all = channel.status().endpoints;
        all.iter().all(|it| it.state == State::Ready)
    };
    wait_until(LIMIT, all_ready).await;
    for id in 0..20 {
        let _ = unary(&channel, id).await;
    }
    wait_until(LIMIT, || status(&channel).health.health == Health::HalfOpen).await;
    let mut pinned = Vec::new();
    for _ in 0..8 {
        pinned.push(channel.acquire().await.unwrap());
    }
    let there = pinned.iter().filter(|it| it.endpoint() == addresses[0]);
    assert_eq!(there.count(), 1);
    drop((pinned, channel, peers));
    leaks.finish().await;
}
