//! Score card rows 18 to 20, 28 and 29: GOAWAY under load, in all its meanings.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rows::rig::{LIMIT, Reports, Rig, SINGLE_IDS, STREAMS, Side};
use rows::switch::{Switch, is_single};
use rows::{is_strict, limit};
use support::frames::code;
use support::raw_serve::ServedPeer;
use support::reaction::{Reaction, RequestInfo};
use support::wait::{wait_equal, wait_until};
use tokio::time::Instant;
use trunkline::{Error, Keepalive};

/// Long enough that calls are under way whenever a GOAWAY comes.
const HANDLER: Duration = Duration::from_millis(20);

fn echo(peer: usize, request: &RequestInfo) -> Reaction {
    Reaction::echo(request, ["a", "b", "c"][peer]).after(HANDLER)
}

/// One of three endpoints retires each connection after a few calls: what it accepted it answers, what came after is
/// done elsewhere, and each connection is replaced by one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_18_goaway_under_load() {
    let fault = Switch::default();
    let goaway = fault.clone();
    let rig = Rig::start_raw(STREAMS, move |peer, request| {
        let echo = echo(peer, request);
        if peer != 0 || !goaway.strikes(peer, request, 10) {
            return echo;
        }
        // This request is the last one, or the first that is not looked at.
        if request.connection % 2 == 0 {
            echo.after_goaway(request.stream, code::NO_ERROR, "")
        } else {
            Reaction::Ignore.after_goaway(request.stream - 2, code::NO_ERROR, "")
        }
    });
    let rig = rig.await;
    let load = rig.load();
    let began = load.part(1, 3).await;
    fault.turn(true);
    load.part(2, 3).await;
    fault.turn(false);
    let reports = load.finish().await;

    rig.all_ready().await;
    let dials = connections(&rig);
    let resent = resends(&rig);
    let figures = [
        ("goaways", fault.count()),
        ("dials", dials.iter().sum()),
        ("resends", resent),
    ];
    let recovery = reports.recovery(began);
    rig.score("18", &reports, Some(recovery), &figures).await;
    reports.none_failed();
    assert!(fault.count() >= 5, "{} GOAWAYs", fault.count());
    assert!(resent >= fault.count() / 3, "{resent} resends");
    assert_eq!(dials, [2 + fault.count(), 2, 2]);
}

/// What became of the requests that a peer said GOAWAY to, or that came after them.
#[derive(Default)]
struct Record {
    /// For each connection that is to end: its first request since the fault began, and the last one looked at.
    ending: BTreeMap<u64, (u64, u32)>,
    /// Looked at and never answered.
    held: BTreeSet<u64>,
    /// Not looked at.
    above: BTreeSet<u64>,
    /// For each id the peers that answered.
    answered: BTreeMap<u64, Vec<usize>>,
}

/// A peer stops to answer, takes more requests, says which was the last one it looked at, and closes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_19_goaway_below_sent_streams() {
    let fault = Switch::default();
    let on = fault.clone();
    let record = Arc::new(Mutex::new(Record::default()));
    let recording = Arc::clone(&record);
    let rig = Rig::start_raw(STREAMS, move |peer, request| {
        let mut record = recording.lock().unwrap();
        let id = request.echo().unwrap().id;
        if peer == 0 && (on.is_on() || record.ending.contains_key(&request.connection)) {
            let now = (request.nth_on_connection, request.stream);
            let (first, last) = record.ending.entry(request.connection).or_insert(now);
            match request.nth_on_connection - *first {
                0..10 => {}
                10..15 => {
                    *last = request.stream;
                    record.held.insert(id);
                    return Reaction::Silence;
                }
                15..20 => {
                    record.above.insert(id);
                    return Reaction::Ignore;
                }
                _ => {
                    let code = [code::NO_ERROR, code::INTERNAL_ERROR];
                    let code = code[request.connection as usize % 2];
                    let goaway = Reaction::Close.after_goaway(*last, code, "");
                    record.above.insert(id);
                    on.strikes(peer, request, 0);
                    return goaway;
                }
            }
        }
        record.answered.entry(id).or_default().push(peer);
        echo(peer, request)
    });
    let rig = rig.await;
    let load = rig.load();
    load.part(1, 3).await;
    fault.turn(true);
    load.part(2, 3).await;
    fault.turn(false);
    let healed = load.elapsed();
    let reports = load.finish().await;

    let record = std::mem::take(&mut *record.lock().unwrap());
    let mut held = record.held.clone();
    let single = held.split_off(&SINGLE_IDS);
    let figures = [
        ("goaways", fault.count()),
        ("above", record.above.len() as u64),
        ("held_idempotent", held.len() as u64),
        ("held", single.len() as u64),
        ("resends", resends(&rig)),
    ];
    let handled = handled(&rig);
    let recovery = reports.recovery(healed);
    rig.score("19", &reports, Some(recovery), &figures).await;
    // In these runs at least one connection of each channel ended so.
    assert!(
        fault.count() >= 2 && !held.is_empty(),
        "{} GOAWAYs",
        fault.count()
    );
    for id in &record.above {
        // Once, and elsewhere.
        assert!(matches!(record.answered[id][..], [1 | 2]), "{id}");
        assert_eq!(handled[id], 1, "{id}");
    }
    // Those that may be repeated were, once; the others fail and say why, and nothing else does.
    reports.no_idempotent_failed();
    for id in &held {
        assert!(matches!(record.answered[id][..], [1 | 2]), "{id}");
    }
    failed_in_doubt(&reports);
    let failed: BTreeSet<_> = reports.single.failed.iter().map(|it| it.id).collect();
    assert_eq!(failed, single);
}

