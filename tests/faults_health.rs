//! Score card rows 13 and 39 to 42: servers that answer with nothing or with errors, and health services that can't be
//! relied on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rows::ends::{End, Ends};
use rows::flips::{Flips, gets_calls, statuses};
use rows::rig::{ASKS, LIMIT, Rig, STREAMS, WATCHES};
use rows::served::{NAMES, Served};
use rows::switch::{Switch, is_single};
use rows::warnings::Warnings;
use rows::{is_strict, limit};
use support::frames::code;
use support::health::{HealthMode, HealthScript};
use support::raw_serve::ServedPeer;
use support::reaction::{Reaction, RequestInfo};
use support::wait::{wait_equal, wait_until};
use tokio::time::Instant;
use tonic::Code;
use trunkline::{Error, Health, HealthCheck};

/// The calls' own.
const DEADLINE: Duration = Duration::from_secs(1);
/// How long a breaker is open at least, the first time; then twice that, and so on.
const OPEN_FOR: Duration = Duration::from_secs(1);
/// What the word that an endpoint is ejected takes to its callers.
const WORD: Duration = Duration::from_millis(50);
/// Faults in a row that open a breaker.
const FAULTS: usize = 5;
/// What servers say when they fail.
const SAID: &str = "asked to fail";

/// When the requests of each channel came to a server at fault.
#[derive(Clone, Debug, Default)]
struct Met(Arc<Mutex<[Vec<Instant>; 2]>>);

impl Met {
    fn note(&self, request: &RequestInfo) {
        let side = usize::from(is_single(request));
        self.0.lock().unwrap()[side].push(Instant::now());
    }

    fn sides(&self) -> [Vec<Instant>; 2] {
        self.0.lock().unwrap().clone()
    }

    fn count(&self) -> u64 {
        self.sides().iter().map(|it| it.len() as u64).sum()
    }
}

/// Three raw peers that answer at once, of which the first does this while the fault is on.
async fn with_one_at_fault(
    fault: impl Fn(&RequestInfo) -> Reaction + Send + Sync + 'static,
) -> (Rig<ServedPeer>, Switch, Met) {
    let (switch, met) = (Switch::default(), Met::default());
    let rule = {
        let (switch, met) = (switch.clone(), met.clone());
        move |nth: usize, request: &RequestInfo| {
            if nth == 0 && switch.is_on() {
                met.note(request);
                return fault(request);
            }
            Reaction::echo(request, NAMES[nth])
        }
    };
    (Rig::start_raw(STREAMS, rule).await, switch, met)
}

/// How many requests came until the channel had its fifth failure, at this time, and had passed the word on; and those
/// that came afterwards.
fn trickle(met: &[Instant], fifth: Instant) -> (usize, Vec<Instant>) {
    let (before, after): (Vec<Instant>, Vec<Instant>) = met
        .iter()
        .partition(|at| **at <= fifth + limit(WORD).min(OPEN_FOR / 2));
    (before.len(), after)
}

/// Panics unless there was at most one request each time that the breaker had been open, which is longer each time.
fn is_one_for_each_backoff(trickle: &[Instant], opened: Instant) {
    // The fault lasts for many backoffs then.
    assert!(!is_strict() || !trickle.is_empty(), "it was never tried");
    let mut last = opened;
    for (nth, at) in trickle.iter().enumerate() {
        let wait = OPEN_FOR * (1 << nth.min(5));
        let waited = *at - last;
        assert!(waited >= wait, "{nth}: {waited:?} after the one before");
        last = *at;
    }
}

/// Whether neither channel gives a server its share any more.
fn has_lost_its_share<S: Served>(rig: &Rig<S>) -> bool {
    gets_calls(rig, 0) == [false; 2]
}

