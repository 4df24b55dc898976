//! What spills over, and comes back.

use std::collections::BTreeMap;

use super::super::distribution::{self, Picks, Shares, counts, picks, with_request};
use super::super::{ConsistentHash, PeakEwma, RoundRobin, Weighted};
use super::*;

const CALLS: usize = 20_000;

fn with(key: &str, value: &str, weight: u32) -> Candidate {
    let metadata = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    Candidate::new(0, weight).with_metadata(Arc::new(metadata))
}

/// So many endpoints of each priority.
fn priorities(sizes: &[usize]) -> Vec<Candidate> {
    let tiers = sizes.iter().enumerate();
    let tiers = tiers.map(|(priority, size)| vec![with(PRIORITY, &priority.to_string(), 1); *size]);
    tiers.flatten().collect()
}

/// The part of the calls that each tier gets, where so many of its endpoints are well and so many are not.
fn parts(policy: &Tiers, well: &[usize], ill: &[usize]) -> Vec<f64> {
    let candidates = priorities(well);
    let picker = policy.build_among(&candidates, &priorities(ill));
    let mut counts = counts(&picks(&*picker, CALLS), candidates.len()).into_iter();
    let tiers = well
        .iter()
        .map(|size| counts.by_ref().take(*size).sum::<u64>());
    tiers.map(|count| count as f64 / CALLS as f64).collect()
}

#[test]
fn calls_spill_over_as_in_the_table() {
    let policy = Tiers::by_priority(RoundRobin::new()).with_seed(1);
    for (well, first) in [
        (10, 1.0),
        (8, 1.0),
        (7, 0.98),
        (5, 0.7),
        (1, 0.14),
        (0, 0.0),
    ] {
        let parts = parts(&policy, &[well, 4], &[10 - well, 0]);
        assert!((parts[0] - first).abs() < 0.01, "{well} of 10: {parts:?}");
        assert!((parts[0] + parts[1] - 1.0).abs() < 1e-9);
    }
}

#[test]
fn if_nobody_can_take_all_each_gets_its_part() {
    let policy = Tiers::by_priority(RoundRobin::new()).with_seed(1);
    let shared = parts(&policy, &[1, 2], &[9, 8]);
    assert!((shared[0] - 1.0 / 3.0).abs() < 0.02, "{shared:?}");
    let third = parts(&policy, &[5, 5, 5], &[5, 5, 5]);
    assert!(
        (third[1] - 0.3).abs() < 0.02 && third[2] == 0.0,
        "{third:?}"
    );
}

#[test]
fn the_factor_may_be_another_one() {
    let exact = Tiers::by_priority(RoundRobin::new())
        .with_seed(1)
        .overprovisioning(1.0);
    assert!((parts(&exact, &[9, 1], &[1, 0])[0] - 0.9).abs() < 0.01);
    for (factor, is) in [
        (0.1, 1.0),
        (f64::NAN, 1.0),
        (f64::INFINITY, 100.0),
        (2.0, 2.0),
    ] {
        let policy = Tiers::by_priority(RoundRobin::new()).overprovisioning(factor);
        assert_eq!(policy.overprovisioning, is, "{factor}");
    }
}

#[test]
fn what_is_well_is_counted_by_weight() {
    let policy = Tiers::by_priority(RoundRobin::new()).with_seed(1);
    let candidates = [with(PRIORITY, "0", 1), with(PRIORITY, "1", 1)];
    let picker = policy.build_among(&candidates, &[with(PRIORITY, "0", 13)]);
    let first = counts(&picks(&*picker, CALLS), 2)[0];
    assert!(first.abs_diff(2_000) < 200, "{first}");
}

/// It starts, or turns calls away. In a tier of its own it has nobody beside it that gets the rest.
#[test]
fn what_gets_a_part_of_its_due_is_well_in_part() {
    let policy = Tiers::by_priority(RoundRobin::new()).with_seed(1);
    for (share, first) in [(0.1, 0.14), (0.5, 0.7), (0.8, 1.0)] {
        let candidates = [
            with(PRIORITY, "0", 1).with_share(share),
            with(PRIORITY, "1", 1),
        ];
        let counts = counts(&picks(&*policy.build(&candidates), CALLS), 2);
        let part = counts[0] as f64 / CALLS as f64;
        assert!((part - first).abs() < 0.01, "{share}: {part}");
    }
}

#[test]
fn tiers_are_in_the_order_of_the_numbers_or_of_the_values() {
    let first = |policy: Tiers, candidates: &[Candidate]| {
        let picks = picks(&*policy.build(candidates), 50);
        assert!(picks.iter().all(|it| *it == picks[0]), "{picks:?}");
        picks[0]
    };
    let numbers = ["10", "9", "4294967295"].map(|it| with(PRIORITY, it, 1));
    assert_eq!(first(Tiers::by_priority(RoundRobin::new()), &numbers), 1);
    let no_number = ["1", "first", "2"].map(|it| with(PRIORITY, it, 1));
    assert_eq!(first(Tiers::by_priority(RoundRobin::new()), &no_number), 1);
    let zones = ["us-1", "eu-1b", "eu-1a"].map(|it| with("zone", it, 1));
    let near = Tiers::by_metadata("zone", ["eu-1a", "eu-1b"], RoundRobin::new());
    assert_eq!(first(near.clone(), &zones), 2);
    assert_eq!(first(near.clone(), &zones[..2]), 1);
    assert_eq!(first(near, &zones[..1]), 0);
}

#[test]
fn within_a_tier_the_other_policy_chooses() {
    let policy = Tiers::by_priority(Weighted::with_seed(4)).with_seed(4);
    distribution::check(&policy, Shares::ByWeight, Picks::Even);
}

#[test]
fn when_a_tier_has_no_more_to_offer_the_next_one_has() {
    let candidates = priorities(&[1, 2, 1]);
    let picker = Tiers::by_priority(ConsistentHash::by_key()).build(&candidates);
    let ask = |asked| with_request(|request| picker.pick(&request.with_asked(asked)));
    assert_eq!(ask(0), Pick::Endpoint(0));
    assert!(matches!(ask(1), Pick::Endpoint(1 | 2)));
    assert!(matches!(ask(2), Pick::Endpoint(1 | 2)));
    for asked in [3, 4, u32::MAX] {
        assert_eq!(ask(asked), Pick::Endpoint(3));
    }
}

#[test]
fn what_the_other_policy_looks_at_is_passed_on() {
    let tiers = Tiers::by_priority(PeakEwma::new());
    assert!(tiers.uses_latency() && tiers.uses_weights() && !tiers.needs_weights());
    assert!(Tiers::by_priority(Weighted::new()).needs_weights());
    assert!(!Tiers::by_priority(RoundRobin::new()).uses_weights());
}

/// One that does not do as it should.
#[derive(Debug)]
struct Astray;

impl Policy for Astray {
    fn name(&self) -> &str {
        "astray"
    }

    fn build(&self, _: &[Candidate]) -> Box<dyn Picker> {
        Box::new(Self)
    }
}

impl Picker for Astray {
    fn pick(&self, _: &PickRequest<'_>) -> Pick {
        Pick::Endpoint(1)
    }
}

#[test]
fn an_index_outside_of_the_tier_is_none_of_the_set() {
    let picker = Tiers::by_priority(Astray).build(&priorities(&[1, 1]));
    let Pick::Endpoint(index) = with_request(|request| picker.pick(request)) else {
        panic!("an endpoint");
    };
    assert!(index >= 2, "the other tier's endpoint");
}
