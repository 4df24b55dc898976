//! Limits on the calls that are in flight at once.

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

use client::calls::{ask, endpoint, hang, slow, unary};
use client::first::First;
use client::told::Told;
use support::calls::request;
use support::leak::LeakCheck;
use support::server::EchoServer;
use support::wait::{wait_equal, within};
use tonic::Code;
use trunkline::{Balance, CallOptions, Channel, ConcurrencyLimits, Connector, PoolOptions, Retry};

const LIMIT: Duration = Duration::from_secs(20);

async fn connect(servers: &[EchoServer], limits: ConcurrencyLimits) -> Channel {
    let connector = Connector::endpoints(servers.iter().map(endpoint)).concurrency(limits);
    let channel = connector.retry(Retry::none()).connect().await.unwrap();
    let count = servers.len();
    let ready = || {
        let all = channel.status().endpoints;
        all.iter().filter(|it| it.share == 1.0).count()
    };
    wait_equal(LIMIT, count, ready).await;
    channel
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn never_more_are_in_flight_and_all_are_answered() {
    let leaks = LeakCheck::start().await;
    for (limits, each, all) in [
        (ConcurrencyLimits::new().per_endpoint(3), 3, 9),
        (ConcurrencyLimits::new().per_channel(4), 4, 4),
        (
            ConcurrencyLimits::new().per_endpoint(2).per_channel(5),
            2,
            5,
        ),
    ] {
        let servers = ["a", "b", "c"].map(EchoServer::start_tcp);
        let channel = connect(&servers, limits).await;
        let calls: Vec<_> = (1..=300).map(|id| slow(&channel, id, 5)).collect();
        for call in calls {
            within(LIMIT, "a call", call).await.unwrap().unwrap();
        }
        let peaks = servers.each_ref().map(|it| it.journal().peak_in_flight());
        assert!(peaks.iter().all(|peak| *peak <= each), "{peaks:?}");
        assert!(
            peaks.iter().sum::<u64>() >= all.min(each * 3).min(all),
            "{peaks:?}"
        );
        let handled: u64 = servers.iter().map(|it| it.journal().finished()).sum();
        assert_eq!(handled, 300);
        drop((channel, servers));
    }
    leaks.finish().await;
}

/// One server hangs, and is at its limit. The calls go to the other one.
#[tokio::test]
async fn an_endpoint_at_its_limit_is_passed_over() {
    let leaks = LeakCheck::start().await;
    let servers = ["a", "b"].map(EchoServer::start_tcp);
    let channel = connect(&servers, ConcurrencyLimits::new().per_endpoint(1)).await;
    let held = hang(&channel, 1);
    wait_equal(LIMIT, 1, || {
        servers.iter().map(|it| it.journal().in_flight()).sum()
    })
    .await;
    let busy = servers
        .iter()
        .position(|it| it.journal().in_flight() == 1)
        .unwrap();
    for id in 2..=50 {
        let reply = within(LIMIT, "a call", unary(&channel, id)).await.unwrap();
        assert_ne!(reply.server, servers[busy].name());
    }
    held.abort();
    let _ = held.await;
    drop((channel, servers));
    leaks.finish().await;
}

/// Those that wait are few, may give up, and are served when there is room.
#[tokio::test]
async fn the_queue_has_a_limit_and_places_are_given_back() {
    let leaks = LeakCheck::start().await;
    let limits = ConcurrencyLimits::new().max_waiting(1);
    for limits in [limits.clone().per_endpoint(1), limits.per_channel(1)] {
        let servers = [EchoServer::start_tcp("a")];
        let channel = connect(&servers, limits).await;
        let held = hang(&channel, 1);
        wait_equal(LIMIT, 1, || servers[0].journal().in_flight()).await;

        let briefly = CallOptions::new().timeout(Duration::from_millis(50));
        let late = ask(&channel, request(2), briefly).await.unwrap_err();
        assert_eq!(late.code(), Code::DeadlineExceeded);
        let message = "the deadline of 50ms passed while waiting for room";
        assert!(late.message().starts_with(message), "{}", late.message());

        // Cancelled while it waits; its place is the next one's.
        let cancelled = slow(&channel, 3, 0);
        tokio::task::yield_now().await;
        cancelled.abort();
        let _ = cancelled.await;

        let waiting = slow(&channel, 4, 0);
        tokio::task::yield_now().await;
        let full = within(LIMIT, "a call", unary(&channel, 5))
            .await
            .unwrap_err();
        assert_eq!(full.code(), Code::Unavailable);
        assert!(
            full.message().contains("concurrency.max_waiting"),
            "{}",
            full.message()
        );

        held.abort();
        let _ = held.await;
        assert_eq!(within(LIMIT, "it", waiting).await.unwrap().unwrap().id, 4);
        drop((channel, servers));
    }
    leaks.finish().await;
}

/// The one whose turn it was has an endpoint, and waits there for a stream. What becomes free is the next one's.
#[tokio::test]
async fn who_waits_for_a_stream_takes_no_word_of_room() {
    let leaks = LeakCheck::start().await;
    let [a, b] = ["a", "b"].map(EchoServer::builder);
    let servers = [a.max_concurrent_streams(1).tcp(), b.tcp()];
    let first = First::default();
    let channel = Connector::endpoints(servers.each_ref().map(endpoint))
        .concurrency(ConcurrencyLimits::new().per_endpoint(2))
        .balance(Balance::custom(first.clone()))
        .pool(PoolOptions::new().max_connections(1).wait_timeout(LIMIT))
        .retry(Retry::none())
        .connect()
        .await
        .unwrap();
    wait_equal(LIMIT, 2, || first.candidates()).await;
    // The last of them waits for the first server's stream: the second server is at its limit.
    let [streams, there, other, waiting] = [1, 2, 3, 4].map(|id| hang(&channel, id));
    let running = || servers.each_ref().map(|it| it.journal().in_flight());
    wait_equal(LIMIT, [1, 2], running).await;
    let next = hang(&channel, 5);
    tokio::task::yield_now().await;
    waiting.abort();
    let _ = waiting.await;
    // It has its place now.
    for _ in 0..5 {
        tokio::task::yield_now().await;
    }
    let last = slow(&channel, 6, 0);
    tokio::task::yield_now().await;
    there.abort();
    let reply = within(LIMIT, "the last", last).await.unwrap().unwrap();
    assert_eq!(reply.server, "b");
    assert!(!next.is_finished());
    for call in [streams, other, next] {
        call.abort();
        let _ = call.await;
    }
    drop((channel, servers));
    leaks.finish().await;
}

/// A call is in flight once an endpoint has it.
#[tokio::test]
async fn who_waits_for_readiness_is_in_nobodys_way() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let (teller, told) = Told::saying(Ok(vec![endpoint(&server).weight(0)]));
    let channel = Connector::discover(told)
        .concurrency(ConcurrencyLimits::new().per_channel(1).max_waiting(1))
        .retry(Retry::none())
        .connect_lazy()
        .unwrap();
    wait_equal(LIMIT, 1, || channel.status().endpoints.len()).await;
    let waits = CallOptions::new().wait_for_ready(true);
    let calls = (1..=3).map(|id| {
        let channel = channel.clone();
        tokio::spawn(async move { ask(&channel, request(id), waits).await })
    });
    let calls: Vec<_> = calls.collect();
    tokio::task::yield_now().await;
    let fails = within(LIMIT, "a call", unary(&channel, 4)).await;
    let message = fails.unwrap_err().message().to_owned();
    assert!(
        message.starts_with("all endpoints are drained"),
        "{message}"
    );
    teller.say([endpoint(&server)]);
    let mut answered = 0;
    for call in calls {
        answered += u32::from(within(LIMIT, "a call", call).await.unwrap().is_ok());
    }
    assert!(answered >= 2, "one in flight, one waiting: {answered}");
    drop((channel, server));
    leaks.finish().await;
}