/// Calls to a server whose handlers hang end with their deadline, and their streams with RST_STREAM. The server answers
/// PINGs, so it is the breaker that finds out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_13_handlers_hang() {
    let (rig, switch, met) = with_one_at_fault(|_| Reaction::Silence).await;
    let ends = Ends::default();
    let load = rig.load_with({
        let ends = ends.clone();
        move |channel, id| ends.clone().call(channel, id)
    });
    let fault_at = load.part(1, 3).await;
    switch.turn(true);
    let fault = Instant::now();
    wait_until(LIMIT, || has_lost_its_share(&rig)).await;
    let lost_share = fault.elapsed();
    let connections = rig.servers[0].seen().connections();
    load.watch(2, 3, || {
        assert!(has_lost_its_share(&rig), "it is used before it answers");
    })
    .await;
    switch.turn(false);
    let reports = load.finish().await;
    let hung = met.count();
    let seen = Arc::clone(rig.servers[0].seen());
    wait_equal(LIMIT, hung, || seen.resets(code::CANCEL)).await;
    assert_eq!(seen.connections(), connections, "it was connected anew");

    let off = |end: &End| end.lasted().abs_diff(DEADLINE);
    let off = ends.all().iter().map(off).max().unwrap();
    let failed = ends.sides();
    let opened = [0, 1].map(|side| failed[side][FAULTS - 1].ended);
    let met = met.sides();
    let [retrying, single] = [0, 1].map(|side| trickle(&met[side], opened[side]));
    let figures = [
        ("share_ms", lost_share.as_millis() as u64),
        ("hung", hung),
        ("resets", seen.resets(code::CANCEL)),
        ("off_deadline_us", off.as_micros() as u64),
        ("trials", (retrying.1.len() + single.1.len()) as u64),
    ];
    let recovery = reports.recovery(fault_at);
    rig.score("13", &reports, Some(recovery), &figures).await;
    for failure in reports.retrying.failed.iter().chain(&reports.single.failed) {
        assert_eq!(failure.status.code(), Code::DeadlineExceeded, "{failure:?}");
    }
    assert!(off <= limit(Duration::from_millis(20)), "{off:?}");
    assert!(
        lost_share <= limit(Duration::from_secs(3)),
        "{lost_share:?}"
    );
    is_one_for_each_backoff(&retrying.1, opened[0]);
    is_one_for_each_backoff(&single.1, opened[1]);
}

/// A server that answers with nothing but errors is left after five, and then gets one call for each backoff.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_39_one_endpoint_fails() {
    let internal = Code::Internal as i32;
    let (rig, switch, met) =
        with_one_at_fault(move |_| Reaction::Fail(internal, SAID.to_owned())).await;
    let ends = Ends::default();
    let load = rig.load_with({
        let ends = ends.clone();
        move |channel, id| ends.clone().call(channel, id)
    });
    let fault_at = load.part(1, 3).await;
    switch.turn(true);
    wait_until(LIMIT, || has_lost_its_share(&rig)).await;
    load.watch(2, 3, || {
        assert!(has_lost_its_share(&rig), "it is used before it succeeds");
    })
    .await;
    switch.turn(false);
    let reports = load.finish().await;

    // The calls that may be repeated are so only after UNAVAILABLE: each failure is one attempt.
    let failed = ends.sides();
    let opened = [0, 1].map(|side| failed[side][FAULTS - 1].ended);
    let met = met.sides();
    let [retrying, single] = [0, 1].map(|side| trickle(&met[side], opened[side]));
    // Calls that had begun when the channel had heard of five are not its doing.
    let late = [0, 1].map(|side| {
        let burst = failed[side]
            .iter()
            .filter(|it| it.ended - opened[side] < OPEN_FOR);
        burst.filter(|it| it.began > opened[side]).count() as u64
    });
    let figures = [
        ("until_ejected", retrying.0.max(single.0) as u64),
        ("late", late.iter().sum()),
        ("trials", (retrying.1.len() + single.1.len()) as u64),
    ];
    let recovery = reports.recovery(fault_at);
    rig.score("39", &reports, Some(recovery), &figures).await;
    for failure in reports.retrying.failed.iter().chain(&reports.single.failed) {
        assert_eq!(failure.status.message(), SAID, "{failure:?}");
    }
    if is_strict() {
        assert_eq!(late, [0; 2], "begun when it should have been ejected");
    }
    is_one_for_each_backoff(&retrying.1, opened[0]);
    is_one_for_each_backoff(&single.1, opened[1]);
}

/// When all servers fail, so many stay in use that calls learn it from them, and not from a channel that finds no
/// endpoint.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_40_all_endpoints_fail() {
    // All but the last one.
    all_fail("40a", 3, 2).await;
}

/// The same in a set for which shares count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_40_all_of_many_endpoints_fail() {
    all_fail("40b", 10, 5).await;
}

