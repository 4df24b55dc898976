//! Score card rows 9, 16 and 17: networks that reset, delay and cut into pieces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::time::Duration;

use fastrand::Rng;
use rows::calls::{call_with, request};
use rows::dials::Dials;
use rows::rig::{Rig, keepalive, settings};
use rows::timings::{Span, Timings, percentile};
use support::chaos::{Chaos, Toxics, Way};
use support::report::Failure;
use tokio::time::{Instant, sleep};
use tonic::Status;
use trunkline::{Channel, Connector, Error, Stage};

/// Connections are cut with RST, ten a second, whichever they are. No call fails that may be repeated, unless its answer
/// was being read: after response headers, it is the caller's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_09_reset_storm() {
    let (rig, proxies) = Rig::start_behind_proxies(Duration::from_millis(5), 9).await;
    let load = rig.load();
    load.part(1, 3).await;
    let end = Instant::now() + rows::duration() / 3;
    let mut resets = 0;
    let mut rng = Rng::with_seed(9);
    while Instant::now() < end {
        // Evenly would be in step with the calls.
        sleep(Duration::from_millis(rng.u64(50..150))).await;
        let first = rng.usize(..proxies.len());
        let mut in_turn = proxies.iter().cycle().skip(first).take(proxies.len());
        resets += u64::from(in_turn.any(Chaos::reset_one));
    }
    let healed = load.elapsed();
    rig.all_ready().await;
    let ready = load.elapsed() - healed;
    let reports = load.finish().await;

    let recovery = reports.recovery(healed);
    let dials = rig.retrying.dials.count() + rig.single.dials.count();
    let (begun, unanswered): (Vec<_>, Vec<_>) = reports
        .retrying
        .failed
        .iter()
        .partition(|failure| cut(failure).stage() == Some(Stage::Body));
    let figures = [
        ("resets", resets),
        ("dials", dials as u64),
        ("ready_ms", ready.as_millis() as u64),
        ("answers_cut", begun.len() as u64),
    ];
    drop(proxies);
    rig.score("9", &reports, Some(recovery), &figures).await;
    assert!(unanswered.is_empty(), "{unanswered:?}");
    // On a quiet machine next to none: an answer is soon read.
    assert!(begun.len() as u64 * 4 <= resets, "{begun:?}");
    for failure in &reports.single.failed {
        assert!(cut(failure).maybe_processed(), "{failure:?}");
    }
    assert!(
        resets * 200 >= rows::duration().as_millis() as u64 / 3,
        "{resets} resets"
    );
}

/// The error of a call whose connection broke. Panics when it is another one.
fn cut(failure: &Failure) -> &Error {
    let error = Error::from_status(&failure.status).expect("the channel's error");
    assert!(error.is_disconnected(), "{error:?}");
    error
}

/// A long way to the servers costs time and nothing else: no call, and no connection, under load or idle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_16_latency() {
    /// A PING is 17 bytes.
    const PING: u64 = 17;
    // There and back, as a PING would say: 200 ms, up to 100 ms more or less.
    let far = Toxics {
        latency: Duration::from_millis(100),
        jitter: Duration::from_millis(50),
        ..Toxics::default()
    };
    let (rig, proxies) = Rig::start_behind_proxies(Duration::ZERO, 16).await;
    // Under load no connection is ever quiet for long enough to be probed. This one is.
    let idle_way = Chaos::tcp(rig.servers[0].addr(), 16);
    let idle_dials = Dials::default();
    let idle = settings(Connector::tcp(idle_way.addr().to_string()))
        .keepalive(keepalive().while_idle(true))
        .dialer(idle_dials.clone())
        .connect()
        .await
        .unwrap();
    let timings = Timings::default();
    let load = rig.load_with({
        let timings = timings.clone();
        move |channel, id| timings.clone().call(channel, id)
    });
    let fault = load.part(1, 3).await;
    let said = idle_way.read(Way::ToServer);
    for proxy in proxies.iter().chain([&idle_way]) {
        proxy.set(far);
    }
    let while_far = Span::until(&load, 2, 3).await;
    let pings = (idle_way.read(Way::ToServer) - said) / PING;
    for proxy in proxies.iter().chain([&idle_way]) {
        proxy.set(Toxics::default());
    }
    let reports = load.finish().await;

    let connected = [&rig.retrying.dials, &rig.single.dials, &idle_dials].map(Dials::count);
    let p99 = percentile(&timings.sorted(&["a", "b", "c"], while_far), 99);
    let figures = [
        ("pings", pings),
        ("dials", connected.iter().sum::<usize>() as u64),
        ("p99_ms", p99.as_millis() as u64),
    ];
    drop((idle, proxies, idle_way));
    let recovery = reports.recovery(fault);
    rig.score("16", &reports, Some(recovery), &figures).await;
    reports.none_failed();
    assert_eq!(connected, [3, 3, 1], "no connection was given up");
    assert!(p99 >= far.latency, "{p99:?}");
    assert!(pings >= 2, "the idle connection was probed {pings} times");
}

/// The pieces in which frames go out and come in make no difference.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_17_one_byte_per_write() {
    let (rig, proxies) = Rig::start_behind_proxies(Duration::ZERO, 17).await;
    let writes = || {
        let both = |it: &Chaos| it.writes(Way::ToServer) + it.writes(Way::ToClient);
        proxies.iter().map(both).sum::<u64>()
    };
    let load = rig.load_with(short_call);
    let fault = load.part(1, 3).await;
    let before = writes();
    // One after the other: a byte each is much work.
    for (proxy, ninths) in proxies.iter().zip(4..) {
        proxy.set(Toxics {
            slice: Some(1),
            ..Toxics::default()
        });
        load.part(ninths, 9).await;
        proxy.set(Toxics::default());
    }
    let writes = writes() - before;
    let reports = load.finish().await;

    let recovery = reports.recovery(fault);
    let dials = rig.retrying.dials.count() + rig.single.dials.count();
    let figures = [("writes", writes), ("dials", dials as u64)];
    drop(proxies);
    rig.score("17", &reports, Some(recovery), &figures).await;
    reports.none_failed();
    assert_eq!(dials, 6, "no connection was given up");
    // The calls of a third of the time, a third of those, at least this many bytes each.
    let bytes = reports.single.sent / 9 * 100;
    assert!(writes >= bytes, "{writes} writes, not {bytes}");
}

/// A call that is not long, or it would take all day; every fiftieth is.
async fn short_call(channel: Channel, id: u64) -> Result<(), Status> {
    let mut request = request(id);
    if !id.is_multiple_of(50) {
        request.payload.truncate(16);
    }
    call_with(channel, request).await.map(drop)
}
