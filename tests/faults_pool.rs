//! Score card rows 33, 34 and 43: how many connections a burst opens, what a full pool does, and which endpoint gets how
//! many calls.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::time::Duration;

use rows::calls::{call, call_with, request};
use rows::dials::Dials;
use rows::panics::Panics;
use rows::rig::{LIMIT, STREAMS, pool, server, settings, slots_are_free};
use rows::{limit, number};
use support::frames::{code, setting};
use support::journal::duplicates;
use support::leak::LeakCheck;
use support::raw_peer::RawPeer;
use support::reaction::Reaction;
use support::report::Report;
use support::scratch::Scratch;
use support::server::EchoServer;
use support::wait::{wait_equal, wait_until, within};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Status;
use trunkline::{Channel, Connector, Endpoint, Error, Stage};
use trunkline_proto::EchoRequest;

/// A burst on a channel that is not connected yet opens as many connections as its streams need, one by one, and not one
/// for each call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_33_cold_burst() {
    const CALLS: u64 = 1000;
    const STREAMS: usize = 100;
    let leaks = LeakCheck::start().await;
    let panics = Panics::watch();
    let mut report = Report::default();
    let mut dials = Vec::new();
    let mut twice = Vec::new();
    // Slow calls keep their streams for the whole burst, quick ones pass them on.
    for (connections, delay) in [(10, 300), (20, 300), (20, 0), (4, 30)] {
        let server = EchoServer::builder("a")
            .max_concurrent_streams(STREAMS as u32)
            .delay(Duration::from_millis(delay))
            .tcp();
        let dialler = Dials::default();
        let channel = settings(Connector::tcp(server.addr().to_string()))
            .pool(pool().max_connections(connections))
            .timeout(LIMIT)
            .dialer(dialler.clone())
            .connect_lazy()
            .unwrap();
        burst(&channel, (1..=CALLS).map(request), &mut report).await;
        slots_are_free(&channel, STREAMS).await;

        let most = connections.min(CALLS as usize / STREAMS);
        assert!(
            dialler.count() <= most,
            "{} dials, not {most}",
            dialler.count()
        );
        assert_eq!(server.journal().accepted(), dialler.count() as u64);
        assert!(server.journal().peak_in_flight() <= (connections * STREAMS) as u64);
        dials.push(dialler.count() as u64);
        twice.extend(duplicates([server.journal().handled()]));
    }
    let figures = [
        ("calls", report.sent),
        ("dials_slow", dials[1]),
        ("dials_quick", dials[2]),
        ("panics", panics.count()),
    ];
    report.score_with("33", &twice, leaks.leaked().await, None, &figures);
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    // Slow calls do need them all.
    assert_eq!(dials[..2], [10, 10]);
    assert_eq!(panics.count(), 0);
}

