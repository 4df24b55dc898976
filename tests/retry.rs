//! Which calls are made again, how often, and which are not. Counted at the servers.

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

use client::calls::{ask, endpoint, slow, unary};
use client::expected::Expected;
use client::first::First;
use client::pair::quick;
use support::calls::request;
use support::leak::LeakCheck;
use support::place::HeldPort;
use support::raw_peer::RawPeer;
use support::reaction::Reaction;
use support::server::EchoServer;
use support::wait::{wait_equal, wait_until, within};
use tokio::time::Instant;
use tonic::{Code, Status};
use trunkline::{
    Backoff, Balance, BudgetLimits, CallOptions, Channel, Connector, Delivery, Endpoint, Error,
    PoolOptions, Retry, Stage, State,
};
use trunkline_proto::EchoRequest;
use trunkline_proto::echo_client::EchoClient;

const LIMIT: Duration = Duration::from_secs(5);

async fn connect(server: &EchoServer, retry: Retry) -> Channel {
    let connector = Connector::endpoints([endpoint(server)]).retry(retry);
    connector.connect().await.unwrap()
}

fn handled(server: &EchoServer, id: u64) -> u64 {
    server.journal().handled().get(&id).copied().unwrap_or(0)
}

async fn failing(channel: &Channel, id: u64, code: Code) -> Status {
    let request = EchoRequest {
        fail_code: code as u32,
        ..request(id)
    };
    let failed = ask(channel, request, CallOptions::new()).await;
    failed.unwrap_err()
}

#[tokio::test]
async fn a_failed_call_is_made_again_elsewhere() {
    let leaks = LeakCheck::start().await;
    let servers = ["a", "b", "c"].map(EchoServer::start_tcp);
    let channel = Connector::endpoints(servers.each_ref().map(endpoint))
        .connect()
        .await
        .unwrap();
    let connections = || -> usize {
        let endpoints = channel.status().endpoints;
        endpoints.iter().map(|it| it.connections).sum()
    };
    wait_equal(LIMIT, 3, connections).await;
    for server in &servers[..2] {
        server.behaviour().fail(1.0, Code::Unavailable);
    }
    let calls = (0..30).map(|id| slow(&channel, id, 0));
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().unwrap().server, "c");
    }
    // Each server at most once for a call: what was tried is tried last.
    for server in &servers {
        assert!(
            server
                .journal()
                .handled()
                .into_values()
                .all(|times| times == 1)
        );
    }
    let [a, b, c] = servers.each_ref().map(|server| server.journal().started());
    assert_eq!(c, 30);
    assert!(a > 0 && b > 0);
    let stats = channel.stats();
    assert_eq!((stats.calls, stats.failed, stats.resends), (30, 0, 0));
    assert_eq!(stats.retries, a + b);
    drop((channel, servers));
    leaks.finish().await;
}

#[tokio::test]
async fn what_was_tried_is_tried_last_whatever_the_policy_says() {
    let leaks = LeakCheck::start().await;
    let servers = ["a", "b", "c"].map(EchoServer::start_tcp);
    let first = First::default();
    let channel = Connector::endpoints(servers.each_ref().map(endpoint))
        .balance(Balance::custom(first.clone()))
        .retry(quick().attempts(5))
        .connect()
        .await
        .unwrap();
    wait_equal(LIMIT, 3, || first.candidates()).await;
    failing(&channel, 1, Code::Unavailable).await;
    let mut times = servers.each_ref().map(|server| handled(server, 1));
    times.sort_unstable();
    assert_eq!(times, [1, 1, 3], "each before any again");
    drop((channel, servers));
    leaks.finish().await;
}

#[tokio::test]
async fn attempts_are_limited_and_only_some_codes_are_tried_again() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let mut id = 0;
    for attempts in 1..=5 {
        let channel = connect(&server, quick().attempts(attempts)).await;
        id += 1;
        let status = failing(&channel, id, Code::Unavailable).await;
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unavailable, "asked to fail")
        );
        assert_eq!(handled(&server, id), u64::from(attempts));
        assert_eq!(channel.stats().retries, u64::from(attempts) - 1);
    }
    let unavailable = [Code::Unavailable];
    let two = [Code::Aborted, Code::ResourceExhausted];
    let tables: [(Retry, &[Code]); 3] = [
        (quick(), &unavailable),
        (quick().codes(two), &two),
        (Retry::none(), &[]),
    ];
    for (retry, codes) in tables {
        let channel = connect(&server, retry).await;
        for code in (1..17).map(Code::from) {
            id += 1;
            assert_eq!(failing(&channel, id, code).await.code(), code);
            let times = if codes.contains(&code) { 3 } else { 1 };
            assert_eq!(handled(&server, id), times, "{code:?} of {codes:?}");
        }
    }
    drop(server);
    leaks.finish().await;
}