/// The streams of one server are all taken for long. Calls that come to it in turn go to the other one, and wait there
/// if they must; once all streams of both are taken, calls wait for the first.
#[tokio::test]
async fn calls_do_not_wait_for_a_stream_while_another_endpoint_has_one() {
    let leaks = LeakCheck::start().await;
    let server = |name| EchoServer::builder(name).max_concurrent_streams(2).tcp();
    let servers = ["a", "b"].map(server);
    let connector = Connector::endpoints(servers.iter().map(endpoint))
        .pool(PoolOptions::new().max_connections(1))
        .balance(Balance::round_robin());
    let channel = connector.retry(Retry::none()).connect().await.unwrap();
    let in_flight = || servers.each_ref().map(|it| it.journal().in_flight());
    let ready = || {
        let all = channel.status().endpoints;
        all.iter().filter(|it| it.free_streams == 2).count()
    };
    wait_equal(LIMIT, 2, ready).await;

    // In turn: one to each, and the streams of both are half taken. Then those of the first are.
    let mut held: Vec<_> = (1..=2).map(|id| hang(&channel, id)).collect();
    wait_equal(LIMIT, [1, 1], in_flight).await;
    held.push(hang(&channel, 3));
    wait_equal(LIMIT, 3, || in_flight().iter().sum()).await;
    let taken = in_flight().iter().position(|it| *it == 2).unwrap();
    for id in 10..30 {
        let reply = within(LIMIT, "a call", unary(&channel, id)).await.unwrap();
        assert_ne!(reply.server, servers[taken].name());
    }

    // Nowhere is a stream free now.
    held.push(hang(&channel, 4));
    wait_equal(LIMIT, [2, 2], in_flight).await;
    let waiting = slow(&channel, 5, 0);
    let waits = || channel.status().endpoints.iter().map(|it| it.waiting).sum();
    wait_equal(LIMIT, 1_usize, waits).await;
    for call in held {
        call.abort();
        let _ = call.await;
    }
    assert_eq!(within(LIMIT, "it", waiting).await.unwrap().unwrap().id, 5);
    drop((channel, servers));
    leaks.finish().await;
}
