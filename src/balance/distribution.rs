//! The tests that every policy has to pass: are the shares what they should be?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http::{Extensions, HeaderMap};

use super::{Candidate, InFlight, Load, Pick, PickRequest, Picker, Policy};

/// What an endpoint's part of the picks should be.
#[derive(Clone, Copy)]
pub(super) enum Shares {
    Equal,
    ByWeight,
}

/// How far the picks may stray from it.
#[derive(Clone, Copy)]
pub(super) enum Picks {
    /// A repeating order: two picks per endpoint and thread, and 0.1 % for the rounding of weights.
    Even,
    /// Independent draws: Pearson's chi-square test with p = 0.001. The draws are seeded, so that
    /// the test either always passes or always fails.
    Independent,
}

/// Runs a policy, which must be seeded, through every set. Sets of more than 8 are not steep.
pub(super) fn check(policy: &dyn Policy, shares: Shares, picks: Picks) {
    let unequal: Vec<u32> = (0..1_000).map(|index| 1 + index * 37 % 100).collect();
    let sets: [&[u32]; 12] = [
        &[7],
        &[1, 1],
        &[3, 1],
        &[u32::MAX, u32::MAX - 1],
        &[5, 1, 1],
        &[0, 4, 1],
        &[0, 0, 0],
        &[0, 0, 9],
        &[1, 2, 3, 4, 5, 6, 7],
        &[100, 1, 1, 1, 1, 1, 1],
        &[1; 1_000],
        &unequal,
    ];
    for weights in sets {
        check_set(policy, weights, shares, picks);
    }
    // One starts, one recovers: their part of what is their due, whether that is by weight or not.
    for (weights, parts) in [
        (&[1, 1][..], &[0.1, 1.0][..]),
        (&[2, 3, 5], &[0.5, 1.0, 0.25]),
        (&[7, 7, 7, 0], &[0.1, 0.1, 0.1, 1.0]),
    ] {
        check_parts(policy, weights, parts, shares, picks);
    }
    a_new_set_starts_anew(policy);
    nothing_to_pick_from(policy);
}

/// Picks from one set, first in one thread, then in two.
pub(super) fn check_set(policy: &dyn Policy, weights: &[u32], shares: Shares, picks: Picks) {
    check_parts(policy, weights, &vec![1.0; weights.len()], shares, picks);
}

/// The same where some endpoints get only a part of what is their due.
fn check_parts(policy: &dyn Policy, weights: &[u32], parts: &[f64], shares: Shares, picks: Picks) {
    let ideal = ideal(weights, parts, shares);
    let rarest = ideal
        .iter()
        .copied()
        .filter(|share| *share > 0.0)
        .fold(1.0, f64::min);
    // The chi-square test wants 5 of each at least.
    let each = ((10.0 / rarest) as usize).max(10_000);
    let candidates: Vec<_> = candidates(weights)
        .into_iter()
        .zip(parts)
        .map(|(candidate, part)| candidate.with_share(*part))
        .collect();
    for threads in [1, 2] {
        let picker = policy.build(&candidates);
        let mut counts = vec![0; weights.len()];
        thread::scope(|scope| {
            let running: Vec<_> = (0..threads)
                .map(|_| scope.spawn(|| self::picks(&*picker, each)))
                .collect();
            for thread in running {
                for index in thread.join().unwrap() {
                    counts[index] += 1;
                }
            }
        });
        let what = format!(
            "{} of {} endpoints, {threads} threads",
            policy.name(),
            weights.len()
        );
        compare(&counts, &ideal, picks, threads, &what);
    }
}

fn compare(counts: &[u64], ideal: &[f64], picks: Picks, threads: u64, what: &str) {
    let total = counts.iter().sum::<u64>() as f64;
    for (index, (&count, share)) in counts.iter().zip(ideal).enumerate() {
        assert!(
            *share > 0.0 || count == 0,
            "{what}: {count} picks of endpoint {index}, which is drained"
        );
        let bound = match picks {
            Picks::Even => 2.0 * threads as f64 + 0.001 * share * total,
            Picks::Independent => f64::INFINITY,
        };
        let off = (count as f64 - share * total).abs();
        assert!(
            off <= bound,
            "{what}: {count} picks of endpoint {index} instead of {}",
            share * total
        );
    }
    if let Picks::Independent = picks {
        let (statistic, freedom) = chi_square(counts, ideal);
        assert!(
            statistic <= critical(freedom),
            "{what}: chi-square {statistic} at {freedom} degrees of freedom"
        );
    }
}

fn a_new_set_starts_anew(policy: &dyn Policy) {
    let build = || policy.build(&candidates(&[3, 2, 2]));
    let fresh = picks(&*build(), 100);
    let (old, other) = (build(), policy.build(&candidates(&[1; 50])));
    picks(&*old, 55);
    picks(&*other, 55);
    assert_eq!(picks(&*build(), 100), fresh, "{}", policy.name());
}

fn nothing_to_pick_from(policy: &dyn Policy) {
    let picker = policy.build(&[]);
    assert_eq!(with_request(|request| picker.pick(request)), Pick::Wait);
}

