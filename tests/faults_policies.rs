//! Score card rows 13 to 15, 35 and 36 under each policy: what a policy does must not undo what the rest of the channel
//! promises.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use rows::budget::{Sample, attempts_within_budget, within_budget};
use rows::calls::call;
use rows::ends::Ends;
use rows::passing::Passing;
use rows::policies::{Pair, Policies, Score, finish, policy_of};
use rows::rig::{LIMIT, Loads, Reports};
use rows::served::NAMES;
use rows::shares::{Counts, LOST_SHARE, Shares};
use rows::switch::{Switch, is_single};
use rows::{is_strict, limit};
use support::chaos::Toxics;
use support::frames::code;
use support::reaction::{Reaction, RequestInfo};
use support::server::EchoServer;
use support::wait::{wait_equal, wait_until};
use tonic::Code;
use trunkline::{Attempt, Channel, Error};

/// What a call takes where nothing is slow.
const HANDLER: Duration = Duration::from_millis(5);

/// Handlers of one server hang. Whatever the policy, its calls fail with their deadline, their streams end, and it has lost
/// its share while it still hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_13_handlers_hang_by_policy() {
    let switch = Switch::default();
    let met: Arc<[[AtomicU64; 2]; 32]> = Arc::default();
    let rule = {
        let (switch, met) = (switch.clone(), Arc::clone(&met));
        move |nth: usize, request: &RequestInfo| {
            if nth != 0 || !switch.is_on() {
                return Reaction::echo(request, NAMES[nth]);
            }
            let policy = policy_of(request.echo().unwrap().id);
            met[policy][usize::from(is_single(request))].fetch_add(1, SeqCst);
            Reaction::Silence
        }
    };
    let policies = Policies::start_raw(rule).await;
    let ends = Ends::default();
    let loads = policies.load({
        let ends = ends.clone();
        move |_, channel, id| ends.clone().call(channel, id)
    });
    let fault = loads[0].part(1, 3).await;
    switch.turn(true);
    let look = || -> Counts {
        let met = |nth: usize, side: usize| met[nth][side].load(SeqCst);
        let counts = |(nth, load): (usize, &Loads)| {
            let sent = [load.retrying.sent(), load.single.sent()];
            [(sent[0], met(nth, 0)), (sent[1], met(nth, 1))]
        };
        loads.iter().enumerate().map(counts).collect()
    };
    let mut watch = Shares::default();
    wait_until(LIMIT, || watch.look(loads[0].elapsed(), look())).await;
    loads[0].part(2, 3).await;
    let at_the_end = look();
    switch.turn(false);
    let reports = finish(loads).await;

    let hung = |nth: usize| -> u64 { met[nth].iter().map(|it| it.load(SeqCst)).sum() };
    let all_hung = (0..reports.len()).map(hung).sum::<u64>();
    let seen = Arc::clone(policies.servers[0].seen());
    wait_equal(LIMIT, all_hung, || seen.resets(code::CANCEL)).await;

    let ends = ends.all();
    let scores = (0..).zip(reports).map(|(nth, reports)| {
        let ends = ends.iter().filter(|it| policy_of(it.id) == nth);
        let off = ends.map(|it| it.lasted().abs_diff(Duration::from_secs(1)));
        let off = off.max().unwrap_or_default();
        assert!(off <= limit(Duration::from_millis(20)), "{nth}: {off:?}");
        let lost = watch.lost_at(nth) - fault;
        assert!(lost <= limit(Duration::from_secs(3)), "{nth}: {lost:?}");
        Score {
            recovery: Some(reports.recovery(fault)),
            figures: vec![
                ("share_ms", lost.as_millis() as u64),
                ("hung", hung(nth)),
                ("off_deadline_us", off.as_micros() as u64),
            ],
            reports,
        }
    });
    let scores: Vec<_> = scores.collect();
    policies.score("13", &scores).await;
    for (nth, score) in scores.iter().enumerate() {
        let Score { reports, .. } = score;
        for failure in reports.retrying.failed.iter().chain(&reports.single.failed) {
            assert_eq!(failure.status.code(), Code::DeadlineExceeded, "{failure:?}");
        }
        // A trial now and then, of a breaker or of chance.
        for side in [0, 1] {
            let (sent, met) = watch.since_lost(nth, side, &at_the_end);
            assert!(met <= LOST_SHARE + sent / 10, "{nth}: {met} of {sent}");
        }
    }
}

