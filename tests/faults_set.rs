//! Score card rows 44 and 45: the set of endpoints changes under load.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::time::Duration;

use fastrand::Rng;
use rows::limit;
use rows::rig::{LIMIT, Rig, endpoints, server};
use support::place::Place;
use support::wait::{wait_equal, wait_until};
use tokio::time::{interval, timeout};
use trunkline::{Channel, Endpoint};

/// Endpoints come and go a hundred times a second, servers that work and ports where nobody listens. It costs no call,
/// and those that stay keep their connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_44_endpoints_churn() {
    let handler = Duration::from_millis(5);
    let (rig, set) = Rig::start_discovered(handler).await;
    let passing = ["d", "e"].map(|name| server(name, handler));
    let dead = [Place::tcp(), Place::tcp()];
    let stay = endpoints(&rig.servers);
    let mut come_and_go = endpoints(&passing);
    come_and_go.extend(dead.iter().map(|place| Endpoint::uri(place.uri())));

    let load = rig.load();
    let fault = load.part(1, 12).await;
    let mut rng = Rng::with_seed(44);
    let mut updates = 0;
    let churn = async {
        let mut tick = interval(Duration::from_millis(10));
        loop {
            tick.tick().await;
            let mut now = stay.clone();
            now.extend(come_and_go.iter().filter(|_| rng.bool()).cloned());
            rng.shuffle(&mut now);
            set.become_these(&now).await;
            updates += 1;
        }
    };
    let _ = timeout(rows::duration() * 10 / 12, churn).await;
    set.become_these(&stay).await;
    let reports = load.finish().await;

    for (server, came) in rig.servers.iter().zip(["a", "b", "c"]) {
        assert_eq!(
            server.journal().accepted(),
            2,
            "{came}: one for each channel"
        );
    }
    for server in &passing {
        let journal = server.journal();
        assert!(journal.started() > 0, "{} was used", server.name());
        // Its calls came to their end before it was left.
        assert_eq!(journal.started(), journal.finished());
        wait_equal(LIMIT, 0, || journal.open()).await;
    }
    let recovery = reports.recovery(fault);
    let figures = [
        ("updates", updates),
        (
            "passing_calls",
            passing.iter().map(|it| it.journal().started()).sum(),
        ),
    ];
    drop((passing, dead));
    rig.score("44", &reports, Some(recovery), &figures).await;
    reports.none_failed();
    assert!(
        updates * 20 >= rows::duration().as_millis() as u64,
        "{updates} updates"
    );
}

/// An endpoint that is taken out gets no new calls and finishes those it has. Once it is back it gets its share again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_45_endpoint_removed_with_calls_in_flight() {
    let (rig, set) = Rig::start_discovered(Duration::from_millis(100)).await;
    let all = endpoints(&rig.servers);
    let journal = rig.servers[0].journal();

    let load = rig.load();
    let fault = load.part(1, 3).await;
    set.become_these(&all[1..]).await;
    let in_flight = journal.in_flight();
    let known = |channel: &Channel| channel.status().endpoints.len();
    let gone = || known(&rig.retrying.channel) == 2 && known(&rig.single.channel) == 2;
    wait_until(LIMIT, gone).await;
    let removed = load.elapsed();
    let (mut started, mut last_new) = (journal.started(), removed);
    load.watch(2, 3, || {
        if journal.started() > started {
            (started, last_new) = (journal.started(), load.elapsed());
        }
    })
    .await;
    assert_eq!(journal.in_flight(), 0);
    assert_eq!(
        journal.finished(),
        journal.started(),
        "what it had was finished"
    );
    wait_equal(LIMIT, 0, || journal.open()).await;
    set.become_these(&all).await;
    wait_until(LIMIT, || journal.started() >= started + 20).await;
    let reports = load.finish().await;

    assert!(in_flight > 0, "no call was in flight");
    let late = last_new - removed;
    let recovery = reports.recovery(fault);
    let figures = [
        ("in_flight", in_flight),
        ("last_new_ms", late.as_millis() as u64),
    ];
    rig.score("45", &reports, Some(recovery), &figures).await;
    reports.none_failed();
    assert!(late <= limit(Duration::from_millis(50)), "{late:?}");
}
