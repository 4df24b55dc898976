//! Balancing policies of one's own: what they see, what their answers do, and what happens when they break.

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

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use client::calls::{ask, endpoint, unary};
use client::expected::Expected;
use client::told::Told;
use support::calls::request;
use support::leak::LeakCheck;
use support::server::EchoServer;
use support::wait::{wait_equal, wait_until, within};
use tonic::{Code, Status};
use trunkline::{
    Balance, CallOptions, Candidate, Channel, Connector, Pick, PickRequest, Picker, Policy, Retry,
    Stage, State,
};
use trunkline_proto::EchoReply;
use trunkline_proto::echo_client::EchoClient;

const LIMIT: Duration = Duration::from_secs(5);

/// A policy made of one function, which counts its picks and its pickers.
struct Rule<F>(Arc<Inner<F>>);

struct Inner<F> {
    pick: F,
    picks: AtomicU64,
    builds: AtomicU64,
}

/// The picker of one set.
struct Ruled<F> {
    inner: Arc<Inner<F>>,
    candidates: Vec<Candidate>,
}

impl<F: Fn(&[Candidate], &PickRequest<'_>) -> Pick + Send + Sync + 'static> Rule<F> {
    fn new(pick: F) -> Self {
        Self(Arc::new(Inner {
            pick,
            picks: AtomicU64::new(0),
            builds: AtomicU64::new(0),
        }))
    }

    fn balance(&self) -> Balance {
        Balance::custom(Self(Arc::clone(&self.0)))
    }

    fn picks(&self) -> u64 {
        self.0.picks.load(SeqCst)
    }
}

impl<F: Fn(&[Candidate], &PickRequest<'_>) -> Pick + Send + Sync + 'static> Policy for Rule<F> {
    fn name(&self) -> &str {
        "rule"
    }

    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
        assert!(!candidates.is_empty(), "as promised");
        self.0.builds.fetch_add(1, SeqCst);
        Box::new(Ruled {
            inner: Arc::clone(&self.0),
            candidates: candidates.to_vec(),
        })
    }
}

impl<F: Fn(&[Candidate], &PickRequest<'_>) -> Pick + Send + Sync + 'static> Picker for Ruled<F> {
    fn pick(&self, request: &PickRequest<'_>) -> Pick {
        self.inner.picks.fetch_add(1, SeqCst);
        (self.inner.pick)(&self.candidates, request)
    }
}

impl<F> fmt::Debug for Rule<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rule")
    }
}

impl<F> fmt::Debug for Ruled<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ruled")
    }
}

/// A value that a caller attaches to its request.
#[derive(Clone, Copy)]
struct Zone(&'static str);

async fn from_zone(channel: &Channel, zone: &'static str) -> Result<EchoReply, Status> {
    let mut request = tonic::Request::new(request(1));
    request.metadata_mut().insert("zone", zone.parse().unwrap());
    request.extensions_mut().insert(Zone(zone));
    let reply = EchoClient::new(channel.clone()).unary(request).await?;
    Ok(reply.into_inner())
}

/// The endpoint in the caller's own zone, or none.
fn same_zone(candidates: &[Candidate], request: &PickRequest<'_>) -> Pick {
    assert_eq!(request.path(), "/trunkline.echo.v1.Echo/Unary");
    let zone = request.headers()["zone"].to_str().unwrap();
    assert_eq!(request.extensions().get::<Zone>().unwrap().0, zone);
    let near = |candidate: &Candidate| candidate.metadata("zone") == Some(zone);
    match candidates.iter().position(near) {
        Some(index) => Pick::Endpoint(index),
        None => Pick::Wait,
    }
}

#[tokio::test]
async fn a_policy_sees_metadata_weights_and_the_request() {
    let leaks = LeakCheck::start().await;
    let [a, b] = ["a", "b"].map(EchoServer::start_tcp);
    let in_zone = |server: &EchoServer, zone| endpoint(server).metadata("zone", zone).weight(7);
    let rule = Rule::new(|candidates: &[Candidate], request: &PickRequest<'_>| {
        assert!(candidates.iter().all(|it| it.weight() == 7));
        assert_eq!(request.attempt(), 1);
        same_zone(candidates, request)
    });
    let (teller, told) = Told::saying(Ok(vec![in_zone(&a, "east"), in_zone(&b, "west")]));
    let connector = Connector::discover(told).balance(rule.balance());
    let channel = connector.connect().await.unwrap();
    assert_eq!(channel.status().policy, "rule");
    let ready = || {
        let endpoints = channel.status().endpoints;
        endpoints.iter().all(|it| it.state == State::Ready)
    };
    wait_until(LIMIT, ready).await;
    for (zone, name) in [("east", "a"), ("west", "b"), ("west", "b"), ("east", "a")] {
        assert_eq!(from_zone(&channel, zone).await.unwrap().server, name);
    }
    assert_eq!(rule.picks(), 4, "one for each call");

    // They move: the same connections, in another light.
    teller.say([in_zone(&a, "west"), in_zone(&b, "east")]);
    let zone = |at: usize| channel.status().endpoints[at].metadata["zone"].clone();
    wait_until(LIMIT, || zone(0) == "west" && zone(1) == "east").await;
    assert_eq!(from_zone(&channel, "east").await.unwrap().server, "b");
    assert_eq!(from_zone(&channel, "west").await.unwrap().server, "a");
    assert_eq!([&a, &b].map(|server| server.journal().accepted()), [1, 1]);
    // A picker for each set, and none for each call.
    let builds = rule.0.builds.load(SeqCst);
    assert!((2..=6).contains(&builds), "{builds}");
    drop((channel, a, b));
    leaks.finish().await;
}

