//! Calls that pass their deadline, and connections that are lost.

use std::time::Duration;

use tonic::Code;
use tonic::body::Body;
use trunkline::{
    Backoff, Balance, CallOptions, Connector, Endpoint, Health, HealthSource, Influence,
    PoolOptions, Retry,
};
use trunkline_proto::EchoRequest;
use trunkline_proto::echo_client::EchoClient;

use super::rig::{LIMIT, NEVER, Rig, for_a_moment, for_good};
use crate::client::calls::{ask, endpoint, hang, slow};
use crate::client::first::First;
use crate::client::health::{
    about, are, counted, endpoint as endpoint_of, is, said, shares, status,
};
use crate::support::body::post;
use crate::support::calls::request;
use crate::support::leak::LeakCheck;
use crate::support::raw_peer::RawPeer;
use crate::support::reaction::Reaction;
use crate::support::server::EchoServer;
use crate::support::wait::{wait_equal, wait_until};

/// A deadline that passes soon.
fn soon() -> CallOptions {
    CallOptions::new().timeout(Duration::from_millis(50))
}

/// Whether it is this side or the server that ends them: tonic's servers read how much time a call has.
#[tokio::test]
async fn a_server_whose_handlers_hang_is_ejected() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::with(2, for_good()).await;
    let hangs = &rig.servers[0];
    hangs.behaviour().set_delay(NEVER);
    while status(&rig.channel, 0).health != Health::Ejected {
        let _ = ask(&rig.channel, request(1), soon()).await;
        tokio::task::yield_now().await;
    }
    let told = is(&rig.channel, 0, Health::Ejected).await;
    let (source, reason) = said(&told);
    assert_eq!(source, Some(HealthSource::Breaker));
    assert!(reason.ends_with("calls in a row failed"), "{reason}");
    about(&shares(&rig.channel, &rig.servers, 20).await, &[0, 20]);
    wait_equal(LIMIT, 0, || hangs.journal().in_flight()).await;
    assert_eq!(rig.servers[1].journal().accepted(), 1);
    drop(rig);
    leaks.finish().await;
}

/// Not a byte comes back: only a new connection shows that the server is there.
#[tokio::test]
async fn a_server_that_freezes_gets_a_new_connection_while_it_is_out() {
    let leaks = LeakCheck::start().await;
    let frozen = RawPeer::tcp().serve(&[], |_| Reaction::Freeze);
    let other = RawPeer::tcp().serve(&[], |request| Reaction::echo(request, "b"));
    let endpoints = [&frozen, &other].map(|peer| Endpoint::uri(peer.uri()));
    let connector = Connector::endpoints(endpoints).retry(Retry::none());
    let channel = connector.breaker(for_good()).connect().await.unwrap();
    are(&channel, &[Health::Healthy; 2]).await;
    while status(&channel, 0).health != Health::Ejected {
        let _ = ask(&channel, request(1), soon()).await;
        tokio::task::yield_now().await;
    }
    // The first was replaced before, and the second one has not answered either.
    wait_until(LIMIT, || frozen.seen().connections() >= 2).await;
    // The old one has no call to stay for.
    let left = || {
        let endpoint = endpoint_of(&channel, 0);
        (endpoint.connections, endpoint.draining_connections)
    };
    wait_equal(LIMIT, (1, 0), left).await;
    is(&channel, 0, Health::Ejected).await;
    assert_eq!(other.seen().connections(), 1);
    drop((channel, frozen, other));
    leaks.finish().await;
}

/// The peer does not even read any more. Its new connection proves that it is back.
#[tokio::test]
async fn a_frozen_connection_is_replaced() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp().serve(&[], |request| match request.connection {
        0 => Reaction::Freeze,
        _ => Reaction::echo(request, "a"),
    });
    let connector = Connector::tcp(peer.addr().to_string()).retry(Retry::none());
    let connector = connector.breaker(for_a_moment());
    let channel = connector.connect().await.unwrap();
    let seen = peer.seen();
    while seen.connections() < 2 {
        let _ = ask(&channel, request(1), soon()).await;
        tokio::task::yield_now().await;
    }
    // It is the only endpoint, so the next calls come to it, and an answer heals it.
    while status(&channel, 0).health != Health::Healthy {
        let _ = ask(&channel, request(2), soon()).await;
        tokio::task::yield_now().await;
    }
    drop((channel, peer));
    leaks.finish().await;
}

