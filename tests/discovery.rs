//! A source of endpoints that has trouble: what the channel does, and what calls and `connect` learn of it.

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
use client::expected::Expected;
use client::told::Told;
use support::calls::request;
use support::leak::LeakCheck;
use support::server::EchoServer;
use support::wait::{wait_equal, wait_until, within};
use tonic::Code;
use trunkline::{
    CallOptions, Channel, Connector, Discover, Endpoint, Resolutions, Retry, Stage, State,
};

const LIMIT: Duration = Duration::from_secs(5);
/// Long enough for a call to get where it is to fail.
const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn discovery_has_no_endpoints_to_give() {
    let leaks = LeakCheck::start().await;
    let wrong = || Endpoint::tcp("no port");
    let drained = || Endpoint::tcp("127.0.0.1:1").weight(0);
    let cases = [
        (Err("out of order"), "told failed: out of order"),
        (Ok(Vec::new()), "no endpoint is known"),
        (Ok(vec![wrong(), wrong()]), "no endpoint is known"),
        (Ok(vec![drained()]), "all endpoints are drained (weight 0)"),
    ];
    for (answer, message) in cases {
        let (_teller, told) = Told::saying(answer.clone());
        let connector = Connector::discover(told).retry(Retry::none());
        let channel = connector.connect_lazy().unwrap();
        let expected = Expected::new("no_endpoint", Stage::Pick, message);
        expected.check_calls(&channel, CallOptions::new()).await;

        let (_teller, told) = Told::saying(answer);
        let connector = Connector::discover(told).ready_timeout(SHORT);
        let error = connector.connect().await.unwrap_err();
        let message = format!("no endpoint was ready within {SHORT:?}: {message}");
        let expected = Expected {
            attempts: 0,
            ..Expected::new("timeout", Stage::Connect, &message)
        };
        expected.check(&error);
    }
    leaks.finish().await;
}

#[tokio::test]
async fn discovery_says_nothing() {
    let leaks = LeakCheck::start().await;
    let (teller, told) = Told::new();
    let connector = Connector::discover(told).ready_timeout(SHORT);
    let error = connector.connect().await.unwrap_err();
    let message = "no endpoint was ready within 200ms: told has not answered";
    let expected = Expected {
        attempts: 0,
        ..Expected::new("timeout", Stage::Connect, message)
    };
    expected.check(&error);
    wait_until(LIMIT, || !teller.is_heard()).await;

    // A call waits for the first answer, since it can come at any moment.
    let (teller, told) = Told::new();
    let channel = Connector::discover(told).connect_lazy().unwrap();
    let message = "the deadline of 200ms passed while waiting for an endpoint to be ready";
    let expected = Expected {
        code: Code::DeadlineExceeded,
        ..Expected::new("timeout", Stage::Pick, message)
    };
    let options = CallOptions::new().timeout(SHORT);
    expected.check_calls(&channel, options).await;
    drop(channel);

    // At the stream's end none can come any more.
    drop(teller);
    let (teller, told) = Told::new();
    drop(teller);
    let connector = Connector::discover(told).retry(Retry::none());
    let channel = connector.connect_lazy().unwrap();
    let message = "told failed: it ended without an answer";
    let expected = Expected::new("no_endpoint", Stage::Pick, message);
    expected.check_calls(&channel, CallOptions::new()).await;
    drop(channel);
    leaks.finish().await;
}

/// Calls are served by the one server, on the one connection that there ever was.
async fn is_unchanged(channel: &Channel, server: &EchoServer, id: u64) {
    assert_eq!(unary(channel, id).await.unwrap().server, server.name());
    assert_eq!(server.journal().accepted(), 1);
    let status = channel.status();
    assert_eq!(status.state, State::Ready);
    let addresses: Vec<_> = status.endpoints.iter().map(|it| &it.address).collect();
    assert_eq!(addresses, [&server.addr().to_string()]);
}

