//! Score card rows 35 to 38: how much load retries add, when they come, and what is not retried.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rows::budget::{Sample, attempts_within_budget, sum, within_budget};
use rows::limit;
use rows::rig::{Loads, Rig, SINGLE_IDS, STREAMS};
use rows::switch::{Switch, is_single};
use support::journal::Journal;
use support::reaction::Reaction;
use tokio::time::Instant;
use tonic::Code;
use trunkline::Error;

/// Long enough that calls are under way whenever a connection is cut.
const HANDLER: Duration = Duration::from_millis(20);

/// What was called and handled so far.
fn sample(load: &Loads, journals: &[Arc<Journal>]) -> Sample {
    Sample::take(load, sum(journals.iter().map(|it| it.handled())))
}

/// Takes samples until this part of the row's time is over.
async fn watch(load: &Loads, part: u32, journals: &[Arc<Journal>], samples: &mut Vec<Sample>) {
    let pause = rows::duration() / 200;
    let look = || {
        let last = samples.last().map_or(Duration::ZERO, |it| it.at);
        if load.elapsed() >= last + pause {
            samples.push(sample(load, journals));
        }
    };
    load.watch(part, 3, look).await;
}

fn journals(rig: &Rig) -> Vec<Arc<Journal>> {
    let journals = rig.servers.iter().map(|it| Arc::clone(it.journal()));
    journals.collect()
}

/// Every second handling fails: many more calls would be retried than the budget lets through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_35_half_unavailable() {
    let rig = Rig::start(Duration::ZERO).await;
    let journals = journals(&rig);
    let load = rig.load();
    let mut samples = Vec::new();
    watch(&load, 1, &journals, &mut samples).await;
    for server in &rig.servers {
        server.behaviour().fail(0.5, Code::Unavailable);
    }
    watch(&load, 2, &journals, &mut samples).await;
    for server in &rig.servers {
        server.behaviour().heal();
    }
    let healed = load.elapsed();
    watch(&load, 3, &journals, &mut samples).await;
    let last = sample(&load, &journals);
    let reports = load.finish().await;

    let share = within_budget(&samples);
    let recovery = reports.recovery(healed);
    let figures = [("extra", last.extra()), ("budget_percent", share)];
    rig.score("35", &reports, Some(recovery), &figures).await;
    for report in [&reports.retrying, &reports.single] {
        // The last attempt's answer, and no error of the channel's; but a busy machine may be too slow for a deadline.
        for failure in &report.failed {
            let status = &failure.status;
            let answer = status.message() == "asked to fail";
            assert!(
                answer || status.code() == Code::DeadlineExceeded,
                "{status:?}"
            );
        }
        assert!(!report.failed.is_empty());
    }
    // It was the budget that stopped them.
    assert!(share >= 80, "{share} %");
    assert!(recovery <= limit(Duration::from_secs(2)), "{recovery:?}");
}

/// Nothing succeeds for a while: retries add little to the load of it, and calls succeed again with the servers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_36_all_unavailable() {
    let rig = Rig::start(Duration::ZERO).await;
    let journals = journals(&rig);
    let load = rig.load();
    let mut samples = Vec::new();
    watch(&load, 1, &journals, &mut samples).await;
    for server in &rig.servers {
        server.behaviour().fail(1.0, Code::Unavailable);
    }
    let before = sample(&load, &journals);
    watch(&load, 2, &journals, &mut samples).await;
    for server in &rig.servers {
        server.behaviour().heal();
    }
    let healed = load.elapsed();
    let after = sample(&load, &journals);
    watch(&load, 3, &journals, &mut samples).await;
    let reports = load.finish().await;

    let (called, attempts) = attempts_within_budget(&before, &after);
    let share = within_budget(&samples);
    let recovery = reports.recovery(healed);
    let figures = [
        ("fault_calls", called),
        ("fault_attempts", attempts),
        ("budget_percent", share),
    ];
    rig.score("36", &reports, Some(recovery), &figures).await;
    assert!(attempts > called && share >= 80, "{share} %");
    assert!(recovery <= limit(Duration::from_secs(2)), "{recovery:?}");
}

/// What a server may say about when to retry, in turn.
const WORDS: [&str; 4] = ["300", "-1", "x", "1099511627776"];

/// One call in eight is answered once with UNAVAILABLE and such a word.
fn word(id: u64) -> Option<&'static str> {
    id.is_multiple_of(8)
        .then(|| WORDS[(id / 8) as usize % WORDS.len()])
}

