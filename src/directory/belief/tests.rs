use std::time::Duration;

use proptest::prelude::*;

use super::{Belief, Verdict};
use crate::discover::Outage;
use crate::endpoint::{Endpoint, Key};
use crate::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn entry(name: u8) -> Key {
    let endpoint = Endpoint::tcp(format!("10.0.0.{name}:1"));
    endpoint.key().unwrap()
}

fn entries(names: &[u8]) -> Vec<Key> {
    names.iter().copied().map(entry).collect()
}

/// A belief and its clock.
struct World {
    belief: Belief,
    now: Instant,
    /// The endpoints without a connection.
    dead: Vec<u8>,
}

impl World {
    fn new(rules: Outage) -> Self {
        Self {
            belief: Belief::new(rules),
            now: Instant::now(),
            dead: Vec::new(),
        }
    }

    fn learn(&mut self, names: &[u8]) -> Verdict {
        self.learn_all(entries(names), false)
    }

    fn learn_all(&mut self, answer: Vec<Key>, certain: bool) -> Verdict {
        let dead = entries(&self.dead);
        self.belief
            .learn(self.now, answer, certain, |key| !dead.contains(key))
    }

    /// The endpoints in use after that time.
    fn after(&mut self, time: Duration) -> Vec<u8> {
        self.now += time;
        let dead = entries(&self.dead);
        self.belief.let_go(self.now, |key| !dead.contains(key));
        self.used()
    }

    fn used(&self) -> Vec<u8> {
        let name = |key: &Key| (1..=9).find(|name| entry(*name) == *key).unwrap();
        self.belief.all().map(|(it, _)| name(&it.key)).collect()
    }
}

#[test]
fn small_changes_are_believed() {
    let mut world = World::new(Outage::drain());
    assert_eq!(world.learn(&[1, 2]), Verdict::Believed);
    assert_eq!(world.learn(&[2]), Verdict::Believed);
    assert_eq!(world.learn(&[2, 3, 4, 5]), Verdict::Believed);
    assert_eq!(world.learn(&[5, 2, 6]), Verdict::Believed);
    assert_eq!(world.used(), [5, 2, 6]);
    assert_eq!(world.belief.next(), None);
}

#[test]
fn after_an_empty_answer_they_leave_one_by_one_behind_the_grace() {
    let mut world = World::new(Outage::drain().grace(SECOND * 60).drain_over(SECOND * 30));
    world.learn(&[1, 2, 3]);
    world.dead = vec![2];
    assert_eq!(world.learn(&[]), Verdict::Empty);
    assert!(world.belief.all().all(|(_, listed)| !listed));
    assert_eq!(world.after(SECOND * 30), [1, 2, 3]);
    // Once more: the grace does not begin anew.
    assert_eq!(world.learn(&[]), Verdict::Empty);
    assert_eq!(world.after(SECOND * 39), [1, 2, 3]);
    assert_eq!(world.after(SECOND), [2, 3]);
    assert_eq!(world.after(SECOND * 10), [3]);
    assert_eq!(world.after(SECOND * 10), [0_u8; 0]);
    assert_eq!(world.belief.next(), None);
    assert_eq!(world.learn(&[]), Verdict::Believed);
    assert_eq!(world.learn(&[4]), Verdict::Believed);
    assert_eq!(world.used(), [4]);
}

#[test]
fn an_answer_ends_the_emergency() {
    let mut world = World::new(Outage::drain());
    world.learn(&[1, 2, 3]);
    world.learn(&[]);
    assert_eq!(world.learn(&[1, 2, 3]), Verdict::Believed);
    assert!(world.belief.all().all(|(_, listed)| listed));
    assert_eq!(world.after(SECOND * 1000), [1, 2, 3]);
    // A registry that lost its state hears of the services again one by one.
    world.learn(&[]);
    assert_eq!(world.learn(&[2]), Verdict::Doubted { gone: 2, of: 3 });
    assert_eq!(world.used(), [2, 1, 3]);
    assert_eq!(world.learn(&[2, 3]), Verdict::Believed);
    assert_eq!(world.used(), [2, 3, 1]);
    assert_eq!(world.learn(&[1, 2, 3]), Verdict::Believed);
    assert_eq!(world.belief.next(), None);
}

#[test]
fn the_last_to_register_again_is_waited_for_like_the_first() {
    let mut world = World::new(Outage::drain());
    world.learn(&[1, 2, 3, 4]);
    world.learn(&[]);
    assert_eq!(world.learn(&[1, 2, 3]), Verdict::Believed);
    assert_eq!(world.used(), [1, 2, 3, 4]);
    assert_eq!(world.after(SECOND * 120), [1, 2, 3]);
}

#[test]
fn keep_is_for_ever_and_fail_at_once() {
    let mut world = World::new(Outage::keep().guard(1.0));
    world.learn(&[1, 2]);
    assert_eq!(world.learn(&[]), Verdict::Empty);
    assert_eq!(world.after(SECOND * 1_000_000), [1, 2]);
    assert_eq!(world.learn(&[2]), Verdict::Believed);
    assert_eq!(world.used(), [2]);

    let mut world = World::new(Outage::fail());
    world.learn(&[1, 2, 3]);
    world.learn(&[3]);
    assert_eq!(world.used(), [3, 1, 2]);
    assert_eq!(world.learn(&[]), Verdict::Believed);
    assert_eq!(world.used(), [0_u8; 0]);
}