/// When all streams are taken, a call waits for as long as it is set to, the next one after the longest queue fails at
/// once, both say why, and no stream is lost by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_34_pool_full() {
    const STREAMS: usize = 2;
    const WAITERS: u64 = 10;
    const WAIT: Duration = Duration::from_millis(200);
    let leaks = LeakCheck::start().await;
    let panics = Panics::watch();
    let server = EchoServer::builder("a")
        .max_concurrent_streams(STREAMS as u32)
        .tcp();
    let small = pool()
        .max_connections(1)
        .max_waiting(WAITERS as usize)
        .wait_timeout(WAIT);
    let connector = settings(Connector::tcp(server.addr().to_string())).pool(small);
    let channel = connector.timeout(LIMIT).connect().await.unwrap();

    let mut holding = JoinSet::new();
    for id in 1..=STREAMS as u64 {
        holding.spawn(call_with(channel.clone(), slow(id, 1000)));
    }
    wait_equal(LIMIT, STREAMS as u64, || server.journal().in_flight()).await;
    let mut waiting = JoinSet::new();
    for id in 10..10 + WAITERS {
        let channel = channel.clone();
        waiting.spawn(async move {
            let began = Instant::now();
            let error = pool_wait(call(channel, id).await);
            assert!(error.contains("pool.wait_timeout"), "{error}");
            began.elapsed()
        });
    }
    wait_equal(LIMIT, WAITERS as usize, || {
        channel.status().endpoints[0].waiting
    })
    .await;
    for id in 30..35 {
        let error = pool_wait(call(channel.clone(), id).await);
        assert!(error.contains("pool.max_waiting"), "{error}");
    }
    let waited = waiting.join_all().await;
    let shortest = *waited.iter().min().unwrap();
    let longest = *waited.iter().max().unwrap();
    let mut report = Report::default();
    for (id, result) in (1..).zip(holding.join_all().await) {
        report.count(id, result.map(drop));
    }
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert_eq!(
        server.journal().started(),
        STREAMS as u64,
        "no waiter was sent"
    );
    slots_are_free(&channel, STREAMS).await;

    // Streams become free while waiters give up, again and again.
    let mut crowd = JoinSet::new();
    let begun = channel.stats().calls;
    for id in 100..200 {
        let call = call_with(channel.clone(), slow(id, 40));
        crowd.spawn(async move { (id, call.await.map(drop)) });
        wait_until(LIMIT, || channel.stats().calls == begun + id - 99).await;
        wait_until(LIMIT, || {
            channel.status().endpoints[0].waiting < WAITERS as usize
        })
        .await;
    }
    let mut gave_up = 0;
    for (id, result) in crowd.join_all().await {
        if result.is_ok() {
            report.count(id, result);
        } else {
            pool_wait(result);
            gave_up += 1;
        }
    }
    slots_are_free(&channel, STREAMS).await;
    burst(&channel, (300..300 + WAITERS).map(request), &mut report).await;
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert_eq!(server.journal().peak_in_flight(), STREAMS as u64);

    drop(channel);
    let twice = duplicates([server.journal().handled()]);
    drop(server);
    let figures = [
        ("shortest_wait_ms", shortest.as_millis() as u64),
        ("longest_wait_ms", longest.as_millis() as u64),
        ("gave_up", gave_up),
        ("panics", panics.count()),
    ];
    report.score_with("34", &twice, leaks.leaked().await, None, &figures);
    assert!(shortest >= WAIT, "{shortest:?}");
    assert!(
        longest <= WAIT + limit(Duration::from_millis(20)),
        "{longest:?}"
    );
    assert_eq!(panics.count(), 0);
}

/// Calls that wait for a stream when their connection is retired move to the next one. Each has its turn there, however
/// long it took to notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_calls_follow_to_the_next_connection() {
    const CALLS: u64 = 500;
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let streams = [(setting::MAX_CONCURRENT_STREAMS, 8)];
    let peer = RawPeer::unix(scratch.path("peer.sock")).serve(&streams, |request| {
        let echo = Reaction::echo(request, "peer").after(Duration::from_millis(1));
        if request.connection < 3 && request.nth_on_connection == 20 {
            // Those above are looked at by nobody.
            return echo.after_goaway(request.stream, code::NO_ERROR, "");
        }
        echo
    });
    let connector = settings(Connector::unix(peer.path())).pool(pool().max_connections(1));
    let channel = connector.timeout(LIMIT * 2).connect().await.unwrap();
    let mut report = Report::default();
    burst(&channel, (1..=CALLS).map(request), &mut report).await;
    assert!(
        report.failed.is_empty(),
        "{} of {CALLS}: {:?}",
        report.failed.len(),
        report.failed[0]
    );
    assert_eq!(peer.seen().connections(), 4);
    slots_are_free(&channel, 8).await;
    drop((channel, peer));
    leaks.finish().await;
}

