//! Who gets which key, and which keys move.

use http::{Extensions, HeaderMap, HeaderValue};

use super::super::distribution::{self, Picks, Shares};
use super::*;

const KEYS: u64 = 20_000;

/// The identity of each key's endpoint.
fn owners(candidates: &[Candidate]) -> Vec<u64> {
    owners_of(&*ConsistentHash::by_key().build(candidates), candidates)
}

fn owners_of(picker: &dyn Picker, candidates: &[Candidate]) -> Vec<u64> {
    let headers = HeaderMap::new();
    let owner = |key: u64| {
        let mut extensions = Extensions::new();
        extensions.insert(HashKey::from(key));
        match picker.pick(&PickRequest::new("/", &headers, &extensions)) {
            Pick::Endpoint(index) => candidates[index].identity(),
            other => panic!("{other:?}"),
        }
    };
    (0..KEYS).map(owner).collect()
}

/// Identities as good as hashes.
fn candidates(weights: &[u32]) -> Vec<Candidate> {
    (1..)
        .zip(weights)
        .map(|(number, weight)| {
            let identity = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number);
            Candidate::new(identity, *weight)
        })
        .collect()
}

/// All sizes, and some weights.
fn sets() -> Vec<Vec<u32>> {
    let mut sets: Vec<_> = [2, 3, 4, 5, 8, 16, 17, 50].map(|size| vec![1; size]).into();
    sets.extend([
        vec![3, 2],
        vec![1, 2, 3, 4, 5],
        vec![100, 1, 1, 1],
        vec![65_535, 40_000, 20_000, 1],
        (1..=40).collect(),
    ]);
    sets
}

#[test]
fn when_one_leaves_or_joins_no_more_keys_move_than_must() {
    for weights in sets() {
        let all = candidates(&weights);
        let with = owners(&all);
        let sum: f64 = weights.iter().copied().map(f64::from).sum();
        for (one, weight) in weights.iter().enumerate().take(6) {
            let mut left = all.clone();
            let gone = left.remove(one);
            let mut moved = 0;
            for (before, after) in with.iter().zip(owners(&left)) {
                if *before != after {
                    moved += 1;
                    assert_eq!(*before, gone.identity(), "of another one");
                }
            }
            // The same keys that it takes when it joins the others.
            let part = f64::from(moved) / KEYS as f64;
            let due = f64::from(*weight) / sum;
            assert!(part <= due + 0.05, "{part} of the keys, not {due}");
            assert!(part >= due - 0.05, "{part} of the keys, not {due}");
        }
    }
}

#[test]
fn what_one_gets_for_a_while_changes_nothing_between_the_others() {
    let all = candidates(&[4, 3, 2, 1]);
    let mut starting = all.clone();
    starting[1] = starting[1].clone().with_share(0.1);
    let (before, after) = (owners(&all), owners(&starting));
    let own = |owners: &[u64]| owners.iter().filter(|it| **it == all[1].identity()).count();
    let lost = before
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after);
    for (before, _) in lost.clone() {
        assert_eq!(*before, all[1].identity());
    }
    assert_eq!(lost.count(), own(&before) - own(&after));
    assert!(own(&before) > 5_000 && own(&after) < 1_000);
}

/// With 256 endpoints 1,024 slots are enough, with 257 they are not.
#[test]
fn one_that_is_not_well_takes_no_slots_from_the_table() {
    let all = candidates(&[1; 257]);
    let policy = ConsistentHash::by_key().slots(MIN_SLOTS);
    let (away, rest) = all.split_last().unwrap();
    let before = owners_of(&*policy.build(&all), &all);
    let after = owners_of(&*policy.build_among(rest, std::slice::from_ref(away)), rest);
    for (before, after) in before.iter().zip(&after) {
        assert!(before == after || *before == away.identity());
    }
}

#[test]
fn the_order_of_endpoints_does_not_matter() {
    let mut all = candidates(&[1, 2, 3, 4]);
    let before = owners(&all);
    all.reverse();
    assert_eq!(owners(&all), before);
}

#[test]
fn without_a_key_the_shares_are_those_of_the_weights() {
    let policy = ConsistentHash::by_header(HeaderName::from_static("user")).with_seed(3);
    distribution::check(&policy, Shares::ByWeight, Picks::Even);
}

#[test]
fn the_extension_comes_before_the_header_and_a_retry_goes_elsewhere() {
    let picker =
        ConsistentHash::by_header(HeaderName::from_static("user")).build(&candidates(&[1; 9]));
    let mut extensions = Extensions::new();
    for user in 0..50 {
        let mut headers = HeaderMap::new();
        headers.insert("user", HeaderValue::from(user));
        extensions.clear();
        let by_header = PickRequest::new("/", &headers, &extensions);
        let own = picker.pick(&by_header);
        assert_eq!(picker.pick(&by_header.with_attempt(2)), own);
        let mut others: Vec<_> = (0..4)
            .map(|asked| picker.pick(&by_header.with_asked(asked)))
            .collect();
        assert_eq!(others[0], own);
        others.sort_by_key(|pick| format!("{pick:?}"));
        others.dedup();
        assert_eq!(others.len(), 4);

        extensions.insert(HashKey::new(user.to_string()));
        let none = HeaderMap::new();
        assert_eq!(
            picker.pick(&PickRequest::new("/", &none, &extensions)),
            own,
            "the same key"
        );
        extensions.insert(HashKey::new("fixed"));
        let fixed = picker.pick(&PickRequest::new("/", &none, &extensions));
        assert_eq!(
            picker.pick(&PickRequest::new("/", &headers, &extensions)),
            fixed
        );
    }
}

#[test]
fn there_are_enough_slots_and_not_too_many() {
    let built = |policy: ConsistentHash| policy.slots;
    assert_eq!(built(ConsistentHash::by_key().slots(0)), MIN_SLOTS);
    assert_eq!(built(ConsistentHash::by_key().slots(usize::MAX)), MAX_SLOTS);
    let many: Vec<_> = (0..6_000_u64)
        .map(|it| Candidate::new(it.wrapping_mul(0x9e37_79b9_7f4a_7c15), 1))
        .collect();
    let mut used = owners(&many);
    used.sort_unstable();
    used.dedup();
    assert!(used.len() > 5_000, "{}", used.len());
}