/// A server takes a hundred times as long. Calls on the others pass it by; a policy that sees load gives it less than half
/// of its share, and others give it all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_14_slow_endpoint_by_policy() {
    let policies = Policies::start(HANDLER).await;
    let slow = |factor| policies.servers[0].behaviour().set_delay(HANDLER * factor);
    let beside = Passing::run(&policies, || slow(100), || slow(1)).await;

    let scores = beside.scores(|_| Vec::new());
    let all: Vec<_> = policies.pairs.iter().map(|it| it.sees_load).collect();
    policies.score("14", &scores).await;
    for (nth, sees_load) in all.into_iter().enumerate() {
        scores[nth].reports.none_failed();
        beside.others_pass_by(nth);
        let (share, all) = (beside.slow[nth], beside.all[nth]);
        if sees_load {
            assert!(share * 6 < all, "{nth}: {share} of {all}");
        } else {
            assert!(share * 5 > all, "{nth}: {share} of {all}");
            let took = beside.on_slow(nth);
            let longest = took.last().unwrap();
            assert!(*longest >= HANDLER * 100, "{nth}: {took:?}");
        }
    }
}

/// The link to a server is slower than its share of the calls. Calls on other links pass it by, and what fails was on the
/// slow one; of a policy that sees load fewer fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_15_slow_link_by_policy() {
    const RATE: u64 = 64_000 / 8;
    let (policies, proxies) = Policies::start_behind_proxies(HANDLER, 15).await;
    let set = |toxics| proxies.iter().for_each(|it| it.set(toxics));
    let narrow = Toxics {
        bytes_per_second: Some(RATE),
        ..Toxics::default()
    };
    let beside = Passing::run(&policies, || set(narrow), || set(Toxics::default())).await;

    let dials = |pair: &Pair| (pair.retrying.dials.count() + pair.single.dials.count()) as u64;
    let dials: Vec<_> = policies.pairs.iter().map(dials).collect();
    let scores = beside.scores(|nth| vec![("dials", dials[nth])]);
    let links: Vec<_> = proxies.iter().map(|it| it.addr().to_string()).collect();
    drop(proxies);
    let sees_load: Vec<_> = policies.pairs.iter().map(|it| it.sees_load).collect();
    policies.score("15", &scores).await;
    let failed = |nth: usize| {
        let Score { reports, .. } = &scores[nth];
        reports.retrying.failed.iter().chain(&reports.single.failed)
    };
    for (nth, link) in links.iter().enumerate() {
        for failure in failed(nth) {
            let error = Error::from_status(&failure.status).expect("the channel's error");
            // Some left it when a connection was lost, with little time to go.
            let mut tried = error.history().iter().map(Attempt::endpoint);
            assert!(tried.any(|it| it == Some(link)), "{error:?}");
        }
        beside.others_pass_by(nth);
    }
    let most = |sees: bool| {
        let of = (0..links.len()).filter(|nth| sees_load[*nth] == sees);
        of.map(|nth| failed(nth).count()).max().unwrap()
    };
    assert!(most(false) > 0, "the link was not slow");
    assert!(most(true) < most(false), "{} {}", most(true), most(false));
}