/// A breaker that is only observed tells of it, and does nothing.
#[tokio::test]
async fn a_frozen_connection_is_kept_by_a_breaker_that_is_only_observed() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp().serve(&[], |_| Reaction::Freeze);
    let connector = Connector::tcp(peer.addr().to_string()).retry(Retry::none());
    let connector = connector.breaker(for_a_moment().influence(Influence::Observe));
    let channel = connector.connect().await.unwrap();
    while status(&channel, 0).health != Health::Suspect {
        let _ = ask(&channel, request(1), soon()).await;
    }
    // Long enough for it to be half-open, and for the faults after that.
    for _ in 0..10 {
        let _ = ask(&channel, request(1), soon()).await;
    }
    let told = status(&channel, 0);
    assert_eq!(told.observed, [HealthSource::Breaker]);
    assert_eq!(peer.seen().connections(), 1);
    drop((channel, peer));
    leaks.finish().await;
}

/// A slow peer that sends something meanwhile keeps its connection.
#[tokio::test]
async fn a_connection_that_is_heard_is_kept() {
    let leaks = LeakCheck::start().await;
    // Every second call is answered with an error that says nothing about it.
    let peer = RawPeer::tcp().serve(&[], |request| match request.nth % 2 {
        0 => Reaction::Silence,
        _ => Reaction::Fail(8, "later".to_owned()),
    });
    let connector = Connector::tcp(peer.addr().to_string()).retry(Retry::none());
    let channel = connector.breaker(for_good()).connect().await.unwrap();
    while status(&channel, 0).health == Health::Healthy {
        let _ = ask(&channel, request(1), soon()).await;
    }
    is(&channel, 0, Health::Tolerated).await;
    for _ in 0..10 {
        let _ = ask(&channel, request(1), soon()).await;
    }
    assert_eq!(peer.seen().connections(), 1);
    drop((channel, peer));
    leaks.finish().await;
}

/// The first endpoint used up the time of the call; the second one had little of it.
#[tokio::test]
async fn an_endpoint_that_had_little_of_the_time_is_not_to_blame() {
    let leaks = LeakCheck::start().await;
    let [slow, hangs] = ["slow", "hangs"].map(EchoServer::start_tcp);
    let whole = Duration::from_millis(500);
    slow.behaviour().fail(1.0, Code::Unavailable);
    slow.behaviour().set_delay(whole.mul_f64(0.6));
    hangs.behaviour().set_delay(NEVER);
    let at_once = Duration::from_millis(1);
    let backoff = Backoff::calls().initial(at_once).max(at_once);
    let first = First::default();
    let connector = Connector::endpoints([endpoint(&slow), endpoint(&hangs)])
        .balance(Balance::custom(first.clone()))
        .retry(Retry::exponential().backoff(backoff))
        .breaker(for_good().consecutive_failures(1));
    let channel = connector.connect().await.unwrap();
    are(&channel, &[Health::Healthy; 2]).await;
    wait_equal(LIMIT, 2, || first.candidates()).await;
    let options = CallOptions::new().timeout(whole);
    let status = ask(&channel, request(1), options).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    wait_equal(LIMIT, 1, || hangs.journal().started()).await;
    are(&channel, &[Health::Ejected, Health::Healthy]).await;
    // With all of the time it is. Nobody else is left, so it keeps its calls.
    ask(&channel, request(2), soon()).await.unwrap_err();
    are(&channel, &[Health::Tolerated; 2]).await;
    drop((channel, slow, hangs));
    leaks.finish().await;
}

/// The call waited for a stream for most of its time.
#[tokio::test]
async fn an_endpoint_is_not_to_blame_for_the_wait_before_it() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::builder("a").max_concurrent_streams(1).tcp();
    let connector = Connector::tcp(server.addr().to_string())
        .pool(PoolOptions::new().max_connections(1))
        .retry(Retry::none())
        .breaker(for_good().consecutive_failures(1));
    let channel = connector.connect().await.unwrap();
    let whole = Duration::from_millis(600);
    // Answered when two thirds of the other's time are over.
    let first = slow(&channel, 1, 400);
    wait_equal(LIMIT, 1, || server.journal().in_flight()).await;
    let second = EchoRequest {
        delay_ms: u32::MAX,
        ..request(2)
    };
    let late = ask(&channel, second, CallOptions::new().timeout(whole));
    let status_of_late = late.await.unwrap_err();
    assert_eq!(status_of_late.code(), Code::DeadlineExceeded);
    first.await.unwrap().unwrap();
    assert_eq!(status(&channel, 0).health, Health::Healthy);
    drop((channel, server));
    leaks.finish().await;
}