/// The end without a goodbye: a GOAWAY that blames the connection, and FIN at once. Only what was under way there fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_20_goaway_and_close() {
    const HANDLER: Duration = Duration::from_millis(60);
    let fault = Switch::default();
    let on = fault.clone();
    let in_flight = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&in_flight);
    let rig = Rig::start_raw(STREAMS, move |peer, request| {
        if peer == 0 && on.strikes(peer, request, 20) {
            if is_single(request) {
                counted.fetch_add(request.open as u64, SeqCst);
            }
            return Reaction::Close.after_goaway(request.stream, code::INTERNAL_ERROR, "");
        }
        Reaction::echo(request, "raw").after(HANDLER)
    });
    let rig = rig.await;
    let load = rig.load();
    load.part(1, 3).await;
    fault.turn(true);
    load.part(2, 3).await;
    fault.turn(false);
    let healed = load.elapsed();
    let reports = load.finish().await;

    let in_flight = in_flight.load(SeqCst);
    let peer = rig.address(0);
    let figures = [
        ("goaways", fault.count()),
        ("in_flight", in_flight),
        ("resends", resends(&rig)),
    ];
    let recovery = reports.recovery(healed);
    rig.score("20", &reports, Some(recovery), &figures).await;
    reports.no_idempotent_failed();
    failed_in_doubt(&reports);
    let failed = &reports.single.failed;
    for failure in failed {
        let error = Error::from_status(&failure.status).unwrap();
        assert_eq!(error.endpoint(), Some(&*peer));
    }
    assert!(fault.count() >= 2, "{} GOAWAYs", fault.count());
    assert!(
        !failed.is_empty() && failed.len() as u64 <= in_flight,
        "{} of {in_flight} in flight",
        failed.len()
    );
    assert!(
        recovery <= limit(Duration::from_millis(200)),
        "{recovery:?}"
    );
}

/// Servers that retire each connection at a certain age, as tonic's do: each is replaced by one, and no sooner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_28_connection_age_at_the_server() {
    let age = match is_strict() {
        true => Duration::from_secs(5),
        false => rows::duration() / 6,
    };
    let rig = Rig::start_aging(HANDLER, Some(age)).await;
    let load = rig.load();
    let reports = load.finish().await;

    rig.all_ready().await;
    let mut retired = 0;
    let mut youngest = Duration::MAX;
    for side in [&rig.retrying, &rig.single] {
        // One open connection for each server, and each other dial led to one that was retired.
        let ended = || side.dials.all().iter().filter_map(|it| it.lasted).count();
        wait_equal(LIMIT, 3, || side.dials.count() - ended()).await;
        for ended in side.dials.all().iter().filter_map(|it| it.lasted) {
            retired += 1;
            youngest = youngest.min(ended);
        }
    }
    let resent = resends(&rig);
    let figures = [
        ("retired", retired),
        ("dials", dials(&rig.retrying) + dials(&rig.single)),
        ("youngest_ms", youngest.as_millis() as u64),
        ("resends", resent),
    ];
    rig.score("28", &reports, None, &figures).await;
    reports.none_failed();
    let rounds = (rows::duration().as_secs_f64() / age.as_secs_f64()) as u64 - 1;
    assert!(retired >= 6 * rounds, "{retired} connections were retired");
    // What a GOAWAY leaves out goes elsewhere, and does not come back to the same connection.
    assert!(resent <= 5 * retired, "{resent} resends");
    // Nothing but its age ended any.
    assert!(youngest >= age.mul_f64(0.9), "{youngest:?}");
}