/// A server that says when to retry is obeyed to the millisecond; one that forbids it too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_37_pushback() {
    const ASKED: Duration = Duration::from_millis(300);
    let fault = Switch::default();
    let on = fault.clone();
    // When the calls that met such a word were seen.
    let seen = Arc::new(Mutex::new(BTreeMap::<u64, Vec<Instant>>::new()));
    let noted = Arc::clone(&seen);
    let rig = Rig::start_raw(STREAMS, move |_, request| {
        let id = request.echo().unwrap().id;
        let mut noted = noted.lock().unwrap();
        if let Some(times) = noted.get_mut(&id) {
            times.push(Instant::now());
        } else if let Some(word) = word(id).filter(|_| on.is_on()) {
            noted.insert(id, vec![Instant::now()]);
            return Reaction::FailWith(14, vec![("grpc-retry-pushback-ms", word)]);
        }
        Reaction::echo(request, "raw")
    });
    let rig = rig.await;
    let load = rig.load();
    load.part(1, 3).await;
    fault.turn(true);
    load.part(2, 3).await;
    fault.turn(false);
    let healed = load.elapsed();
    let reports = load.finish().await;

    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let mut waits = Vec::new();
    let mut forbidden = 0;
    for (&id, times) in &seen {
        match times[..] {
            [first, second] if word(id) == Some("300") => waits.push(second - first),
            [_] if word(id) != Some("300") => forbidden += 1,
            _ => panic!("{id}: {:?}, seen {} times", word(id), times.len()),
        }
    }
    waits.sort();
    let (shortest, longest) = (waits[0], waits[waits.len() - 1]);
    let recovery = reports.recovery(healed);
    let figures = [
        ("waits", waits.len() as u64),
        ("shortest_ms", shortest.as_millis() as u64),
        ("longest_ms", longest.as_millis() as u64),
        ("forbidden", forbidden),
    ];
    rig.score("37", &reports, Some(recovery), &figures).await;
    let failed = reports.retrying.failed.len() + reports.single.failed.len();
    assert_eq!(failed as u64, forbidden);
    assert!(forbidden >= 3);
    assert!(shortest >= ASKED, "{shortest:?}");
    assert!(
        longest <= ASKED + limit(Duration::from_millis(20)),
        "{longest:?}"
    );
}

/// Connections to one of three are cut while their calls are under way: what may not be repeated fails, was handled once at most, and
/// says that it may have been.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_38_cut_after_send() {
    let fault = Switch::default();
    let on = fault.clone();
    let cut = Arc::new(Mutex::new([0; 2]));
    let counted = Arc::clone(&cut);
    let rig = Rig::start_raw(STREAMS, move |peer, request| {
        if peer == 0 && on.strikes(peer, request, 20) {
            counted.lock().unwrap()[usize::from(is_single(request))] += request.open as u64;
            return Reaction::Abort;
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

    let [idempotent, single] = *cut.lock().unwrap();
    let peer = rig.address(0);
    let mut handled = BTreeMap::<u64, u64>::new();
    for (id, times) in rig.servers.iter().flat_map(|it| it.seen().handled()) {
        *handled.entry(id).or_default() += times;
    }
    let retries = [&rig.retrying, &rig.single].map(|side| side.channel.stats().retries);
    let recovery = reports.recovery(healed);
    let figures = [
        ("cuts", fault.count()),
        ("cut_idempotent", idempotent),
        ("cut", single),
        ("retries", retries[0]),
    ];
    rig.score("38", &reports, Some(recovery), &figures).await;
    reports.no_idempotent_failed();
    assert!(fault.count() >= 4, "{} cuts", fault.count());
    assert_eq!(retries[1], 0);
    assert!(retries[0] > 0);
    let failed = &reports.single.failed;
    assert!(!failed.is_empty());
    for failure in failed {
        let error = Error::from_status(&failure.status).expect("the channel's error");
        assert!(
            error.is_disconnected() && error.maybe_processed(),
            "{error:?}"
        );
        assert_eq!((error.endpoint(), error.attempts()), (Some(&*peer), 1));
        assert!(error.to_string().contains("not retried"), "{error}");
    }
    // At most once, whether they failed or not; the score's "dup" says the same.
    for (id, times) in handled.split_off(&SINGLE_IDS) {
        assert_eq!(times, 1, "{id}");
    }
}
