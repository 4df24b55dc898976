//! Score card row 52: many clients lose the same server at the same moment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::time::Duration;

use rows::calls::call;
use rows::dials::{Dials, peak};
use rows::panics::Panics;
use rows::rig::{LIMIT, server, settings};
use support::journal::duplicates;
use support::leak::LeakCheck;
use support::report::Report;
use support::wait::{wait_until, within};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::Instant;
use trunkline::{Channel, Connector, State};

const CONNECTORS: u64 = 200;

/// Two hundred clients of a server that dies and comes back do not dial it all at once, neither at its death nor at its
/// return.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_52_reconnects_are_spread() {
    let leaks = LeakCheck::start().await;
    let panics = Panics::watch();
    let mut server = server("a", Duration::ZERO);
    let dials = Dials::default();
    let connect = |_| {
        let connector = settings(Connector::tcp(server.addr().to_string()));
        connector.dialer(dials.clone()).connect_lazy().unwrap()
    };
    let channels: Vec<Channel> = (0..CONNECTORS).map(connect).collect();
    let all_are = |wanted: State| {
        channels
            .iter()
            .all(|channel| channel.status().state == wanted)
    };
    wait_until(LIMIT, || all_are(State::Ready)).await;
    // Connections that have lived for a second count as proven: their loss is no failure to connect.
    let proven = Instant::now() + Duration::from_millis(1100);
    wait_until(LIMIT, || Instant::now() >= proven).await;

    let died = Instant::now();
    block_in_place(|| server.kill());
    let down = rows::duration() * 5 / 6;
    wait_until(down * 2, || died.elapsed() >= down).await;
    assert!(all_are(State::TransientFailure));
    let accepted = server.journal().accepted();
    server.restart();
    let restarted = Instant::now();
    wait_until(LIMIT, || all_are(State::Ready)).await;
    let recovery = restarted.elapsed();
    assert_eq!(
        server.journal().accepted() - accepted,
        CONNECTORS,
        "one connection each"
    );

    let mut report = Report::default();
    let mut calls = JoinSet::new();
    for (id, channel) in (1..).zip(&channels) {
        let call = call(channel.clone(), id);
        calls.spawn(async move { (id, call.await) });
    }
    for (id, result) in within(LIMIT, "a call of each", calls.join_all()).await {
        report.count(id, result);
    }
    drop(channels);
    let twice = duplicates([server.journal().handled()]);
    let addr = server.addr().to_string();
    drop(server);
    let redials = dials.to(&addr, died);
    let most = peak(&redials, Duration::from_millis(100));
    let at_once = peak(&redials, Duration::from_millis(20));
    let late: Vec<_> = redials
        .iter()
        .filter(|it| it.began >= restarted)
        .cloned()
        .collect();
    let figures = [
        ("dials", redials.len() as u64),
        ("peak_100ms", most as u64),
        ("peak_20ms", at_once as u64),
        (
            "peak_after_restart",
            peak(&late, Duration::from_millis(100)) as u64,
        ),
        ("panics", panics.count()),
    ];
    report.score_with("52", &twice, leaks.leaked().await, Some(recovery), &figures);
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    let percent = if rows::is_strict() { 15 } else { 30 };
    assert!(
        most * 100 <= redials.len() * percent,
        "{most} of {} dials at once",
        redials.len()
    );
    // The first redial too: without spread, all would come in that time.
    assert!(
        at_once <= CONNECTORS as usize * 3 / 4,
        "{at_once} within 20 ms"
    );
    assert_eq!(panics.count(), 0);
}