#[tokio::test]
async fn wait_waits_for_another_set_if_the_call_waits_for_readiness() {
    let leaks = LeakCheck::start().await;
    let [a, b] = ["a", "b"].map(EchoServer::start_tcp);
    let (teller, told) = Told::saying(Ok(vec![endpoint(&a)]));
    let both = Rule::new(|candidates: &[Candidate], _: &PickRequest<'_>| {
        if candidates.len() > 1 {
            Pick::Endpoint(1)
        } else {
            Pick::Wait
        }
    });
    let connector = Connector::discover(told).balance(both.balance());
    let channel = connector.retry(Retry::none()).connect().await.unwrap();
    let message = "the balancing policy found no endpoint fit for the call";
    let expected = Expected::new("no_endpoint", Stage::Pick, message);
    expected.check_calls(&channel, CallOptions::new()).await;
    assert_eq!(both.picks(), 2);

    let waits = CallOptions::new().wait_for_ready(true);
    let expected = Expected {
        code: Code::DeadlineExceeded,
        ..Expected::new(
            "timeout",
            Stage::Pick,
            &format!("*; before that: {message}"),
        )
    };
    let briefly = waits.timeout(Duration::from_millis(50));
    expected.check_calls(&channel, briefly).await;

    let other = channel.clone();
    let waiting = tokio::spawn(async move { ask(&other, request(3), waits).await });
    wait_equal(LIMIT, 5, || both.picks()).await;
    teller.say([endpoint(&a), endpoint(&b)]);
    let served = within(LIMIT, "the waiting call", waiting).await.unwrap();
    assert_eq!(served.unwrap().server, "b");
    assert_eq!(a.journal().started(), 0);
    drop((channel, a, b));
    leaks.finish().await;
}

#[tokio::test]
async fn fail_fails_the_attempt_and_the_retry_rules_go_on_from_there() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let connector = || Connector::endpoints([endpoint(&server)]);
    let fails = |_: &[Candidate], _: &PickRequest<'_>| Pick::Fail("not today".into());
    for (attempts, message) in [(1, "not today"), (3, "not today (after 3 attempts)")] {
        let rule = Rule::new(fails);
        let retry = Retry::exponential().attempts(attempts);
        let connector = connector().balance(rule.balance()).retry(retry);
        let channel = connector.connect().await.unwrap();
        let expected = Expected {
            attempts,
            ..Expected::new("no_endpoint", Stage::Pick, message)
        };
        expected.check_calls(&channel, CallOptions::new()).await;
        // Before a retry it is asked for the endpoint whose answer there has to be time for.
        let retries = u64::from(attempts) - 1;
        assert_eq!(rule.picks(), 2 * (u64::from(attempts) + retries));
    }

    let rule = Rule::new(
        |_: &[Candidate], request: &PickRequest<'_>| match request.attempt() {
            1 => Pick::Fail("not at first".into()),
            _ => Pick::Endpoint(0),
        },
    );
    let channel = connector().balance(rule.balance()).connect().await.unwrap();
    assert_eq!(unary(&channel, 1).await.unwrap().id, 1);
    assert_eq!((rule.picks(), server.journal().started()), (3, 1));
    drop(channel);

    let rule = Rule::new(|_: &[Candidate], _: &PickRequest<'_>| Pick::Endpoint(1));
    let connector = connector().balance(rule.balance()).retry(Retry::none());
    let channel = connector.connect().await.unwrap();
    let message = "the picker chose endpoint 1 of 1";
    let expected = Expected::new("no_endpoint", Stage::Pick, message);
    expected.check_calls(&channel, CallOptions::new()).await;
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn drop_drops_the_call_for_good() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let sheds = Rule::new(|_: &[Candidate], _: &PickRequest<'_>| Pick::Drop("too much".into()));
    let connector = Connector::endpoints([endpoint(&server)]).balance(sheds.balance());
    let channel = connector.connect().await.unwrap();
    let expected = Expected::new("dropped", Stage::Pick, "too much");
    expected.check_calls(&channel, CallOptions::new()).await;
    let waits = CallOptions::new().wait_for_ready(true);
    expected.check_calls(&channel, waits).await;
    assert_eq!((sheds.picks(), server.journal().started()), (4, 0));
    drop((channel, server));
    leaks.finish().await;
}

/// Panics instead of building a picker, from the second endpoint on.
#[derive(Debug)]
struct Breaks;

impl Policy for Breaks {
    fn name(&self) -> &str {
        "breaks"
    }

    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
        assert_eq!(candidates.len(), 1, "the policy is broken");
        Balance::round_robin().build(candidates)
    }
}

