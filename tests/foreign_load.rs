//! Load on a grpcio server that retires its connections all the time and allows few streams on each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod foreign;
mod rows;
mod support;

use std::time::Duration;

use foreign::server::GrpcioServer;
use rows::calls::{call_with, request};
use rows::panics::Panics;
use rows::rig::{LIMIT, SINGLE_IDS, slots_are_free};
use support::leak::LeakCheck;
use support::load::Load;
use support::scratch::Scratch;
use support::wait::wait_until;
use tonic::Status;
use trunkline::{Channel, Connector, Error, Retry, State};
use trunkline_proto::EchoRequest;

/// The streams of one connection. 250 calls/s of 40 ms are as many at once, so the first connection is always full.
const STREAMS: u64 = 10;
const HANDLER_MS: u32 = 40;

/// The age at which gRPC's core sends GOAWAY, give or take a tenth; it closes when the calls are through, at the latest
/// when the grace is.
const AGE: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(5);

/// The share of each channel in the load of 500 calls/s.
const RATE: f64 = 250.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_foreign_tcp() {
    let leaks = LeakCheck::start().await;
    let server = GrpcioServer::tcp(&options());
    row("foreign_tcp", server, leaks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_foreign_unix() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let server = GrpcioServer::unix(&scratch.path("a.sock"), &options());
    row("foreign_unix", server, leaks).await;
}

fn options() -> [(&'static str, u64); 3] {
    [
        ("grpc.max_concurrent_streams", STREAMS),
        ("grpc.max_connection_age_ms", AGE.as_millis() as u64),
        ("grpc.max_connection_age_grace_ms", GRACE.as_millis() as u64),
    ]
}

/// No call is handled twice, the server says so too, and none fails. In a short run, which shares a busy machine with
/// others, one may that was refused again and again: when the core is slow, it counts streams whose end was sent, and
/// refuses those of a client that keeps the limit (`streams_allocated` in its `parsing.cc`).
async fn row(name: &str, server: GrpcioServer, leaks: LeakCheck) {
    let tcp = server.uri().starts_with("http:");
    let panics = Panics::watch();
    let idempotent = connect(&server, Retry::exponential().idempotent(true)).await;
    let single = connect(&server, Retry::default()).await;
    let duration = rows::duration();
    let start = |channel: &Channel, first_id| {
        let channel = channel.clone();
        let load = Load::new(RATE).duration(duration).first_id(first_id);
        load.start(move |id| call(channel.clone(), id))
    };
    let loads = (start(&idempotent, 1), start(&single, SINGLE_IDS));
    let reports = (loads.0.finish().await, loads.1.finish().await);

    for channel in [&idempotent, &single] {
        slots_are_free(channel, STREAMS as usize).await;
    }
    let opened = opened(&idempotent) + opened(&single);
    let stats = [idempotent.stats(), single.stats()];
    let retries = stats.iter().map(|it| it.retries).sum();
    let resends = stats.iter().map(|it| it.resends).sum();
    let handled = server.handled().await;
    idempotent.close(Duration::from_secs(1)).await;
    drop((idempotent, single));
    let status = server.stop().await;
    let leak = leaks.leaked().await;

    let failed_idempotent = reports.0.failed.len() as u64;
    let report = reports.0.joined(reports.1);
    let refused = report.failed.len() as u64;
    let figures = [
        ("failed_idempotent", failed_idempotent),
        ("calls", report.sent),
        ("handled", handled.calls),
        ("connections", opened),
        ("peers", handled.peers),
        ("peak", handled.peak),
        ("retries", retries),
        ("resends", resends),
        ("p99_ms", report.latency(0.99).as_millis() as u64),
        ("panics", panics.count()),
    ];
    report.score_with(name, &handled.twice, leak, None, &figures);
    for failure in &report.failed {
        let error = Error::from_status(&failure.status).expect("the channel's error");
        assert!(error.is_refused() && !error.maybe_processed(), "{error:?}");
    }
    assert!(!rows::is_strict() || refused == 0, "{:?}", report.failed);
    assert_eq!(report.ok + refused, (500.0 * duration.as_secs_f64()) as u64);
    assert_eq!((handled.calls, handled.ids), (report.ok, report.ok));
    // Twice as many as that when all goes as planned: there are two channels.
    let retired = duration.as_secs() / AGE.as_secs();
    assert!(opened > retired, "{opened} connections");
    assert!(!tcp || handled.peers > retired, "{} peers", handled.peers);
    assert_eq!(panics.count(), 0);
    assert!(status.success(), "the server ended with {status}");
}

/// A channel with default settings, but for the deadline and the retries.
async fn connect(server: &GrpcioServer, retry: Retry) -> Channel {
    let connector = Connector::target(server.uri()).retry(retry);
    let channel = connector.timeout(Duration::from_secs(1)).connect_lazy();
    let channel = channel.unwrap();
    wait_until(LIMIT, || channel.status().state == State::Ready).await;
    channel
}

async fn call(channel: Channel, id: u64) -> Result<(), Status> {
    let request = EchoRequest {
        delay_ms: HANDLER_MS,
        ..request(id)
    };
    call_with(channel, request).await.map(drop)
}

fn opened(channel: &Channel) -> u64 {
    channel.status().endpoints[0].connection_attempts_succeeded
}