/// Weights hold at the servers, in their order and in sum.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_43_weights() {
    const CALLERS: u64 = 50;
    let leaks = LeakCheck::start().await;
    let panics = Panics::watch();
    let servers = ["a", "b", "c"].map(|name| server(name, Duration::ZERO));
    let endpoints = servers.iter().zip([5, 1, 1]);
    let endpoints = endpoints.map(|(server, weight)| Endpoint::uri(server.uri()).weight(weight));
    let channel = settings(Connector::endpoints(endpoints))
        .connect()
        .await
        .unwrap();
    let connected = || {
        channel
            .status()
            .endpoints
            .iter()
            .all(|it| it.connections == 1)
    };
    wait_until(LIMIT, connected).await;
    // The set that has them all is published once calls reach them all.
    let mut ids = 1..;
    let all_reached = || servers.iter().all(|server| server.journal().started() > 0);
    while !all_reached() {
        call(channel.clone(), ids.next().unwrap()).await.unwrap();
    }

    let calls = number("TRUNKLINE_PICKS", 7_000);
    let started = || servers.each_ref().map(|server| server.journal().started());
    let mut report = Report::default();
    let before = started();
    // One caller's calls are interleaved.
    let (mut last, mut run, mut longest_run) = (String::new(), 0, 0);
    for id in ids.by_ref().take(calls as usize / 2) {
        let reply = call_with(channel.clone(), request(id)).await;
        if let Ok(reply) = &reply {
            run = if reply.server == last { run + 1 } else { 1 };
            last.clone_from(&reply.server);
            longest_run = longest_run.max(run);
        }
        report.count(id, reply.map(drop));
    }
    // Those of many add up.
    let first = ids.next().unwrap();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let channel = channel.clone();
        callers.spawn(async move {
            let mut results = Vec::new();
            for nth in 0..calls / 2 / CALLERS {
                let id = first + nth * CALLERS + caller;
                results.push((id, call(channel.clone(), id).await));
            }
            results
        });
    }
    for (id, result) in callers.join_all().await.into_iter().flatten() {
        report.count(id, result);
    }
    let counts: Vec<_> = started()
        .iter()
        .zip(before)
        .map(|(now, before)| now - before)
        .collect();

    slots_are_free(&channel, STREAMS).await;
    drop(channel);
    let twice = duplicates(servers.each_ref().map(|server| server.journal().handled()));
    drop(servers);
    let figures = [
        ("a", counts[0]),
        ("b", counts[1]),
        ("c", counts[2]),
        ("longest_run", longest_run),
        ("panics", panics.count()),
    ];
    report.score_with("43", &twice, leaks.leaked().await, None, &figures);
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    for (count, weight) in counts.iter().zip([5, 1, 1]) {
        let share = report.sent * weight / 7;
        assert!(
            count.abs_diff(share) * 100 <= share,
            "{counts:?} of {}",
            report.sent
        );
    }
    assert!(longest_run <= 5, "{longest_run} in a row");
    assert_eq!(panics.count(), 0);
}

/// A request that the server answers after so many milliseconds.
fn slow(id: u64, millis: u32) -> EchoRequest {
    EchoRequest {
        delay_ms: millis,
        ..request(id)
    }
}

/// All of these calls at once.
async fn burst(
    channel: &Channel,
    requests: impl Iterator<Item = EchoRequest>,
    report: &mut Report,
) {
    let mut calls = JoinSet::new();
    for request in requests {
        let (id, call) = (request.id, call_with(channel.clone(), request));
        calls.spawn(async move { (id, call.await.map(drop)) });
    }
    for (id, result) in within(LIMIT * 2, "a burst", calls.join_all()).await {
        report.count(id, result);
    }
}

/// The text of the error of a call that found no free stream, and so was never sent.
fn pool_wait(result: Result<(), Status>) -> String {
    let status = result.unwrap_err();
    let error = Error::from_status(&status).expect("the channel's error");
    assert!(
        error.is_pool_wait() && !error.maybe_processed(),
        "{error:?}"
    );
    assert_eq!(error.stage(), Some(Stage::Pool));
    error.to_string()
}