/// A server that complains of PINGs, twice: it is probed a quarter as often from then on, other servers as often as
/// before, and no call notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_29_too_many_pings() {
    const INTERVAL: Duration = Duration::from_millis(500);
    let fault = Switch::default();
    let complaint = fault.clone();
    let complaints = Mutex::new([0; 2]);
    let keepalive = Keepalive::every(INTERVAL)
        .timeout(INTERVAL)
        .allow_frequent()
        .while_idle(true);
    let rule = move |peer, request: &RequestInfo| {
        let echo = echo(peer, request);
        let complaints = &mut complaints.lock().unwrap()[usize::from(is_single(request))];
        if peer == 0 && *complaints < 2 && complaint.strikes(peer, request, 10) {
            *complaints += 1;
            let stream = request.stream;
            return echo.after_goaway(stream, code::ENHANCE_YOUR_CALM, "too_many_pings");
        }
        echo
    };
    let rig = Rig::start_raw_with(STREAMS, rule, |it| it.keepalive(keepalive.clone())).await;
    let load = rig.load();
    let began = load.part(1, 3).await;
    fault.turn(true);
    let reports = load.finish().await;

    rig.all_ready().await;
    let (told, spared) = tokio::join!(spacing(&rig.servers[0]), spacing(&rig.servers[1]));
    let dials = connections(&rig);
    let figures = [
        ("complaints", fault.count()),
        ("dials", dials.iter().sum()),
        ("interval_ms", told.as_millis() as u64),
        ("interval_elsewhere_ms", spared.as_millis() as u64),
        ("resends", resends(&rig)),
    ];
    let recovery = reports.recovery(began);
    rig.score("29", &reports, Some(recovery), &figures).await;
    reports.none_failed();
    assert_eq!(fault.count(), 4);
    assert_eq!(dials, [6, 2, 2]);
    let within = |interval: Duration, spacing: Duration| {
        spacing >= interval.mul_f64(0.9) && spacing <= interval + limit(INTERVAL / 10)
    };
    assert!(within(INTERVAL * 4, told), "{told:?}");
    assert!(within(INTERVAL, spared), "{spared:?}");
}

/// The time between two PINGs on each of the two idle connections of this peer.
async fn spacing(peer: &ServedPeer) -> Duration {
    let seen = peer.seen();
    let first = seen.pings() + 1;
    wait_until(LIMIT, || seen.pings() >= first).await;
    let start = Instant::now();
    // The fifth is the third of the connection that had the first.
    wait_until(LIMIT * 2, || seen.pings() >= first + 4).await;
    start.elapsed() / 2
}

fn connections(rig: &Rig<ServedPeer>) -> [u64; 3] {
    [0, 1, 2].map(|peer: usize| rig.servers[peer].seen().connections())
}

fn dials(side: &Side) -> u64 {
    side.dials.count() as u64
}

fn resends<S>(rig: &Rig<S>) -> u64 {
    rig.retrying.channel.stats().resends + rig.single.channel.stats().resends
}

/// How often each id may have been processed.
fn handled(rig: &Rig<ServedPeer>) -> BTreeMap<u64, u64> {
    let mut handled = BTreeMap::new();
    for (id, times) in rig.servers.iter().flat_map(|peer| peer.seen().handled()) {
        *handled.entry(id).or_default() += times;
    }
    handled
}

/// Asserts that each call of the single channel that failed says that its connection is gone, and that it may have run.
fn failed_in_doubt(reports: &Reports) {
    for failure in &reports.single.failed {
        let error = Error::from_status(&failure.status).expect("the channel's error");
        assert!(
            error.is_disconnected() && error.maybe_processed(),
            "{error:?}"
        );
    }
}