#[test]
fn what_vanishes_in_a_crowd_stays_while_it_works() {
    let mut world = World::new(Outage::drain().grace(SECOND * 10).drain_over(SECOND * 10));
    world.learn(&[1, 2, 3, 4, 5]);
    world.dead = vec![2];
    assert_eq!(world.learn(&[1, 6]), Verdict::Doubted { gone: 4, of: 5 });
    assert_eq!(world.used(), [1, 6, 3, 4, 5]);
    world.dead = vec![2, 4];
    assert_eq!(world.after(Duration::ZERO), [1, 6, 3, 5]);
    // The same answer does not begin it anew.
    assert_eq!(world.learn(&[1, 6]), Verdict::Believed);
    assert_eq!(world.after(SECOND * 14), [1, 6, 5]);
    assert_eq!(world.after(SECOND * 6), [1, 6]);
}

#[test]
fn what_a_source_is_certain_of_is_believed() {
    let mut world = World::new(Outage::drain());
    world.learn(&[1, 2, 3]);
    assert_eq!(world.learn(&[1]), Verdict::Doubted { gone: 2, of: 3 });
    assert_eq!(world.learn_all(entries(&[7]), true), Verdict::Believed);
    assert_eq!(world.used(), [7]);
    assert_eq!(world.learn_all(Vec::new(), true), Verdict::Believed);
    assert_eq!(world.used(), [0_u8; 0]);
}

fn drained(names: &[u8]) -> impl Iterator<Item = Key> + '_ {
    entries(names)
        .into_iter()
        .map(|key| key.endpoint().clone().weight(0).key().unwrap())
}

#[test]
fn only_active_endpoints_are_missed() {
    // Eight in maintenance do not outvote the two that were active.
    let mut world = World::new(Outage::drain());
    let eight = || drained(&[1, 2, 3, 4, 5, 6, 7, 8]);
    world.learn_all(entries(&[9]).into_iter().chain(eight()).collect(), false);
    assert_eq!(world.learn_all(eight().collect(), false), Verdict::Empty);
    assert_eq!(world.used(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);

    // Neither does one in maintenance make an answer of the rest.
    for dead in [vec![], vec![1, 2, 3]] {
        let mut world = World::new(Outage::keep());
        world.learn(&[1, 2, 3, 4]);
        world.dead = dead;
        assert_eq!(
            world.learn_all(drained(&[4]).collect(), false),
            Verdict::Empty
        );
        assert_eq!(world.after(SECOND * 1_000_000), [4, 1, 2, 3]);
    }

    // Whoever is put into maintenance is not gone.
    let mut world = World::new(Outage::drain());
    world.learn(&[1, 2]);
    assert_eq!(
        world.learn_all(drained(&[1, 2]).collect(), false),
        Verdict::Believed
    );
    assert_eq!(world.learn(&[]), Verdict::Believed);
    assert_eq!(world.used(), [0_u8; 0]);
}

#[test]
fn those_held_in_doubt_outlast_emptiness() {
    let mut world = World::new(Outage::keep().grace(SECOND).drain_over(SECOND));
    world.learn(&[1, 2, 3]);
    assert_eq!(world.learn(&[1]), Verdict::Doubted { gone: 2, of: 3 });
    assert_eq!(world.learn(&[]), Verdict::Empty);
    world.dead = vec![1, 2, 3];
    let mut used = world.after(SECOND * 1000);
    used.sort_unstable();
    assert_eq!(used, [1, 2, 3]);
}

#[test]
fn rules_that_nobody_checked_do_no_harm() {
    let mut world = World::new(
        Outage::drain()
            .grace(Duration::MAX)
            .drain_over(Duration::MAX)
            .guard(f64::NAN),
    );
    world.learn(&[1, 2]);
    assert_eq!(world.learn(&[1]), Verdict::Believed);
    assert_eq!(world.learn(&[]), Verdict::Empty);
    assert_eq!(world.after(SECOND), [1]);
}

#[test]
fn an_answer_is_compared_to_the_letter() {
    let mut world = World::new(Outage::drain());
    world.learn(&[1, 2]);
    assert!(world.belief.is_unchanged(&entries(&[1, 2])));
    assert!(!world.belief.is_unchanged(&entries(&[2, 1])));
    assert!(!world.belief.is_unchanged(&entries(&[1])));
    let heavier: Vec<_> = entries(&[1, 2])
        .into_iter()
        .map(|key| key.endpoint().clone().weight(2).key().unwrap())
        .collect();
    assert!(!world.belief.is_unchanged(&heavier));
    world.learn(&[]);
    assert!(!world.belief.is_unchanged(&entries(&[1, 2])));
}

proptest! {
    /// Whatever comes: what is listed is used, nothing is used twice, and in the end only what is listed is.
    #[test]
    fn what_is_listed_is_used(answers in proptest::collection::vec((proptest::collection::btree_set(1..=6_u8, 0..6), 0..90_u64), 1..12)) {
        let mut world = World::new(Outage::drain());
        let mut last = Vec::new();
        for (answer, pause) in answers {
            let answer: Vec<_> = answer.into_iter().collect();
            world.learn(&answer);
            let used = world.after(SECOND * u32::try_from(pause).unwrap());
            prop_assert!(answer.iter().all(|it| used.contains(it)));
            let mut once = used.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), used.len());
            last = answer;
        }
        prop_assert_eq!(world.after(SECOND * 121), last);
    }
}
