//! Score card rows 2 to 4: servers die or restart under load.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::time::Duration;

use rows::calls::call;
use rows::limit;
use rows::rig::{LIMIT, Loads, Reports, Rig, pool, settings, slots_are_free};
use support::journal::duplicates;
use support::leak::LeakCheck;
use support::scratch::Scratch;
use support::server::EchoServer;
use support::wait::wait_until;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::Instant;
use tonic::Status;
use trunkline::{Connector, Error, Retry, State};

/// Long enough that calls are under way whenever a server dies.
const HANDLER: Duration = Duration::from_millis(20);

/// A call that fails was on its way to the dead server, says so, and says that it may have run there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_02_one_server_killed() {
    let mut rig = Rig::start(HANDLER).await;
    let load = rig.load();
    let fault = load.part(1, 3).await;
    let in_flight = kill(&mut rig, &load, 0).await;
    let handled = rig.servers[0].journal().started();
    let dead = rig.address(0);
    let reports = load.finish().await;

    let journal = rig.servers[0].journal().clone();
    let recovery = reports.recovery(fault);
    let figures = [("in_flight", in_flight)];
    rig.score("2", &reports, Some(recovery), &figures).await;
    only_those_cut_off_failed(&reports, in_flight);
    for failure in &reports.single.failed {
        let error = Error::from_status(&failure.status).unwrap();
        assert_eq!(error.endpoint(), Some(&*dead));
    }
    assert!(in_flight > 0, "nothing was under way");
    assert_eq!(journal.started(), handled);
    assert!(
        recovery <= limit(Duration::from_millis(200)),
        "{recovery:?}"
    );
}

/// GOAWAY and a drained shutdown of one server after the other cost nothing, whether calls may be repeated or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_03_rolling_restart_graceful() {
    let mut rig = Rig::start(HANDLER).await;
    let load = rig.load();
    let fault = load.part(1, 3).await;
    for nth in 0..3 {
        rig.servers[nth].shutdown().await;
        rig.servers[nth].restart();
        takes_its_share(&rig, &load, nth).await;
    }
    let reports = load.finish().await;

    let recovery = reports.recovery(fault);
    rig.score("3", &reports, Some(recovery), &[]).await;
    reports.none_failed();
}

/// A server that comes back after SIGKILL is found by itself, soon, and gets its third of the calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_04_rolling_restart_killed() {
    let mut rig = Rig::start(HANDLER).await;
    let load = rig.load();
    let mut healed = load.part(1, 3).await;
    let mut in_flight = 0;
    let mut slowest = Duration::ZERO;
    for nth in 0..3 {
        in_flight += kill(&mut rig, &load, nth).await;
        // Down for long enough that dials fail.
        let dials = &rig.single.dials;
        let dialled = dials.count();
        wait_until(LIMIT, || dials.count() >= dialled + 2).await;
        rig.servers[nth].restart();
        healed = load.elapsed();
        takes_its_share(&rig, &load, nth).await;
        slowest = slowest.max(load.elapsed() - healed);
    }
    let reports = load.finish().await;

    let recovery = reports.recovery(healed);
    let figures = [
        ("in_flight", in_flight),
        ("share_ms", slowest.as_millis() as u64),
    ];
    rig.score("4", &reports, Some(recovery), &figures).await;
    only_those_cut_off_failed(&reports, in_flight);
    assert!(slowest <= limit(Duration::from_secs(3)), "{slowest:?}");
}

/// A server that retires its connections all the time, each under full load, loses and repeats nothing: what it answered
/// last arrives although it closes while requests are on their way to it, and those it knows to be unprocessed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_retired_under_load_lose_nothing() {
    const STREAMS: u32 = 64;
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let server = EchoServer::builder("a")
        .max_concurrent_streams(STREAMS)
        .max_connection_age(Duration::from_millis(50))
        .unix(scratch.path("a.sock"));
    let channel = settings(Connector::unix(server.path()))
        .retry(Retry::none())
        .pool(pool().max_connections(1))
        .timeout(LIMIT)
        .wait_for_ready(true)
        .connect()
        .await
        .unwrap();
    let mut callers = JoinSet::new();
    let end = Instant::now() + rows::duration() / 3;
    for caller in 0..200 {
        let channel = channel.clone();
        callers.spawn(async move {
            for id in caller * 1_000_000.. {
                call(channel.clone(), id).await?;
                if Instant::now() >= end {
                    break;
                }
            }
            Ok::<_, Status>(())
        });
    }
    for result in callers.join_all().await {
        result.unwrap();
    }
    let journal = server.journal();
    assert!(
        journal.accepted() >= 10,
        "{} connections",
        journal.accepted()
    );
    assert_eq!(duplicates([journal.handled()]), [0; 0]);
    slots_are_free(&channel, STREAMS as usize).await;
    drop((channel, server));
    leaks.finish().await;
}

/// Kills a server, and waits until the channels know. Gives the most calls of the single channel that can have been on
/// their way to it: killing takes a moment, and the load goes on meanwhile.
async fn kill(rig: &mut Rig, load: &Loads, server: usize) -> u64 {
    let ended = load.single.ok() + load.single.not_ok();
    block_in_place(|| rig.servers[server].kill());
    wait_until(LIMIT, || !rig.states(server).contains(&State::Ready)).await;
    load.single.sent() - ended
}

/// Asserts that no call failed that could be repeated, and that of the others only such failed as were on their way to a
/// server when it died, and say that they may have run there.
fn only_those_cut_off_failed(reports: &Reports, in_flight: u64) {
    reports.no_idempotent_failed();
    let failed = &reports.single.failed;
    assert!(
        failed.len() as u64 <= in_flight,
        "{in_flight} in flight: {failed:?}"
    );
    for failure in failed {
        let error = Error::from_status(&failure.status).expect("the channel's error");
        assert!(
            error.is_disconnected() && error.maybe_processed(),
            "{error:?}"
        );
    }
}

/// Waits until both channels use the server again, and it has had at least a quarter of the calls since.
async fn takes_its_share(rig: &Rig, load: &Loads, server: usize) {
    rig.ready(server, LIMIT).await;
    let journal = rig.servers[server].journal();
    let (handled, sent) = (journal.started(), load.sent());
    let has_its_share = || {
        let share = journal.started() - handled;
        share >= 20 && share * 4 >= load.sent() - sent
    };
    wait_until(LIMIT, has_its_share).await;
}