#[tokio::test]
async fn what_was_good_stays_in_use() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let (teller, told) = Told::saying(Ok(vec![endpoint(&server)]));
    let channel = Connector::discover(told).connect().await.unwrap();
    is_unchanged(&channel, &server, 1).await;
    let status = channel.status();
    assert_eq!(
        (status.source.as_str(), status.discovery_error),
        ("told", None)
    );
    let trouble = || channel.status().discovery_error;

    teller.fail("out of order");
    wait_equal(LIMIT, Some("out of order".to_owned()), trouble).await;
    is_unchanged(&channel, &server, 2).await;
    let confirmed = channel.status().resolution_age.unwrap();

    teller.say([]);
    let empty = "the answer had no usable endpoint; the last ones stay in use";
    wait_equal(LIMIT, Some(empty.to_owned()), trouble).await;
    is_unchanged(&channel, &server, 3).await;

    teller.fail("out of order again");
    wait_equal(LIMIT, Some("out of order again".to_owned()), trouble).await;
    teller.say([Endpoint::tcp("no port"), Endpoint::unix("relative")]);
    wait_equal(LIMIT, Some(empty.to_owned()), trouble).await;
    is_unchanged(&channel, &server, 4).await;
    // The age is that of the last good answer.
    assert!(channel.status().resolution_age.unwrap() > confirmed);

    let told_again = std::time::Duration::ZERO..channel.status().resolution_age.unwrap();
    teller.say([endpoint(&server)]);
    wait_equal(LIMIT, None, trouble).await;
    assert!(told_again.contains(&channel.status().resolution_age.unwrap()));
    is_unchanged(&channel, &server, 5).await;

    drop(teller);
    // Nothing tells when the channel has seen the end, so the calls go on for a while.
    for id in 6..106 {
        is_unchanged(&channel, &server, id).await;
    }
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn an_answer_after_trouble_serves_the_calls_that_wait() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let (teller, told) = Told::saying(Err("not yet"));
    let channel = Connector::discover(told).connect_lazy().unwrap();
    wait_until(LIMIT, || channel.status().discovery_error.is_some()).await;
    assert_eq!(channel.status().resolution_age, None);
    assert_eq!(channel.status().state, State::TransientFailure);
    let other = channel.clone();
    let waits = CallOptions::new().wait_for_ready(true);
    let waiting = tokio::spawn(async move { ask(&other, request(1), waits).await });
    teller.say([endpoint(&server)]);
    let served = within(LIMIT, "the waiting call", waiting).await.unwrap();
    assert_eq!(served.unwrap().server, "a");
    is_unchanged(&channel, &server, 2).await;
    drop((channel, server));
    leaks.finish().await;
}

/// Panics where a source should answer, after what it is told.
#[derive(Debug)]
struct Panics(Told);

impl Discover for Panics {
    fn name(&self) -> String {
        "panics".to_owned()
    }

    fn resolutions(self: Box<Self>) -> Resolutions {
        use tokio_stream::{StreamExt, iter};
        let broken = iter([()]).map(|()| panic!("the source is broken"));
        Box::pin(Box::new(self.0).resolutions().chain(broken))
    }
}

#[tokio::test]
async fn a_source_that_panics_ends_the_channel() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let expected = Expected::new(
        "closed",
        Stage::Pick,
        "the channel has ended: its source of endpoints or its balancing policy panicked",
    );

    let (teller, told) = Told::new();
    drop(teller);
    let channel = Connector::discover(Panics(told)).connect_lazy().unwrap();
    expected.check_calls(&channel, CallOptions::new()).await;
    let waits = CallOptions::new().wait_for_ready(true).no_timeout();
    expected.check_calls(&channel, waits).await;
    drop(channel);

    let (teller, told) = Told::new();
    drop(teller);
    let error = Connector::discover(Panics(told)).connect().await;
    let expected_at_once = Expected {
        attempts: 0,
        stage: Some(Stage::Connect),
        ..expected.clone()
    };
    expected_at_once.check(&error.unwrap_err());

    // Later too; calls that are on their way finish.
    let (teller, told) = Told::saying(Ok(vec![endpoint(&server)]));
    let channel = Connector::discover(Panics(told)).connect().await.unwrap();
    let slow = client::calls::slow(&channel, 1, 200);
    wait_equal(LIMIT, 1, || server.journal().in_flight()).await;
    drop(teller);
    wait_equal(LIMIT, State::Shutdown, || channel.status().state).await;
    expected.check_calls(&channel, waits).await;
    let finished = within(LIMIT, "the call in flight", slow).await.unwrap();
    assert_eq!(finished.unwrap().id, 1);
    wait_equal(LIMIT, 0, || server.journal().open()).await;
    drop((channel, server));
    leaks.finish().await;
}