/// Whoever made the call looked at it when its time was over.
#[tokio::test]
async fn an_endpoint_is_not_to_blame_for_calls_that_are_polled_late() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let connector = Connector::endpoints([endpoint(&server)]).retry(Retry::none());
    let channel = connector.breaker(for_good()).connect().await.unwrap();
    are(&channel, &[Health::Healthy]).await;
    let late = [(); 5].map(|()| {
        let mut call = post(Body::empty());
        call.extensions_mut().insert(soon());
        channel.send(call)
    });
    // Takes longer than those may.
    slow(&channel, 1, 100).await.unwrap().unwrap();
    for call in late {
        let error = call.await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
    }
    // Five in a row: the breaker would have opened, and replaced a connection that may have frozen.
    let now = endpoint_of(&channel, 0);
    assert_eq!((now.health.health, now.connections), (Health::Healthy, 1));
    drop((channel, server));
    leaks.finish().await;
}

/// A stream may last longer than its deadline allows, and the server did what it could.
#[tokio::test]
async fn a_stream_that_is_cut_at_its_deadline_says_nothing() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::with(1, for_good()).await;
    for id in 1..=10 {
        let mut request = tonic::Request::new(EchoRequest {
            delay_ms: 20,
            repeat: 1000,
            ..request(id)
        });
        let options = CallOptions::new().timeout(Duration::from_millis(100));
        request.extensions_mut().insert(options);
        let mut client = EchoClient::new(rig.channel.clone());
        // A machine that is busy may not come to the first reply.
        let Ok(replies) = client.server_stream(request).await else {
            continue;
        };
        let mut replies = replies.into_inner();
        let cut = loop {
            match replies.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a thousand replies"),
                Err(status) => break status,
            }
        };
        assert_eq!(cut.code(), Code::DeadlineExceeded);
    }
    assert_eq!(status(&rig.channel, 0).health, Health::Healthy);
    drop(rig);
    leaks.finish().await;
}

/// However many calls were on it.
#[tokio::test]
async fn a_lost_connection_is_one_fault() {
    let leaks = LeakCheck::start().await;
    let soon = Duration::from_millis(10);
    let backoff = Backoff::dialling().initial(soon).max(soon);
    let mut rig = Rig::start(1, |connector| {
        let pool = PoolOptions::new().dial_backoff(backoff).max_connections(1);
        let breaker = for_good().consecutive_failures(2);
        connector.pool(pool).breaker(breaker)
    })
    .await;
    for wanted in [Health::Healthy, Health::Tolerated] {
        let calls: Vec<_> = (0..100).map(|id| hang(&rig.channel, id)).collect();
        wait_equal(LIMIT, 100, || rig.servers[0].journal().in_flight()).await;
        rig.servers[0].kill();
        for call in calls {
            let status = call.await.unwrap().unwrap_err();
            assert_eq!(status.code(), Code::Unavailable);
        }
        is(&rig.channel, 0, Health::Disconnected).await;
        rig.servers[0].restart();
        is(&rig.channel, 0, wanted).await;
    }
    let told = status(&rig.channel, 0);
    assert_eq!(said(&told).0, Some(HealthSource::Breaker));
    drop(rig);
    leaks.finish().await;
}

/// Dials that fail are the pool's business: an endpoint that was away is welcome again at once.
#[tokio::test]
async fn an_endpoint_that_was_away_has_nothing_against_it() {
    let leaks = LeakCheck::start().await;
    let soon = Duration::from_millis(10);
    let backoff = Backoff::dialling().initial(soon).max(soon);
    let pool = PoolOptions::new().dial_backoff(backoff);
    let mut rig = Rig::start(2, |connector| connector.pool(pool).breaker(for_good())).await;
    rig.servers[0].kill();
    is(&rig.channel, 0, Health::Disconnected).await;
    let failed = || rig.channel.status().endpoints[0].failed_dials;
    wait_until(LIMIT, || failed() >= 10).await;
    let told = status(&rig.channel, 0);
    assert_eq!(told.decided_by, Some(HealthSource::Connectivity));
    about(&shares(&rig.channel, &rig.servers, 20).await, &[0, 20]);
    rig.servers[0].restart();
    is(&rig.channel, 0, Health::Healthy).await;
    let calls = counted(&rig.servers, async {
        for id in 1..=20 {
            ask(&rig.channel, request(id), CallOptions::new())
                .await
                .unwrap();
        }
    });
    about(&calls.await, &[10, 10]);
    drop(rig);
    leaks.finish().await;
}