#[tokio::test]
async fn nothing_is_made_again_once_the_response_has_begun() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let channel = connect(&server, quick()).await;
    let mut client = EchoClient::new(channel.clone());
    let failing = EchoRequest {
        fail_code: Code::Unavailable as u32,
        ..request(1)
    };
    let midway = EchoRequest {
        repeat: 2,
        ..failing.clone()
    };
    let mut replies = client.server_stream(midway).await.unwrap().into_inner();
    for sequence in 0..2 {
        assert_eq!(replies.message().await.unwrap().unwrap().sequence, sequence);
    }
    let status = replies.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(handled(&server, 1), 1);

    // A response that is nothing but a status is no beginning.
    let at_once = EchoRequest { id: 2, ..failing };
    let status = client.server_stream(at_once).await.unwrap_err();
    assert_eq!((status.code(), handled(&server, 2)), (Code::Unavailable, 3));
    drop((client, replies, channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn a_retry_that_would_come_too_late_is_not_waited_for() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let long = Duration::from_secs(60);
    let late = Retry::exponential().backoff(Backoff::calls().initial(long).max(long));
    let channel = connect(&server, late).await;
    let failed = within(LIMIT, "the call", failing(&channel, 1, Code::Unavailable)).await;
    assert_eq!(failed.message(), "asked to fail");
    assert_eq!(handled(&server, 1), 1);
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn an_error_says_why_there_is_no_retry() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp().serve(&[], |_| Reaction::Close);
    let address = peer.addr().to_string();
    let long = Duration::from_secs(60);
    let none = BudgetLimits::default().ratio(0.0).min_per_second(0);
    let plenty = BudgetLimits::default();
    let idempotent = || quick().idempotent(true);
    let cases = [
        (idempotent(), none, "the retry budget is used up"),
        (
            idempotent().backoff(Backoff::calls().initial(long).max(long)),
            plenty,
            "too little time is left",
        ),
        (
            idempotent().replay_buffer(0),
            plenty,
            "the request is too large to be kept (retry.replay_buffer)",
        ),
        (
            quick(),
            plenty,
            "it may have been processed, and is not marked idempotent (Retry::idempotent)",
        ),
    ];
    let pool = || {
        let soon = Duration::from_millis(1);
        PoolOptions::new().dial_backoff(Backoff::dialling().initial(soon).max(soon))
    };
    // Each by the generated client and as a raw request.
    let calls = 2 * cases.len() as u64;
    for (retry, budget, why) in cases {
        let connector = Connector::tcp(&address).pool(pool()).retry(retry);
        let channel = connector.retry_budget(budget).connect().await.unwrap();
        let expected = Expected {
            delivery: Delivery::MaybeProcessed,
            endpoint: Some(address.clone()),
            ..Expected::new(
                "disconnected",
                Stage::Response,
                &format!("{address}: *; not retried: {why}"),
            )
        };
        let waits = CallOptions::new().wait_for_ready(true);
        expected.check_calls(&channel, waits).await;
    }
    assert_eq!(peer.seen().requests(), calls);
    drop(peer);
    leaks.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_budget_stops_the_retries_of_an_outage() {
    const CALLS: u64 = 400;
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    server.behaviour().fail(1.0, Code::Unavailable);
    let begun = Instant::now();
    let channel = connect(&server, quick()).await;
    let callers = (0..8).map(|caller| {
        let channel = channel.clone();
        tokio::spawn(async move {
            for id in 0..CALLS / 8 {
                let failed = unary(&channel, caller * CALLS + id).await;
                assert_eq!(failed.unwrap_err().code(), Code::Unavailable);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    let retries = server.journal().started() - CALLS;
    // 20 % and 10 per second for the window of 10 s, and for as long as this took.
    let allowed = CALLS / 5 + 100 + 10 * begun.elapsed().as_secs();
    assert!(retries <= allowed, "{retries} of {allowed}");
    assert!(
        retries >= 100,
        "the floor, however few the calls: {retries}"
    );
    assert_eq!(channel.stats().retries, retries);
    drop(channel);

    // The same without a limit worth the name.
    let before = server.journal().started();
    let wide = BudgetLimits::default().ratio(10.0);
    let channel = Connector::endpoints([endpoint(&server)])
        .retry(quick())
        .retry_budget(wide)
        .connect()
        .await
        .unwrap();
    for id in 0..200 {
        unary(&channel, id).await.unwrap_err();
    }
    assert_eq!(server.journal().started() - before, 600);
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn a_slot_is_not_held_while_a_retry_waits() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::builder("a").max_concurrent_streams(1).tcp();
    let pause = Duration::from_secs(2);
    let backoff = Backoff::calls().initial(pause).max(pause).jitter(0.0);
    let connector = Connector::endpoints([Endpoint::uri(server.uri())])
        .retry(Retry::exponential().backoff(backoff))
        .pool(PoolOptions::new().max_connections(1));
    let channel = connector.connect().await.unwrap();
    let other = channel.clone();
    let retrying = tokio::spawn(async move { failing(&other, 1, Code::Unavailable).await });
    wait_equal(LIMIT, 1, || server.journal().finished()).await;
    for id in 2..12 {
        unary(&channel, id).await.unwrap();
    }
    assert!(!retrying.is_finished() && handled(&server, 1) == 1);
    retrying.abort();
    drop((channel, server));
    leaks.finish().await;
}

/// What is drawn for an attempt that finds no endpoint goes back before the next one is asked for.
#[tokio::test]
async fn the_budget_of_one_retry_is_enough_while_none_is_sent() {
    let leaks = LeakCheck::start().await;
    let port = HeldPort::new();
    let one = BudgetLimits::default()
        .ratio(0.0)
        .min_per_second(1)
        .window(Duration::from_secs(1));
    let long = Duration::from_secs(60);
    let pool = PoolOptions::new().dial_backoff(Backoff::dialling().initial(long).max(long));
    let channel = Connector::tcp(port.addr().to_string())
        .retry(quick().attempts(5))
        .retry_budget(one)
        .pool(pool)
        .connect_lazy()
        .unwrap();
    let failed = || channel.status().state == State::TransientFailure;
    wait_until(LIMIT, failed).await;
    for id in 1..=3 {
        let status = within(LIMIT, "the call", unary(&channel, id)).await;
        let status = status.unwrap_err();
        let error = Error::from_status(&status).unwrap();
        assert!(error.is_no_endpoint(), "{error:?}");
        assert_eq!(error.attempts(), 5, "{error}");
    }
    assert_eq!(channel.stats().retries, 0);
    drop((channel, port));
    leaks.finish().await;
}
