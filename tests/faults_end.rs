//! Score card rows 56 and 57: the end of a channel, and of its runtime.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use rows::calls::{call, call_with, request};
use rows::limit;
use rows::panics::Panics;
use rows::rig::{LIMIT, Rig, pool, server, settings};
use rows::stall::{Stage, Stall};
use support::journal::duplicates;
use support::leak::LeakCheck;
use support::place::Place;
use support::report::Report;
use support::server::EchoServer;
use support::wait::{wait_equal, wait_until, within};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tonic::{Code, Status};
use trunkline::{Channel, Connector, Error, State};
use trunkline_proto::EchoRequest;
use trunkline_proto::echo_client::EchoClient;

/// Closing under load, twice at once and once more: what runs is finished, what comes later fails at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_56_close_and_drop() {
    const GRACE: Duration = Duration::from_secs(2);
    let (cut_off, ended) = cut_off_and_dropped().await;
    let rig = Rig::start(Duration::from_millis(100)).await;
    let slowest = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&slowest);
    let load = rig.load_with(move |channel, id| {
        let slowest = Arc::clone(&seen);
        async move {
            let began = Instant::now();
            let result = call(channel, id).await;
            if result.is_err() {
                slowest.fetch_max(began.elapsed().as_millis() as u64, SeqCst);
            }
            result
        }
    });
    let fault = load.part(1, 3).await;
    let (one, other) = (&rig.retrying.channel, &rig.single.channel);
    tokio::join!(
        one.close(GRACE),
        one.close(GRACE),
        other.close(GRACE),
        other.close(GRACE)
    );
    let drained = load.elapsed() - fault;
    let left: u64 = rig.servers.iter().map(|it| it.journal().in_flight()).sum();
    assert_eq!((one.status().state, left), (State::Shutdown, 0));
    one.close(GRACE).await;
    for server in &rig.servers {
        wait_equal(LIMIT, 0, || server.journal().open()).await;
    }
    let reports = load.finish().await;

    let started: u64 = rig.servers.iter().map(|it| it.journal().started()).sum();
    let finished: u64 = rig.servers.iter().map(|it| it.journal().finished()).sum();
    assert_eq!(started, finished);
    assert_eq!(reports.retrying.ok + reports.single.ok, finished);
    let refused = reports.retrying.failed.iter().chain(&reports.single.failed);
    for failure in refused {
        let error = Error::from_status(&failure.status).expect("the channel's error");
        assert!(error.is_closed() && !error.maybe_processed(), "{error:?}");
        assert_eq!(error.code(), Code::Unavailable);
    }
    let slowest = slowest.load(SeqCst);
    let figures = [
        ("drain_ms", drained.as_millis() as u64),
        ("slowest_refusal_ms", slowest),
        ("cut_off_ms", cut_off.as_millis() as u64),
        ("tasks_end_ms", ended.as_millis() as u64),
    ];
    rig.score("56", &reports, None, &figures).await;
    assert!(drained <= GRACE, "{drained:?}");
    assert!(slowest <= limit(Duration::from_millis(250)).as_millis() as u64);
    assert!(ended <= limit(Duration::from_secs(1)), "{ended:?}");
}

/// Calls that outlast the grace are cut off, and say so; a channel that is only dropped lets its calls finish and takes
/// all its tasks with it. Gives how long the close took, and the end of the tasks.
async fn cut_off_and_dropped() -> (Duration, Duration) {
    let leaks = LeakCheck::start().await;
    let server = server("a", Duration::ZERO);
    let connector = || settings(Connector::tcp(server.addr().to_string())).timeout(LIMIT);
    let journal = server.journal();
    let tasks = alive_tasks();

    let channel = connector().connect().await.unwrap();
    let hanging = calls(&channel, 1..=5, 60_000);
    wait_equal(LIMIT, 5, || journal.in_flight()).await;
    let closing = Instant::now();
    within(LIMIT, "a close", channel.close(Duration::from_millis(100))).await;
    let cut_off = closing.elapsed();
    for (_, result) in within(LIMIT, "calls cut off", hanging.join_all()).await {
        let status = result.unwrap_err();
        let error = Error::from_status(&status).expect("the channel's error");
        assert_eq!(error.code(), Code::Unavailable);
        assert!(error.maybe_processed(), "{error:?}");
    }
    wait_equal(LIMIT, 0, || journal.open()).await;
    drop(channel);

    let channel = connector().connect().await.unwrap();
    let finishing = calls(&channel, 6..=10, 200);
    let streaming = EchoRequest {
        repeat: 3,
        delay_ms: 100,
        ..request(11)
    };
    let replies = EchoClient::new(channel.clone())
        .server_stream(streaming)
        .await;
    let mut replies = replies.unwrap().into_inner();
    wait_equal(LIMIT, 6, || journal.in_flight()).await;
    drop(channel);
    for (_, result) in within(LIMIT, "calls", finishing.join_all()).await {
        result.unwrap();
    }
    for sequence in 0..3 {
        assert_eq!(replies.message().await.unwrap().unwrap().sequence, sequence);
    }
    assert!(replies.message().await.unwrap().is_none());
    let dropped = Instant::now();
    drop(replies);
    wait_equal(LIMIT, tasks, alive_tasks).await;
    let ended = dropped.elapsed();

    assert_eq!(duplicates([journal.handled()]), [0; 0]);
    drop(server);
    leaks.finish().await;
    (cut_off, ended)
}