async fn all_fail(row: &str, servers: usize, most_ejected: usize) {
    let switch = Switch::default();
    let rule = {
        let switch = switch.clone();
        move |_, request: &RequestInfo| {
            if switch.is_on() {
                Reaction::Fail(Code::Unavailable as i32, SAID.to_owned())
            } else {
                Reaction::echo(request, "")
            }
        }
    };
    let rig = Rig::start_raw_many(servers, STREAMS, rule, |it| it).await;
    let mut ejected = 0;
    let mut panicked = [false; 2];
    let mut look = || {
        for (side, panicked) in [&rig.retrying, &rig.single].iter().zip(&mut panicked) {
            let status = side.channel.status();
            let out = |health| matches!(health, Health::Ejected | Health::HalfOpen);
            let out = status.endpoints.iter().filter(|it| out(it.health.health));
            ejected = ejected.max(out.count());
            *panicked |= status.panic;
        }
    };
    let requests = || -> Vec<u64> { rig.servers.iter().map(|it| it.seen().requests()).collect() };

    let load = rig.load();
    load.part(1, 3).await;
    switch.turn(true);
    load.watch(1, 2, &mut look).await;
    let halfway = requests();
    load.watch(2, 3, &mut look).await;
    let at_the_end = requests();
    switch.turn(false);
    let healed = load.elapsed();
    let is_over = || {
        let statuses = [&rig.retrying, &rig.single].map(|it| it.channel.status());
        let well = |health| health == Health::Healthy;
        let all = statuses.iter().flat_map(|it| &it.endpoints);
        !statuses.iter().any(|it| it.panic) && all.clone().all(|it| well(it.health.health))
    };
    wait_until(rows::duration(), is_over).await;
    let over = load.elapsed() - healed;
    let reports = load.finish().await;

    let recovery = reports.recovery(healed);
    let figures = [
        ("most_ejected", ejected as u64),
        ("panic_over_ms", over.as_millis() as u64),
        ("retries", rig.retrying.channel.stats().retries),
    ];
    rig.score(row, &reports, Some(recovery), &figures).await;
    assert_eq!(panicked, [true; 2]);
    assert!(ejected <= most_ejected, "{ejected}");
    for failure in reports.retrying.failed.iter().chain(&reports.single.failed) {
        let error = Error::from_status(&failure.status);
        assert_eq!(failure.status.message(), SAID, "{failure:?} {error:?}");
    }
    // Those that are well first do not carry all of the load for long.
    assert!(over <= limit(Duration::from_secs(2)), "{over:?}");
    for nth in 0..servers {
        assert!(at_the_end[nth] > halfway[nth], "{nth} had no calls");
    }
}

/// A health check that is as impatient as it may be.
fn impatient(check: HealthCheck) -> HealthCheck {
    let often = Duration::from_millis(100);
    check.interval(often).unhealthy_interval(often)
}

/// A server that says this and that about its health is left alone until it has said one thing for a while, and the others
/// share its calls evenly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_41_health_flaps() {
    const BEAT: Duration = Duration::from_millis(100);
    let (rig, scripts) = Rig::start_checked([HealthMode::Serving; 3], impatient).await;
    let load = rig.load();
    let fault_at = load.part(1, 3).await;
    let mut flips = Flips::default();
    let mut beat = 0;
    let mut flap = || {
        let elapsed = load.elapsed() - fault_at;
        if elapsed.as_millis() / BEAT.as_millis() >= beat {
            let mode = match beat % 2 {
                0 => HealthMode::NotServing,
                _ => HealthMode::Serving,
            };
            scripts[0].set(mode);
            beat += 1;
        }
        flips.look(&rig, 0);
    };
    // The channels see it within a beat or two, and the calls that were under way end.
    load.watch(5, 12, &mut flap).await;
    let handled = || -> Vec<u64> {
        rig.servers
            .iter()
            .map(|it| it.journal().started())
            .collect()
    };
    let before = handled();
    load.watch(2, 3, &mut flap).await;
    let after = handled();
    let meanwhile = flips.counts();
    scripts[0].set(HealthMode::Serving);
    let is_back = || {
        flips.look(&rig, 0);
        gets_calls(&rig, 0) == [true; 2]
    };
    wait_until(LIMIT, is_back).await;
    let reports = load.finish().await;

    let shares: Vec<u64> = before.iter().zip(&after).map(|(a, b)| b - a).collect();
    let fair = (shares[1] + shares[2]) / 2;
    let off = shares[1].abs_diff(fair) * 1000 / fair;
    let figures = [
        ("beats", beat as u64),
        ("flips_watching", flips.counts()[0]),
        ("flips_asking", flips.counts()[1]),
        ("flips_meanwhile", meanwhile.iter().sum()),
        ("handled_flapping", shares[0]),
        ("share_off_permille", off),
    ];
    rig.score("41", &reports, Some(reports.recovery(fault_at)), &figures)
        .await;
    reports.none_failed();
    flips.are_few();
    assert_eq!(shares[0], 0, "it had calls meanwhile");
    assert!(off <= 100, "{shares:?}");
}