/// Panics when there is less to choose from than before.
#[derive(Debug, Default)]
struct BreaksOnLess(Arc<AtomicUsize>);

impl Policy for BreaksOnLess {
    fn name(&self) -> &str {
        "breaks on less"
    }

    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
        let before = self.0.swap(candidates.len(), SeqCst);
        assert!(before <= candidates.len(), "the policy is broken");
        Balance::round_robin().build(candidates)
    }
}

#[tokio::test]
async fn endpoints_that_were_leaving_when_a_policy_panicked_are_closed_too() {
    let leaks = LeakCheck::start().await;
    let [a, b] = ["a", "b"].map(EchoServer::start_tcp);
    let (teller, told) = Told::saying(Ok(vec![endpoint(&a), endpoint(&b)]));
    let seen = Arc::<AtomicUsize>::default();
    let policy = Balance::custom(BreaksOnLess(Arc::clone(&seen)));
    let connector = Connector::discover(told).balance(policy);
    let channel = connector.connect().await.unwrap();
    let open = || [&a, &b].map(|server| server.journal().open());
    wait_equal(LIMIT, [1, 1], open).await;
    wait_equal(LIMIT, 2, || seen.load(SeqCst)).await;
    teller.say([endpoint(&a)]);
    wait_equal(LIMIT, State::Shutdown, || channel.status().state).await;
    wait_equal(LIMIT, [0, 0], open).await;
    drop((channel, teller, a, b));
    leaks.finish().await;
}

#[tokio::test]
async fn a_policy_that_panics_ends_the_channel() {
    let leaks = LeakCheck::start().await;
    let [a, b] = ["a", "b"].map(EchoServer::start_tcp);
    let (teller, told) = Told::saying(Ok(vec![endpoint(&a)]));
    let connector = Connector::discover(told).balance(Balance::custom(Breaks));
    let channel = connector.connect().await.unwrap();
    assert_eq!(unary(&channel, 1).await.unwrap().server, "a");
    let flight = client::calls::slow(&channel, 2, 500);
    wait_equal(LIMIT, 1, || a.journal().in_flight()).await;
    teller.say([endpoint(&a), endpoint(&b)]);
    wait_equal(LIMIT, State::Shutdown, || channel.status().state).await;
    let message = "the channel has ended: its source of endpoints or its balancing policy panicked";
    let expected = Expected::new("closed", Stage::Pick, message);
    let waits = CallOptions::new().wait_for_ready(true).no_timeout();
    expected.check_calls(&channel, waits).await;
    flight.await.unwrap().unwrap();
    for server in [&a, &b] {
        wait_equal(LIMIT, 0, || server.journal().open()).await;
    }
    within(LIMIT, "closing", channel.close(LIMIT)).await;
    drop((channel, a, b));
    leaks.finish().await;
}

#[tokio::test]
async fn a_picker_that_panics_harms_its_own_call_only() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let rule = Rule::new(|_: &[Candidate], request: &PickRequest<'_>| {
        assert!(
            !request.headers().contains_key("zone"),
            "the picker is broken"
        );
        Pick::Endpoint(0)
    });
    let connector = Connector::endpoints([endpoint(&server)]).balance(rule.balance());
    let channel = connector.connect().await.unwrap();
    for id in 1..4 {
        let other = channel.clone();
        let broken = tokio::spawn(async move { from_zone(&other, "east").await });
        assert!(broken.await.unwrap_err().is_panic());
        assert_eq!(unary(&channel, id).await.unwrap().id, id);
    }
    assert_eq!(channel.status().endpoints[0].in_flight, 0);
    drop((channel, server));
    leaks.finish().await;
}