/// Endpoints of these weights.
pub(super) fn candidates(weights: &[u32]) -> Vec<Candidate> {
    (0..)
        .zip(weights)
        .map(|(identity, &weight)| Candidate::new(identity, weight))
        .collect()
}

/// The next picks of this thread, all of which must be endpoints.
pub(super) fn picks(picker: &dyn Picker, count: usize) -> Vec<usize> {
    let index = |pick| match pick {
        Pick::Endpoint(index) => index,
        other => panic!("{other:?}"),
    };
    with_request(|request| (0..count).map(|_| index(picker.pick(request))).collect())
}

/// The shares of endpoints that answer in so many milliseconds, where so many calls are in flight all the time.
pub(super) fn simulate(policy: &dyn Policy, times: &[u32], in_flight: usize) -> Vec<f64> {
    const CALLS: usize = 50_000;
    let loads: Vec<_> = times.iter().map(|_| Arc::new(Load::default())).collect();
    let candidates: Vec<_> = (0..)
        .zip(&loads)
        .map(|(identity, load)| Candidate::new(identity, 1).with_load(Arc::clone(load)))
        .collect();
    let picker = policy.build(&candidates);
    let mut running = BTreeMap::<(Duration, usize), (usize, InFlight)>::new();
    let mut counts = vec![0_u32; times.len()];
    let mut now = Duration::ZERO;
    for call in 0..CALLS {
        if running.len() == in_flight
            && let Some(((end, _), (index, ended))) = running.pop_first()
        {
            now = end;
            drop(ended);
            let took = Duration::from_millis(times[index].into());
            loads[index].end_pending();
            loads[index].answered(took, now);
        }
        let pick = with_request(|request| picker.pick(&request.at(now)));
        let Pick::Endpoint(index) = pick else {
            panic!("{pick:?}");
        };
        counts[index] += 1;
        loads[index].begin_pending();
        let end = now + Duration::from_millis(times[index].into());
        running.insert((end, call), (index, loads[index].begin()));
    }
    counts
        .iter()
        .map(|count| f64::from(*count) / CALLS as f64)
        .collect()
}

/// How often each of `endpoints` endpoints is among the picks.
pub(super) fn counts(picks: &[usize], endpoints: usize) -> Vec<u64> {
    let mut counts = vec![0; endpoints];
    for &index in picks {
        counts[index] += 1;
    }
    counts
}

/// For pickers that don't look at the request.
pub(super) fn with_request<R>(run: impl FnOnce(&PickRequest<'_>) -> R) -> R {
    run(&PickRequest::new(
        "/test.Test/Call",
        &HeaderMap::new(),
        &Extensions::new(),
    ))
}

fn ideal(weights: &[u32], parts: &[f64], shares: Shares) -> Vec<f64> {
    let drained = weights.iter().all(|&weight| weight == 0);
    let part = |weight| match (weight, shares) {
        (_, _) if drained => 1.0,
        (0, _) => 0.0,
        (_, Shares::Equal) => 1.0,
        (weight, Shares::ByWeight) => f64::from(weight),
    };
    let due = || weights.iter().zip(parts).map(|(&it, &of)| part(it) * of);
    let sum: f64 = due().sum();
    due().map(|due| due / sum).collect()
}

/// Pearson's statistic over the endpoints in use, and its degrees of freedom.
fn chi_square(counts: &[u64], ideal: &[f64]) -> (f64, f64) {
    let total = counts.iter().sum::<u64>() as f64;
    let used = || counts.iter().zip(ideal).filter(|(_, share)| **share > 0.0);
    let statistic = used()
        .map(|(&count, share)| (count as f64 - share * total).powi(2) / (share * total))
        .sum();
    (statistic, (used().count() - 1) as f64)
}

/// The value that chi-square exceeds with p = 0.001: the approximation of Wilson and Hilferty
/// (1931), 3 % too high at one degree of freedom, 1 % at ten.
fn critical(freedom: f64) -> f64 {
    const NORMAL: f64 = 3.090_2;
    if freedom == 0.0 {
        return 0.0;
    }
    let spread = 2.0 / (9.0 * freedom);
    freedom * (1.0 - spread + NORMAL * spread.sqrt()).powi(3)
}

#[test]
fn critical_values_are_those_of_the_tables() {
    for (freedom, table) in [
        (1.0, 10.828),
        (2.0, 13.816),
        (9.0, 27.877),
        (100.0, 149.449),
        (999.0, 1_142.8),
    ] {
        let ratio = critical(freedom) / table;
        assert!((0.995..1.035).contains(&ratio), "{ratio} at {freedom}");
    }
}

#[test]
#[should_panic(expected = "chi-square")]
fn a_bias_of_five_percent_is_seen() {
    compare(
        &[21_000, 19_000],
        &[0.5, 0.5],
        Picks::Independent,
        1,
        "biased",
    );
}

#[test]
#[should_panic(expected = "instead of")]
fn an_uneven_order_is_seen() {
    compare(&[10_030, 9_970], &[0.5, 0.5], Picks::Even, 1, "uneven");
}

#[test]
#[should_panic(expected = "drained")]
fn a_drained_pick_is_seen() {
    compare(&[20_000, 1], &[1.0, 0.0], Picks::Even, 1, "drained");
}