/// Servers that have no health service, or none any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_42_no_health_service() {
    unreliable("42a", HealthMode::Unimplemented).await;
}

/// Health services that answer nothing, or nothing any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_42_health_service_stalls() {
    unreliable("42b", HealthMode::Stalled).await;
}

/// The same, of which the server tells: its own watch over the time of the question was faster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_42_health_service_is_late() {
    unreliable("42d", HealthMode::Expired).await;
}

/// Health services that break off their answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_42_health_service_dies() {
    unreliable("42c", HealthMode::Broken).await;
}

/// A health service of no use takes nothing from its server, whether it was so from the first or becomes it, and nobody
/// asks it more often than others.
async fn unreliable(row: &str, mode: HealthMode) {
    const INTERVAL: Duration = Duration::from_millis(500);
    let check = |check: HealthCheck| {
        let check = check.interval(INTERVAL).unhealthy_interval(INTERVAL);
        check.timeout(INTERVAL / 2)
    };
    let warnings = Warnings::watch();
    let began = Instant::now();
    let modes = [HealthMode::Serving, mode, HealthMode::Serving];
    let (rig, scripts) = Rig::start_checked(modes, check).await;
    let all_get_calls = || (0..3).all(|nth| gets_calls(&rig, nth) == [true; 2]);
    // Its first answer is waited for.
    wait_until(LIMIT, all_get_calls).await;
    let usable = |when: &str| {
        let seen = || [0, 1, 2].map(|nth| statuses(&rig, nth).map(|it| it.health));
        assert!(all_get_calls(), "{when}: {:#?}", seen());
    };
    let load = rig.load();
    let fault_at = load.watch(1, 3, || usable("before")).await;
    scripts[0].set(mode);
    load.watch(2, 3, || usable("meanwhile")).await;
    scripts[0].set(HealthMode::Serving);
    load.watch(1, 1, || usable("afterwards")).await;
    let reports = load.finish().await;

    let asked = scripts.each_ref().map(asked);
    let lasted = began.elapsed();
    let warned = |nth: usize| warnings.with(&rig.address(nth));
    let warned = [0, 1, 2].map(warned);
    let figures = [
        (
            "warnings",
            warned.iter().map(Vec::len).sum::<usize>() as u64,
        ),
        ("probes_watching", asked[0][0] + asked[1][0]),
        ("probes_asking", asked[0][1] + asked[1][1]),
        ("probes_each_at_most", most(lasted, INTERVAL)),
    ];
    rig.score(row, &reports, Some(reports.recovery(fault_at)), &figures)
        .await;
    reports.none_failed();
    for warned in &warned {
        // Each channel once.
        assert!(warned.len() <= 2, "{warned:#?}");
    }
    let most = most(lasted, INTERVAL);
    assert!(asked.iter().flatten().all(|it| *it <= most), "{asked:?}");
}

/// How often the channel that watches asked, and the other.
fn asked(script: &HealthScript) -> [u64; 2] {
    let requests = script.requests();
    [WATCHES, ASKS].map(|service| {
        let of_it = requests.iter().filter(|it| it.service == service);
        of_it.count() as u64
    })
}

/// One for each interval, which may be a tenth shorter, from the first on; and one to find out that watching is no use.
fn most(time: Duration, interval: Duration) -> u64 {
    (time.as_secs_f64() / (interval.as_secs_f64() * 0.9)) as u64 + 2
}
