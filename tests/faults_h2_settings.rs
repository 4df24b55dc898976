//! Score card rows 24 to 26: as many streams as the peer allows, and as many as a connection has ids for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rows::calls::call;
use rows::limit;
use rows::panics::Panics;
use rows::rig::{LIMIT, Reports, Rig, SINGLE_IDS, STREAMS, pool, settings, slots_are_free};
use rows::switch::Switch;
use support::frames::{Frame, setting};
use support::journal::duplicates;
use support::leak::LeakCheck;
use support::raw_peer::RawPeer;
use support::reaction::Reaction;
use support::report::Report;
use support::response;
use support::wait::wait_until;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Status;
use trunkline::{Channel, Connector};

/// Ids of one caller's calls.
const IDS_EACH: u64 = 1_000_000;

/// One call of a caller.
#[derive(Debug)]
struct Done {
    id: u64,
    result: Result<(), Status>,
    at: Instant,
    took: Duration,
}

/// So many callers, each of which makes one call after the other until `end`.
async fn callers(channel: &Channel, callers: u64, first_id: u64, end: Instant) -> Vec<Done> {
    let mut calling = JoinSet::new();
    for caller in 0..callers {
        let channel = channel.clone();
        calling.spawn(async move {
            let mut done = Vec::new();
            for id in first_id + caller * IDS_EACH.. {
                let began = Instant::now();
                let result = call(channel.clone(), id).await;
                let at = Instant::now();
                let took = at - began;
                done.push(Done {
                    id,
                    result,
                    at,
                    took,
                });
                if at >= end {
                    break;
                }
            }
            done
        });
    }
    calling.join_all().await.into_iter().flatten().collect()
}

fn report(done: &[Done]) -> Report {
    let mut report = Report::default();
    for done in done {
        report.count(done.id, done.result.clone());
    }
    report
}

/// One stream for a hundred callers: each has its turn after all the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_24_one_stream_for_all() {
    const CALLERS: u64 = 100;
    let leaks = LeakCheck::start().await;
    let panics = Panics::watch();
    let served = Arc::new(Mutex::new(Vec::new()));
    let serving = Arc::clone(&served);
    let streams = [(setting::MAX_CONCURRENT_STREAMS, 1)];
    let peer = RawPeer::tcp().serve(&streams, move |request| {
        serving.lock().unwrap().push(request.echo().unwrap().id);
        Reaction::echo(request, "raw").after(Duration::from_millis(1))
    });
    let connector = settings(Connector::target(peer.uri())).pool(pool().max_connections(1));
    let connecting = connector.timeout(LIMIT).connect();
    let channel = connecting.await.unwrap();
    let end = Instant::now() + rows::duration();
    let done = callers(&channel, CALLERS, 0, end).await;

    slots_are_free(&channel, 1).await;
    let resends = channel.stats().resends;
    drop(channel);
    let seen = Arc::clone(peer.seen());
    drop(peer);
    let served = std::mem::take(&mut *served.lock().unwrap());
    let turns = turns(&served[..served.len().saturating_sub(2 * CALLERS as usize)]);
    let (shortest, longest) = (*turns.first().unwrap(), *turns.last().unwrap());
    let mut took: Vec<_> = done.iter().map(|it| it.took).collect();
    took.sort();
    let report = report(&done);
    let twice = duplicates([seen.handled()]);
    let millis = |at: usize| took[at].as_millis() as u64;
    let figures = [
        ("calls", report.sent),
        ("peak_streams", seen.peak_streams()),
        ("shortest_turn", shortest),
        ("longest_turn", longest),
        ("p50_ms", millis(took.len() / 2)),
        ("p99_ms", millis(took.len() * 99 / 100)),
        ("panics", panics.count()),
    ];
    report.score_with("24", &twice, leaks.leaked().await, None, &figures);
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert_eq!((seen.peak_streams(), seen.requests_over_limit()), (1, 0));
    assert_eq!((seen.connections(), resends), (1, 0));
    assert!(turns.len() as u64 > CALLERS, "{} turns", turns.len());
    assert!(longest < 2 * shortest, "{shortest} to {longest}");
    assert_eq!(panics.count(), 0);
}

/// How many calls were served from one call of a caller to its next, in order of length. All of them are as long as
/// there are callers if every one has its turn.
fn turns(served: &[u64]) -> Vec<u64> {
    let mut last = BTreeMap::new();
    let mut turns = Vec::new();
    for (nth, id) in (0..).zip(served) {
        if let Some(before) = last.insert(id / IDS_EACH, nth) {
            turns.push(nth - before);
        }
    }
    turns.sort();
    turns
}

