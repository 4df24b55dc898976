//! Connections that stand still: calls on them are late together, and that is one incident of their endpoint.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::sync::Arc;
use std::time::Duration;

use rows::calls::call;
use rows::rig::{LIMIT, STREAMS};
use rows::served::{NAMES, endpoints, raw_server};
use rows::switch::Switch;
use support::leak::LeakCheck;
use support::raw_serve::ServedPeer;
use support::reaction::{Reaction, RequestInfo};
use support::wait::{holds_within, wait_until};
use tokio::task::JoinSet;
use tonic::Code;
use trunkline::{Breaker, Channel, Connector, EndpointStatus, Health, Retry, State};

/// What a call may take.
const DEADLINE: Duration = Duration::from_millis(300);

/// Two peers, and a channel that is connected to both and has used both. The first one freezes those of its connections on
/// which a request comes while the switch is on, if they are in turn.
async fn start(is_in_turn: fn(u64) -> bool) -> ([ServedPeer; 2], Channel, Switch) {
    let switch = Switch::default();
    let rule = {
        let switch = switch.clone();
        move |nth: usize, request: &RequestInfo| {
            if nth == 0 && switch.is_on() && is_in_turn(request.connection) {
                return Reaction::Freeze;
            }
            Reaction::echo(request, NAMES[nth])
        }
    };
    let rule = Arc::new(rule);
    let peers = [0, 1].map(|nth| raw_server(nth, STREAMS, &rule));
    let connector = Connector::endpoints(endpoints(&peers));
    let connector = connector.retry(Retry::none()).timeout(DEADLINE);
    let channel = connector.connect().await.unwrap();
    let is_ready = |it: &EndpointStatus| it.state == State::Ready;
    wait_until(LIMIT, || channel.status().endpoints.iter().all(is_ready)).await;
    for id in 0..4 {
        call(channel.clone(), id).await.unwrap();
    }
    (peers, channel, switch)
}

/// Calls at once. Gives how many were late; no other failed.
async fn burst(channel: &Channel, ids: std::ops::Range<u64>) -> usize {
    let mut calls = JoinSet::new();
    for id in ids {
        calls.spawn(call(channel.clone(), id));
    }
    let results = calls.join_all().await;
    let failed: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    for status in &failed {
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    }
    failed.len()
}

fn first(channel: &Channel) -> EndpointStatus {
    channel.status().endpoints.remove(0)
}

/// Many calls are late because of one connection. It is replaced, and the endpoint is as good as before.
#[tokio::test]
async fn a_connection_that_stands_still_is_replaced_and_its_endpoint_stays() {
    let leaks = LeakCheck::start().await;
    let (peers, channel, switch) = start(|connection| connection == 0).await;
    switch.turn(true);
    assert_eq!(burst(&channel, 100..140).await, 20, "half of them");
    let is_back = || {
        let status = first(&channel);
        assert_ne!(status.health.health, Health::Ejected, "{status:?}");
        assert_ne!(status.health.health, Health::HalfOpen, "{status:?}");
        status.state == State::Ready && status.connection_attempts_succeeded == 2
    };
    wait_until(LIMIT, is_back).await;
    let before = peers[0].seen().requests();
    assert_eq!(burst(&channel, 200..240).await, 0);
    assert_eq!(peers[0].seen().requests() - before, 20, "its share");
    drop((channel, peers));
    leaks.finish().await;
}

/// That is said once, until a call succeeds: where the next connection is no better, it is the peer.
#[tokio::test]
async fn a_peer_whose_connections_all_stand_still_is_ejected() {
    let leaks = LeakCheck::start().await;
    let (peers, channel, switch) = start(|_| true).await;
    switch.turn(true);
    let mut next = 100;
    let is_ejected = || first(&channel).health.health == Health::Ejected;
    let mut bursts = 0;
    while !is_ejected() {
        assert!(bursts < 20, "{:?}", first(&channel));
        // Each of them takes the calls' time, if the endpoint has any.
        burst(&channel, next..next + 40).await;
        let is_settled = || is_ejected() || first(&channel).state == State::Ready;
        assert!(holds_within(LIMIT, is_settled).await);
        next += 40;
        bursts += 1;
    }
    assert!(bursts > 1, "its first connection was not replaced");
    assert_eq!(burst(&channel, next..next + 40).await, 0);
    drop((channel, peers));
    leaks.finish().await;
}

/// A peer that fails first, and freezes when its breaker is open: nothing but the calls that it proves itself with can find
/// that out.
#[tokio::test]
async fn a_connection_that_stands_still_while_the_breaker_is_open_is_replaced() {
    let leaks = LeakCheck::start().await;
    let (fails, freezes) = (Switch::default(), Switch::default());
    let rule = {
        let (fails, freezes) = (fails.clone(), freezes.clone());
        move |nth: usize, request: &RequestInfo| match nth {
            0 if freezes.is_on() && request.connection == 0 => Reaction::Freeze,
            0 if fails.is_on() => Reaction::Fail(Code::Unavailable as i32, String::new()),
            _ => Reaction::echo(request, NAMES[nth]),
        }
    };
    let rule = Arc::new(rule);
    let peers = [0, 1].map(|nth| raw_server(nth, STREAMS, &rule));
    let breaker = Breaker::new().open_for(Duration::from_millis(200), Duration::from_millis(400));
    let connector = Connector::endpoints(endpoints(&peers)).breaker(breaker);
    let connector = connector.retry(Retry::none()).timeout(DEADLINE);
    let channel = connector.connect().await.unwrap();
    let is_ready = |it: &EndpointStatus| it.state == State::Ready;
    wait_until(LIMIT, || channel.status().endpoints.iter().all(is_ready)).await;
    fails.turn(true);
    let mut id = 0;
    while first(&channel).health.health != Health::Ejected {
        let _ = call(channel.clone(), id).await;
        id += 1;
    }
    freezes.turn(true);
    fails.turn(false);
    let began = tokio::time::Instant::now();
    while first(&channel).health.health != Health::Healthy {
        assert!(began.elapsed() < LIMIT, "{:?}", first(&channel));
        let _ = call(channel.clone(), id).await;
        id += 1;
    }
    assert_eq!(first(&channel).connection_attempts_succeeded, 2);
    drop((channel, peers));
    leaks.finish().await;
}
