//! Calls that do not wait for readiness wait for an endpoint for so long, and no longer.

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

use client::calls::{ask, endpoint, unary};
use client::told::Told;
use support::calls::request;
use support::leak::LeakCheck;
use support::server::EchoServer;
use support::wait::within;
use tokio::net::TcpListener;
use tonic::Code;
use trunkline::{CallOptions, Connector, Endpoint, PoolOptions, Retry};

const LIMIT: Duration = Duration::from_secs(10);
/// Longer than the test may take.
const LONG: Duration = Duration::from_secs(25);
const MOMENT: Duration = Duration::from_millis(200);

/// The peer accepts, and says nothing. Nobody waits for as long as the dial may take.
#[tokio::test]
async fn a_peer_that_never_answers_the_handshake_holds_calls_up_for_so_long() {
    let leaks = LeakCheck::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_at = Endpoint::tcp(silent.local_addr().unwrap().to_string());
    let server = EchoServer::start_tcp("a");
    let (teller, told) = Told::saying(Ok(vec![silent_at.clone()]));
    let channel = Connector::discover(told)
        .pool(PoolOptions::new().connect_timeout(LONG))
        .fail_fast_after(MOMENT)
        .retry(Retry::none())
        .connect_lazy()
        .unwrap();
    // The second one fails at once.
    for id in 1..=2 {
        let failed = within(LIMIT, "a call", unary(&channel, id)).await;
        let failed = failed.unwrap_err();
        assert_eq!(failed.code(), Code::Unavailable);
        let message = failed.message();
        let wanted = "no endpoint was ready for 200ms: the only endpoint is not ready: 127.0.0.1:";
        assert!(message.starts_with(wanted), "{message}");
    }
    // One that waits for readiness is served when there is an endpoint, and so are all that come then.
    let other = channel.clone();
    let waits = CallOptions::new().wait_for_ready(true);
    let waiting = tokio::spawn(async move { ask(&other, request(3), waits).await });
    within(LIMIT, "a call", unary(&channel, 4))
        .await
        .unwrap_err();
    teller.say([silent_at, endpoint(&server)]);
    let served = within(LIMIT, "the waiting call", waiting).await.unwrap();
    assert_eq!(served.unwrap().server, "a");
    assert_eq!(unary(&channel, 5).await.unwrap().server, "a");
    drop((channel, server, silent));
    leaks.finish().await;
}

/// An outage collects no more calls than it may, and those that were first are served when it ends.
#[tokio::test]
async fn calls_that_wait_for_readiness_are_limited_in_number() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let (teller, told) = Told::saying(Err("it is away"));
    let channel = Connector::discover(told)
        .wait_for_ready(true)
        .max_waiting(2)
        .connect_lazy()
        .unwrap();
    // Whoever gives up leaves its place.
    let short = CallOptions::new().timeout(MOMENT);
    for id in 1..=3 {
        let failed = ask(&channel, request(id), short).await.unwrap_err();
        assert_eq!(failed.code(), Code::DeadlineExceeded);
    }
    let mut calls = tokio::task::JoinSet::new();
    for id in 4..=6 {
        let channel = channel.clone();
        calls.spawn(async move { unary(&channel, id).await });
    }
    let refused = within(LIMIT, "the refusal", calls.join_next()).await;
    let refused = refused.unwrap().unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let message = "too many calls are waiting for an endpoint to be ready (max_waiting)";
    assert_eq!(refused.message(), message);
    teller.say([endpoint(&server)]);
    while let Some(served) = within(LIMIT, "the waiting calls", calls.join_next()).await {
        assert_eq!(served.unwrap().unwrap().server, "a");
    }
    for id in 7..=10 {
        assert_eq!(unary(&channel, id).await.unwrap().server, "a");
    }
    drop((channel, server, teller));
    leaks.finish().await;
}

#[tokio::test]
async fn silent_discovery_holds_calls_up_for_so_long() {
    let leaks = LeakCheck::start().await;
    let (teller, told) = Told::new();
    let connector = Connector::discover(told).fail_fast_after(MOMENT);
    let channel = connector.retry(Retry::none()).connect_lazy().unwrap();
    let failed = within(LIMIT, "a call", unary(&channel, 1)).await;
    let failed = failed.unwrap_err();
    let message = "no endpoint was ready for 200ms: discovery has not answered yet";
    assert_eq!(failed.message(), message);
    drop((channel, teller));
    leaks.finish().await;
}