/// Peers lower their limit to one stream under load and raise it again: the callers wait for one another meanwhile, and
/// then no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_25_limit_lowered_and_raised() {
    const FULL: u32 = 100;
    const CALLERS: u64 = 30;
    const HANDLER: Duration = Duration::from_millis(50);
    let wanted = Arc::new(AtomicU32::new(FULL));
    let now = Arc::clone(&wanted);
    let told = Mutex::new(BTreeMap::new());
    let rule = move |peer, request: &support::reaction::RequestInfo| {
        let echo = Reaction::echo(request, "raw").after(HANDLER);
        let wanted = now.load(SeqCst);
        let told = told
            .lock()
            .unwrap()
            .insert((peer, request.connection), wanted);
        if told.unwrap_or(FULL) == wanted {
            return echo;
        }
        echo.after_settings(&[(setting::MAX_CONCURRENT_STREAMS, wanted)])
    };
    let adjust = |it: Connector| it.pool(pool().max_connections(1)).timeout(LIMIT);
    let rig = Rig::start_raw_with(FULL as usize, rule, adjust).await;
    let start = Instant::now();
    let third = rows::duration() / 3;
    let calling = [(&rig.retrying, 1), (&rig.single, SINGLE_IDS)].map(|(side, first_id)| {
        let channel = side.channel.clone();
        tokio::spawn(async move { callers(&channel, CALLERS, first_id, start + third * 3).await })
    });
    let reach = |part: u32| wait_until(LIMIT + third, move || start.elapsed() >= third * part);
    reach(1).await;
    wanted.store(1, SeqCst);
    reach(2).await;
    wanted.store(FULL, SeqCst);
    let raised = Instant::now();
    let [retrying, single] = calling;
    let (retrying, single) = (retrying.await.unwrap(), single.await.unwrap());

    let mut ends: Vec<_> = retrying.iter().chain(&single).map(|it| it.at).collect();
    ends.sort();
    let window = third / 4;
    let count = |from: Instant| {
        let until = from + window;
        ends.iter().filter(|at| (from..until).contains(*at)).count() as u64
    };
    let before = count(start + third - window);
    let lowered = count(raised - window);
    let regained = ends
        .iter()
        .find(|at| **at >= raised && count(**at) >= before * 8 / 10);
    let regained = regained.map(|at| *at - raised);
    let over_limit: u64 = rig
        .servers
        .iter()
        .map(|it| it.seen().requests_over_limit())
        .sum();
    let connections: u64 = rig.servers.iter().map(|it| it.seen().connections()).sum();
    let stats = [&rig.retrying, &rig.single].map(|side| side.channel.stats());
    let per_second = |count: u64| (count as f64 / window.as_secs_f64()) as u64;
    let figures = [
        ("per_second", per_second(before)),
        ("per_second_lowered", per_second(lowered)),
        ("over_limit", over_limit),
        ("resends", stats[0].resends + stats[1].resends),
    ];
    let reports = Reports {
        retrying: report(&retrying),
        single: report(&single),
    };
    rig.score("25", &reports, regained, &figures).await;
    reports.none_failed();
    assert_eq!((over_limit, connections), (0, 6));
    // Six streams, each for the time of a call.
    let most = 6.0 / HANDLER.as_secs_f64();
    assert!(
        lowered > 0 && per_second(lowered) as f64 <= most,
        "{lowered}"
    );
    assert!(before > 2 * lowered, "{before}");
    let regained = regained.expect("the throughput comes back");
    assert!(regained <= limit(Duration::from_secs(1)), "{regained:?}");
}

/// Connections that run out of stream ids are replaced, and no call notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_26_stream_ids_used_up() {
    const LEFT: u32 = 10;
    const HANDLER: Duration = Duration::from_millis(20);
    let fault = Switch::default();
    let skipping = fault.clone();
    let highest = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&highest);
    let rig = Rig::start_raw(STREAMS, move |peer, request| {
        seen.fetch_max(request.stream, SeqCst);
        let Reaction::Answer(reply) = Reaction::echo(request, "raw") else {
            unreachable!("an echo is an answer");
        };
        let mut frames = response::ok(request.stream, &reply);
        if skipping.strikes(peer, request, 20) {
            frames.insert(0, Frame::skip_to(Frame::LAST_STREAM - 2 * LEFT));
        }
        Reaction::Frames(frames).after(HANDLER)
    });
    let rig = rig.await;
    fault.turn(true);
    let load = rig.load();
    let reports = load.finish().await;

    let connections: u64 = rig.servers.iter().map(|it| it.seen().connections()).sum();
    let stats = [&rig.retrying, &rig.single].map(|side| side.channel.stats());
    let resends = stats[0].resends + stats[1].resends;
    let figures = [
        ("used_up", fault.count()),
        ("connections", connections),
        ("resends", resends),
        ("retries", stats[0].retries + stats[1].retries),
    ];
    rig.score("26", &reports, None, &figures).await;
    reports.none_failed();
    assert_eq!(highest.load(SeqCst), Frame::LAST_STREAM);
    assert!(
        connections <= 6 + fault.count(),
        "{connections} connections"
    );
    assert!(fault.count() >= 12, "{} skips", fault.count());
}
