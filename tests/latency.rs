//! What policies that see latency make of calls. Counted at the servers.

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

use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::calls::{ask, endpoint, slow, unary};
use client::pair::quick;
use support::calls::request;
use support::leak::LeakCheck;
use support::server::EchoServer;
use support::wait::{wait_equal, within};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use trunkline::{
    Balance, CallOptions, Candidate, Channel, Connector, Load, Picker, Policy, Retry, State,
};
use trunkline_proto::echo_client::EchoClient;

const LIMIT: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3600);

/// Peak EWMA, and what it sees.
#[derive(Clone, Debug, Default)]
struct Watched(Arc<Mutex<Vec<Arc<Load>>>>);

impl Policy for Watched {
    fn name(&self) -> &str {
        "watched"
    }

    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
        *self.0.lock().unwrap() = candidates.iter().map(Candidate::load).collect();
        Balance::peak_ewma().build(candidates)
    }

    fn uses_latency(&self) -> bool {
        true
    }
}

impl Watched {
    /// Calls in flight and calls pending, of all endpoints together.
    fn load(&self) -> (u32, u32) {
        let loads = self.0.lock().unwrap();
        let sum = |of: fn(&Load) -> u32| loads.iter().map(|it| of(it)).sum();
        (sum(Load::in_flight), sum(Load::pending))
    }
}

/// A channel whose answers show what became of the call at the endpoint that was picked first.
async fn connect(servers: &[EchoServer], balance: Balance) -> Channel {
    let channel = Connector::endpoints(servers.iter().map(|it| endpoint(it).weight(1)))
        .balance(balance)
        .retry(Retry::none())
        .no_breaker()
        .connect()
        .await
        .unwrap();
    let ready = || {
        let endpoints = channel.status().endpoints;
        endpoints
            .iter()
            .filter(|it| it.state == State::Ready)
            .count()
    };
    wait_equal(LIMIT, servers.len(), ready).await;
    channel
}

#[tokio::test]
async fn a_server_that_fails_fast_gets_no_more_calls_for_it() {
    for (code, pushback) in [
        (Code::Unavailable, None),
        (Code::ResourceExhausted, None),
        (Code::ResourceExhausted, Some("60000")),
    ] {
        let leaks = LeakCheck::start().await;
        let servers = ["well", "failing"].map(EchoServer::start_tcp);
        servers[0].behaviour().set_delay(Duration::from_millis(3));
        servers[1].behaviour().fail(1.0, code);
        servers[1].behaviour().set_pushback(pushback);
        let channel = connect(&servers, Balance::peak_ewma()).await;
        let mut failed = 0;
        for id in 0..100 {
            failed += u64::from(unary(&channel, id).await.is_err());
        }
        // By its latency alone it would get all of them.
        assert!(failed <= 2, "{code:?}: {failed} of 100");
        assert_eq!(servers[1].journal().started(), failed);
        drop((channel, servers));
        leaks.finish().await;
    }
}

#[tokio::test]
async fn a_server_that_froze_is_known_by_the_callers_that_gave_up() {
    let leaks = LeakCheck::start().await;
    let servers = ["slow", "frozen"].map(EchoServer::start_tcp);
    // More than is assumed of an endpoint that has never answered.
    servers[0].behaviour().set_delay(Duration::from_millis(40));
    servers[1].behaviour().set_delay(HOUR);
    let channel = connect(&servers, Balance::peak_ewma()).await;
    for id in 0..20 {
        let _ = tokio::time::timeout(Duration::from_millis(120), unary(&channel, id)).await;
    }
    let frozen = servers[1].journal().started();
    assert!(frozen <= 7, "{frozen} of 20 calls");
    drop((channel, servers));
    leaks.finish().await;
}

#[tokio::test]
async fn a_stream_keeps_an_endpoint_busy_until_its_first_message() {
    let leaks = LeakCheck::start().await;
    let servers = [EchoServer::start_tcp("a")];
    let watched = Watched::default();
    let channel = connect(&servers, Balance::custom(watched.clone())).await;
    let mut client = EchoClient::new(channel.clone());
    assert_eq!(watched.load(), (0, 0));

    let (feed, messages) = mpsc::channel(1);
    feed.send(request(1)).await.unwrap();
    let messages = ReceiverStream::new(messages);
    let replies = within(LIMIT, "headers", client.bidi_stream(messages)).await;
    let mut replies = replies.unwrap().into_inner();
    assert_eq!(replies.message().await.unwrap().unwrap().id, 1);
    assert_eq!(watched.load(), (1, 0), "the stream is open, and idle");

    servers[0].behaviour().set_delay(HOUR);
    let more = tokio_stream::once(request(2));
    let silent = within(LIMIT, "headers", client.bidi_stream(more)).await;
    let silent = silent.unwrap();
    assert_eq!(watched.load(), (2, 1), "headers are no message");
    drop(silent);
    assert_eq!(watched.load(), (1, 0));

    drop((feed, replies));
    assert_eq!(watched.load(), (0, 0));
    // A pinned connection is not a call, those that go over it are.
    let pinned = channel.acquire().await.unwrap();
    assert_eq!(watched.load(), (1, 0));
    drop(pinned);
    drop((client, channel, servers));
    leaks.finish().await;
}

#[tokio::test]
async fn no_retry_is_begun_whose_answer_would_come_too_late() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let channel = Connector::endpoints([endpoint(&server).weight(1)])
        .balance(Balance::peak_ewma())
        .retry(quick())
        .no_breaker()
        .connect()
        .await
        .unwrap();
    let hurried = CallOptions::new().timeout(Duration::from_millis(900));
    server.behaviour().fail(1.0, Code::Unavailable);
    let failed = ask(&channel, request(1), hurried).await;
    assert_eq!(failed.unwrap_err().code(), Code::Unavailable);
    assert_eq!(server.journal().times_handled(1), 3, "nothing is known yet");

    server.behaviour().heal();
    let calls = (2..8).map(|id| slow(&channel, id, 1_000));
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    server.behaviour().fail(1.0, Code::Unavailable);
    let failed = ask(&channel, request(8), hurried).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable, "the server's own word");
    assert_eq!(server.journal().times_handled(8), 1);
    let patient = CallOptions::new().timeout(Duration::from_secs(60));
    ask(&channel, request(9), patient).await.unwrap_err();
    assert_eq!(server.journal().times_handled(9), 3);
    drop((channel, server));
    leaks.finish().await;
}
