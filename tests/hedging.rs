//! Calls that are sent to several endpoints at the same time. Counted at the servers.

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

use client::calls::{ask, endpoint, raw, slow, unary};
use client::first::{First, Once};
use client::pair::quick;
use support::calls::request;
use support::leak::LeakCheck;
use support::server::{EchoServer, EchoServerBuilder};
use support::wait::{wait_equal, within};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use trunkline::{
    Balance, BudgetLimits, CallOptions, Channel, ConcurrencyLimits, Connector, Error, Hedge,
    History, PoolOptions, Retry,
};
use trunkline_proto::EchoRequest;
use trunkline_proto::echo_client::EchoClient;

const LIMIT: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(10);

/// Calls go to the first server first.
struct Two {
    channel: Channel,
    servers: [EchoServer; 2],
    leaks: LeakCheck,
}

impl Two {
    async fn start(hedge: Hedge, adjust: impl FnOnce(Connector) -> Connector) -> Self {
        Self::of(["a", "b"].map(EchoServer::builder), hedge, adjust).await
    }

    async fn of(
        servers: [EchoServerBuilder; 2],
        hedge: Hedge,
        adjust: impl FnOnce(Connector) -> Connector,
    ) -> Self {
        let leaks = LeakCheck::start().await;
        let servers = servers.map(EchoServerBuilder::tcp);
        let first = First::default();
        let connector = Connector::endpoints(servers.each_ref().map(endpoint))
            .balance(Balance::custom(first.clone()))
            .retry(quick().idempotent(true))
            .hedge(hedge)
            .no_breaker();
        let channel = adjust(connector).connect().await.unwrap();
        wait_equal(LIMIT, 2, || first.candidates()).await;
        Self {
            channel,
            servers,
            leaks,
        }
    }

    /// Times that each server began to handle the call.
    fn times(&self, id: u64) -> [u64; 2] {
        self.servers
            .each_ref()
            .map(|it| it.journal().times_handled(id))
    }

    fn hedges(&self) -> (u64, u64) {
        let stats = self.channel.stats();
        assert_eq!(stats.retries, 0);
        (stats.hedges, stats.hedges_won)
    }

    /// All that was begun has ended, at both ends; so many times because it was given up.
    async fn settled(&self, cancelled: [u64; 2]) {
        let seen = || self.servers.each_ref().map(|it| it.journal().cancelled());
        wait_equal(LIMIT, cancelled, seen).await;
        let running = || -> u64 { self.servers.iter().map(|it| it.journal().in_flight()).sum() };
        wait_equal(LIMIT, 0, running).await;
        let held = || -> usize {
            let endpoints = self.channel.status().endpoints;
            endpoints.iter().map(|it| it.in_flight).sum()
        };
        wait_equal(LIMIT, 0, held).await;
    }

    async fn finish(self) {
        drop((self.channel, self.servers));
        self.leaks.finish().await;
    }
}

#[tokio::test]
async fn a_slow_endpoint_is_not_felt_and_the_loser_is_cancelled() {
    let two = Two::start(Hedge::after(SOON), |it| it).await;
    two.servers[0].behaviour().set_delay(HOUR);
    let response = two.channel.send(raw(1, CallOptions::new())).await.unwrap();
    let history = response.extensions().get::<History>().unwrap();
    let lost: Vec<_> = history.iter().map(|it| (it.code(), it.counted())).collect();
    assert_eq!(lost, [(Code::Cancelled, true)]);
    assert!(
        history[0]
            .endpoint()
            .unwrap()
            .ends_with(&two.servers[0].addr().to_string())
    );
    drop(response);
    assert_eq!(unary(&two.channel, 2).await.unwrap().server, "b");
    assert_eq!((two.times(1), two.times(2)), ([1, 1], [1, 1]));
    assert_eq!(two.hedges(), (2, 2));
    two.settled([2, 0]).await;
    let endpoints = two.channel.status().endpoints;
    assert_eq!(endpoints[0].failed, 0, "it did nothing wrong");
    two.finish().await;
}

#[tokio::test]
async fn fast_answers_and_calls_that_must_not_run_twice_are_not_hedged() {
    let two = Two::start(Hedge::after(HOUR), |it| it).await;
    for id in 0..20 {
        assert_eq!(unary(&two.channel, id).await.unwrap().server, "a");
    }
    assert_eq!(two.servers[1].journal().started(), 0);
    two.finish().await;

    let two = Two::start(Hedge::after(SOON), |it| it).await;
    two.servers[0]
        .behaviour()
        .set_delay(Duration::from_millis(100));
    let once = CallOptions::new().idempotent(false);
    assert_eq!(
        ask(&two.channel, request(1), once).await.unwrap().server,
        "a"
    );
    assert_eq!((two.times(1), two.hedges()), ([1, 0], (0, 0)));
    two.finish().await;
}