/// Every second handling fails: retries add no more than the budget lets through, and stop with the failures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_35_half_unavailable_by_policy() {
    let failing = Failing::run(0.5).await;
    let (healed, samples) = (failing.healed, failing.samples);
    let scores = (0..).zip(failing.reports).map(|(nth, reports)| {
        let share = within_budget(&samples[nth]);
        let extra = samples[nth].last().unwrap().extra();
        assert!(extra > 0, "{nth}: nothing was retried");
        if is_strict() {
            assert!(
                share >= 80,
                "{nth}: it was not the budget that stopped them"
            );
        }
        for failure in reports.retrying.failed.iter().chain(&reports.single.failed) {
            let status = &failure.status;
            // The last attempt's answer; but a busy machine may be too slow for a deadline.
            let late = status.code() == Code::DeadlineExceeded;
            assert!(late || status.message() == "asked to fail", "{status:?}");
        }
        Score {
            recovery: Some(reports.recovery(healed)),
            figures: vec![("extra", extra), ("budget_percent", share)],
            reports,
        }
    });
    let scores: Vec<_> = scores.collect();
    failing.policies.score("35", &scores).await;
    for Score { recovery, .. } in scores {
        assert!(
            recovery <= Some(limit(Duration::from_secs(2))),
            "{recovery:?}"
        );
    }
}

/// Nothing succeeds for a while: retries add little to the load of it, and calls succeed again with the servers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_36_all_unavailable_by_policy() {
    let failing = Failing::run(1.0).await;
    let (healed, samples) = (failing.healed, failing.samples);
    let scores = (0..).zip(failing.reports).map(|(nth, reports)| {
        let (before, after) = failing.fault[nth];
        let (called, attempts) = attempts_within_budget(&before, &after);
        let share = within_budget(&samples[nth]);
        assert!(attempts > called && share >= 80, "{nth}: {share} %");
        Score {
            recovery: Some(reports.recovery(healed)),
            figures: vec![
                ("fault_calls", called),
                ("fault_attempts", attempts),
                ("budget_percent", share),
            ],
            reports,
        }
    });
    let scores: Vec<_> = scores.collect();
    failing.policies.score("36", &scores).await;
    for Score { recovery, .. } in scores {
        assert!(
            recovery <= Some(limit(Duration::from_secs(2))),
            "{recovery:?}"
        );
    }
}

/// A load on servers that failed from one third of the time to two thirds.
struct Failing {
    policies: Policies<EchoServer>,
    reports: Vec<Reports>,
    samples: Vec<Vec<Sample>>,
    /// How things were at its beginning and at its end, for each policy.
    fault: Vec<(Sample, Sample)>,
    healed: Duration,
}

impl Failing {
    async fn run(share: f64) -> Self {
        let policies = Policies::start(Duration::ZERO).await;
        let loads = policies.load(|_, channel: Channel, id| call(channel, id));
        let sample = || {
            let of = |(pair, load)| Sample::take(load, policies.handled(pair, &[0, 1, 2]));
            policies.pairs.iter().zip(&loads).map(of)
        };
        let mut samples: Vec<Vec<Sample>> = loads.iter().map(|_| Vec::new()).collect();
        let pause = rows::duration() / 100;
        let mut last = Duration::ZERO;
        let mut look = || {
            if loads[0].elapsed() >= last + pause {
                last = loads[0].elapsed();
                for (samples, now) in samples.iter_mut().zip(sample()) {
                    samples.push(now);
                }
            }
        };
        loads[0].watch(1, 3, &mut look).await;
        for server in &policies.servers {
            server.behaviour().fail(share, Code::Unavailable);
        }
        let before: Vec<_> = sample().collect();
        loads[0].watch(2, 3, &mut look).await;
        for server in &policies.servers {
            server.behaviour().heal();
        }
        let healed = loads[0].elapsed();
        let after: Vec<_> = sample().collect();
        loads[0].watch(3, 3, &mut look).await;
        let reports = finish(loads).await;
        Self {
            policies,
            reports,
            samples,
            fault: before.into_iter().zip(after).collect(),
            healed,
        }
    }
}