/// A runtime that is dropped under calls of every kind takes them and the channel's tasks with it, without panic; what is
/// left of the channel refuses calls and can be dropped anywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_57_runtime_dropped_with_calls_open() {
    let leaks = LeakCheck::start().await;
    let panics = Panics::watch();
    let server = EchoServer::builder("a").max_concurrent_streams(4).tcp();
    let place = Place::tcp();
    let stall = Stall::at(place.addr(), Stage::Syn);
    let mut slowest = Duration::ZERO;
    let report = Report::default();
    let flavors = [Builder::new_current_thread, || {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2);
        builder
    }];
    for (round, flavor) in flavors.into_iter().enumerate() {
        let runtime = flavor().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let (serving, waiting) = (server.addr().to_string(), place.addr().to_string());
        let opened = handle.spawn(open_calls(serving, waiting, round as u64 * 10));
        let (stop, stopped) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        // Not one of this runtime's threads: those may not block.
        let thread = thread::spawn(move || {
            let _ = runtime.block_on(stopped);
            let began = Instant::now();
            drop(runtime);
            let _ = end.send(began.elapsed());
        });
        let (channels, calls) = within(LIMIT, "calls", opened).await.unwrap();
        drop(stop);
        slowest = slowest.max(within(LIMIT, "the runtime's end", ended).await.unwrap());
        thread.join().unwrap();
        for call in calls {
            assert!(call.await.unwrap_err().is_cancelled());
        }
        let id = 100 + round as u64;
        let status = within(LIMIT, "a call", call(channels[0].clone(), id))
            .await
            .unwrap_err();
        let error = Error::from_status(&status).expect("the channel's error");
        assert!(error.is_closed() && !error.maybe_processed(), "{error:?}");
        within(LIMIT, "a close", channels[0].close(LIMIT)).await;
        thread::spawn(|| drop(channels)).join().unwrap();
        wait_equal(LIMIT, 0, || server.journal().open()).await;
        // The server notices one call after the other.
        wait_equal(LIMIT, 0, || server.journal().in_flight()).await;
    }
    drop((stall, place));
    let twice = duplicates([server.journal().handled()]);
    let handled = server.journal().started();
    drop(server);
    let figures = [
        ("calls", handled),
        ("shutdown_ms", slowest.as_millis() as u64),
        ("panics", panics.count()),
    ];
    report.score_with("57", &twice, leaks.leaked().await, None, &figures);
    assert_eq!(panics.count(), 0);
    assert!(slowest <= limit(Duration::from_secs(1)), "{slowest:?}");
}

/// Opens calls that get no end by themselves: on the wire, half read, with a request that goes on, waiting for a stream,
/// and waiting for a connection.
async fn open_calls(
    serving: String,
    waiting: String,
    first: u64,
) -> (Vec<Channel>, Vec<JoinHandle<()>>) {
    let one = pool().max_connections(1);
    let channel = settings(Connector::tcp(serving))
        .timeout(LIMIT * 2)
        .pool(one)
        .connect()
        .await
        .unwrap();
    let client = || EchoClient::new(channel.clone());
    let hang = move |nth| EchoRequest {
        delay_ms: 60_000,
        ..request(first + nth)
    };
    let unary = |nth| {
        let mut client = client();
        let request = hang(nth);
        tokio::spawn(async move { drop(client.unary(request).await) })
    };
    let mut calls = vec![unary(1), unary(2)];
    let (mut streaming, mut sending) = (client(), client());
    let endless = EchoRequest {
        repeat: u32::MAX,
        ..request(first + 3)
    };
    let (read, half) = oneshot::channel();
    calls.push(tokio::spawn(async move {
        let mut replies = streaming.server_stream(endless).await.unwrap().into_inner();
        replies.message().await.unwrap().unwrap();
        let _ = read.send(());
        std::future::pending::<()>().await;
    }));
    half.await.unwrap();
    let messages = tokio_stream::iter([request(first + 4)]).chain(tokio_stream::pending());
    calls.push(tokio::spawn(async move {
        drop(sending.client_stream(messages).await)
    }));
    let status = || channel.status().endpoints[0].clone();
    wait_until(LIMIT, || status().in_flight == 4).await;
    calls.extend([unary(5), unary(6)]);
    wait_until(LIMIT, || status().waiting == 2).await;

    let unconnected = settings(Connector::tcp(waiting)).connect_lazy().unwrap();
    let stuck = call(unconnected.clone(), first + 7);
    calls.push(tokio::spawn(async move { drop(stuck.await) }));
    wait_until(LIMIT, || unconnected.stats().calls == 1).await;
    (vec![channel, unconnected], calls)
}

/// These calls, begun at once, each answered after so many milliseconds.
fn calls(
    channel: &Channel,
    ids: impl IntoIterator<Item = u64>,
    millis: u32,
) -> JoinSet<(u64, Result<(), Status>)> {
    let mut calls = JoinSet::new();
    for id in ids {
        let request = EchoRequest {
            delay_ms: millis,
            ..request(id)
        };
        let call = call_with(channel.clone(), request);
        calls.spawn(async move { (id, call.await.map(drop)) });
    }
    calls
}

fn alive_tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}