#[tokio::test]
async fn hedges_keep_to_the_budget() {
    let limits = BudgetLimits::default().ratio(0.1).min_per_second(0);
    let two = Two::start(Hedge::after(SOON), |it| it.retry_budget(limits)).await;
    for server in &two.servers {
        server.behaviour().set_delay(Duration::from_millis(50));
    }
    let calls = (0..100).map(|id| {
        let channel = two.channel.clone();
        tokio::spawn(async move { unary(&channel, id).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    let (hedges, _) = two.hedges();
    assert!((1..=10).contains(&hedges), "{hedges}");
    let started: u64 = two.servers.iter().map(|it| it.journal().started()).sum();
    // One that lost just after it was sent may never be begun there.
    assert!((101..=100 + hedges).contains(&started), "{started}");
    two.finish().await;
}

#[tokio::test]
async fn failures_bring_the_next_at_once_or_end_the_call() {
    let two = Two::start(Hedge::after(HOUR), |it| it).await;
    two.servers[0].behaviour().fail(1.0, Code::Unavailable);
    assert_eq!(unary(&two.channel, 1).await.unwrap().server, "b");
    two.servers[1].behaviour().fail(1.0, Code::Unavailable);
    let failed = unary(&two.channel, 2).await.unwrap_err();
    assert_eq!(
        (failed.code(), failed.message()),
        (Code::Unavailable, "asked to fail")
    );
    assert_eq!((two.times(1), two.times(2)), ([1, 1], [1, 1]));
    // What the server forbids.
    two.servers[0].behaviour().set_pushback(Some("-1"));
    unary(&two.channel, 3).await.unwrap_err();
    assert_eq!(two.times(3), [1, 0]);
    // Or wants later.
    two.servers[0].behaviour().set_pushback(Some("20"));
    two.servers[1].behaviour().heal();
    assert_eq!(unary(&two.channel, 4).await.unwrap().server, "b");
    two.servers[0].behaviour().set_pushback(Some("250000"));
    unary(&two.channel, 5).await.unwrap_err();
    assert_eq!(two.times(5), [1, 0], "that is after the deadline");
    // What is no better elsewhere.
    two.servers[0].behaviour().set_pushback(None);
    two.servers[0].behaviour().fail(1.0, Code::NotFound);
    assert_eq!(
        unary(&two.channel, 6).await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(two.times(6), [1, 0]);
    two.finish().await;

    let two = Two::start(Hedge::after(SOON), |it| it).await;
    two.servers[0].behaviour().set_delay(HOUR);
    two.servers[1].behaviour().fail(1.0, Code::NotFound);
    assert_eq!(
        unary(&two.channel, 1).await.unwrap_err().code(),
        Code::NotFound
    );
    two.settled([1, 0]).await;
    two.finish().await;
}

#[tokio::test]
async fn a_call_that_is_dropped_or_late_takes_all_its_attempts_along() {
    let two = Two::start(Hedge::after(SOON), |it| it).await;
    for server in &two.servers {
        server.behaviour().set_delay(HOUR);
    }
    let call = slow(&two.channel, 1, 0);
    wait_equal(LIMIT, [1, 1], || two.times(1)).await;
    call.abort();
    two.settled([1, 1]).await;
    let hurried = CallOptions::new().timeout(Duration::from_millis(300));
    let late = ask(&two.channel, request(2), hurried).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert_eq!(Error::from_status(&late).unwrap().attempts(), 2);
    assert_eq!(two.times(2), [1, 1]);
    two.settled([2, 2]).await;
    two.finish().await;
}

#[tokio::test]
async fn a_request_that_is_still_being_made_goes_to_both() {
    let two = Two::start(Hedge::after(SOON), |it| it).await;
    two.servers[0].behaviour().set_delay(HOUR);
    let (feed, messages) = mpsc::channel(1);
    let mut client = EchoClient::new(two.channel.clone());
    let call =
        tokio::spawn(async move { client.client_stream(ReceiverStream::new(messages)).await });
    feed.send(request(1)).await.unwrap();
    wait_equal(LIMIT, [1, 1], || two.times(1)).await;
    for _ in 0..3 {
        feed.send(request(1)).await.unwrap();
    }
    drop(feed);
    let reply = within(LIMIT, "the reply", call)
        .await
        .unwrap()
        .unwrap()
        .into_inner();
    assert_eq!(
        (reply.server.as_str(), reply.payload.len()),
        ("b", 4 * b"payload".len())
    );
    two.settled([1, 0]).await;
    two.finish().await;

    // One that is not kept is sent once.
    let two = Two::start(Hedge::after(SOON), |it| {
        it.retry(Retry::exponential().idempotent(true).replay_buffer(0))
    })
    .await;
    let large = EchoRequest {
        payload: vec![7; 1000],
        delay_ms: 100,
        ..request(1)
    };
    let reply = ask(&two.channel, large, CallOptions::new()).await.unwrap();
    assert_eq!((reply.server.as_str(), two.times(1)), ("a", [1, 0]));
    two.finish().await;
}

/// What failed must not hold what the next one waits for.
#[tokio::test]
async fn attempts_that_failed_leave_room_for_the_next() {
    let limits = ConcurrencyLimits::new().per_channel(1).max_waiting(0);
    let two = Two::start(Hedge::after(HOUR), |it| it.concurrency(limits)).await;
    two.servers[0].behaviour().fail(1.0, Code::Unavailable);
    assert_eq!(unary(&two.channel, 1).await.unwrap().server, "b");
    two.finish().await;
}

/// One that still waits for a stream when another is answered was nowhere.
#[tokio::test]
async fn attempts_that_were_not_sent_are_no_part_of_the_past() {
    let [a, b] = ["a", "b"].map(EchoServer::builder);
    let servers = [a, b.max_concurrent_streams(1)];
    let one = PoolOptions::new().max_connections(1);
    let two = Two::of(servers, Hedge::after(SOON), |it| it.pool(one)).await;
    for server in &two.servers {
        server.behaviour().set_delay(HOUR);
    }
    let held = slow(&two.channel, 1, 0);
    wait_equal(LIMIT, [1, 1], || two.times(1)).await;
    two.servers[0]
        .behaviour()
        .set_delay(Duration::from_millis(100));
    let response = two.channel.send(raw(2, CallOptions::new())).await.unwrap();
    assert!(response.extensions().get::<History>().is_none());
    drop(response);
    held.abort();
    two.settled([1, 1]).await;
    assert_eq!((two.times(2), two.hedges()), ([1, 0], (1, 0)));
    two.finish().await;
}

/// Whatever failures are repeated: a hedge that went nowhere ends none that is on its way.
#[tokio::test]
async fn a_hedge_without_an_endpoint_harms_nobody() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    server.behaviour().set_delay(Duration::from_millis(100));
    let channel = Connector::endpoints([endpoint(&server)])
        .balance(Balance::custom(Once))
        .retry(quick().idempotent(true).codes([Code::Aborted]))
        .hedge(Hedge::after(SOON))
        .connect()
        .await
        .unwrap();
    assert_eq!(unary(&channel, 1).await.unwrap().server, "a");
    drop((channel, server));
    leaks.finish().await;
}

/// A server named a time, and another one fails before.
#[tokio::test]
async fn no_other_failure_cuts_the_wait_short_that_a_server_asked_for() {
    let hedge = Hedge::after(SOON).attempts(3);
    let two = Two::start(hedge, |it| it).await;
    let [a, b] = two.servers.each_ref().map(EchoServer::behaviour);
    a.set_delay(Duration::from_millis(100));
    a.fail(1.0, Code::Unavailable);
    b.fail(1.0, Code::Unavailable);
    b.set_pushback(Some("250000"));
    unary(&two.channel, 1).await.unwrap_err();
    assert_eq!(two.times(1), [1, 1]);
    two.finish().await;
}

#[tokio::test]
async fn the_delay_is_learned() {
    let two = Two::start(Hedge::percentile(0.95), |it| it).await;
    for id in 0..100 {
        assert_eq!(unary(&two.channel, id).await.unwrap().server, "a");
    }
    two.servers[0].behaviour().set_delay(HOUR);
    assert_eq!(unary(&two.channel, 200).await.unwrap().server, "b");
    two.finish().await;
}

#[test]
fn bad_settings_are_named() {
    let connector = || Connector::tcp("127.0.0.1:1");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _guard = runtime.enter();
    for (connector, field) in [
        (
            connector().hedge(Hedge::after(Duration::ZERO)),
            "hedge.after: ",
        ),
        (connector().hedge_for("a/b/c", Hedge::none()), "hedge_for: "),
        (
            connector().hedge_for("a.B", Hedge::percentile(2.0)),
            "hedge_for(\"a.B\").percentile: ",
        ),
    ] {
        let error = connector.connect_lazy().unwrap_err();
        assert!(error.to_string().starts_with(field), "{error}");
    }
}
