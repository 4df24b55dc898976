//! Weighted turns in an even order, without a queue.

use std::cmp::Reverse;

use fastrand::Rng;

use super::sequence::Sequences;
use super::{Pick, PickRequest, Picker};

/// The greatest weight after scaling, and so the number of generations until the order repeats. A
/// power of two, and that of `u16`, so that the arithmetic of generations wraps by itself.
const TOP: u32 = 1 << 16;

/// How many endpoints are looked at together: one for each bit of [`Place::due`].
const BLOCK: usize = 16;

/// The static stride scheduler of gRFC A58.
///
/// The endpoints stand in a ring. A pick walks on until it comes to one that is due in the present
/// generation, that is, round of the ring: an endpoint of scaled weight `w` is due in exactly `w`
/// of [`TOP`] generations, at equal distances, and the heaviest one in each. So no walk is longer
/// than the ring, and a mean one takes `max / mean` steps.
///
/// Differences from gRPC's own implementation:
/// - The counter is the thread's own; gRPC adds to a shared one at each step.
/// - The counter has room for the next 16 endpoints: whether they are due is found out at once,
///   without a branch for each, and most picks only take the next bit.
/// - Phases, which say when in the cycle an endpoint is due, are spread by the golden ratio in the
///   order of the weights, and the ring is in random order. gRPC's phases are 0 and 1/2 by turns:
///   then equal endpoints are due all together, and the heaviest one alone in the rounds between,
///   each time after a walk round the whole ring. With 1 of 100 and 9,999 of 13 that is 10,000
///   steps; here hardly a walk takes 150, unless the set is steeper than
///   [`Weighted`](super::Weighted) accepts.
/// - Endpoints of weight 0 are left out; gRPC, to which 0 means "not known yet", takes the mean.
#[derive(Debug)]
pub(super) struct Stride {
    ring: Box<[Cell]>,
    /// [`Place`]s.
    next: Sequences,
}

/// An endpoint's part of the ring. Eight bytes, so that 10,000 of them stay close to the core.
#[derive(Clone, Copy, Debug)]
struct Cell {
    endpoint: u32,
    /// From 1 to [`TOP`], which is 0 here: in the arithmetic of 16 bits the two are the same.
    weight: u16,
    phase: u16,
}

/// How far a thread has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    generation: u16,
    /// Which [`BLOCK`] of the ring.
    block: u32,
    /// The block's endpoints that are due and were not picked yet, the first one in the lowest bit.
    due: u16,
}

impl Stride {
    /// From the weight of each endpoint, one of which is above 0.
    pub(super) fn new(weights: &[u32], rng: &mut Rng) -> Self {
        let mut ring = ring(weights);
        rng.shuffle(&mut ring);
        let start = || {
            let (generation, block) = (rng.u16(..), rng.u32(..ring.len().div_ceil(BLOCK) as u32));
            let passed = rng.u32(..BLOCK as u32);
            Place {
                generation,
                block,
                due: due(&ring, generation, block) & (u16::MAX << passed),
            }
            .join()
        };
        Self {
            next: Sequences::new(start),
            ring: ring.into(),
        }
    }

    /// The next endpoint that is due, and the place after it.
    fn walk(&self, mut place: Place) -> (Place, u32) {
        while place.due == 0 {
            place.block += 1;
            if place.block as usize * BLOCK >= self.ring.len() {
                place.block = 0;
                place.generation = place.generation.wrapping_add(1);
            }
            place.due = due(&self.ring, place.generation, place.block);
        }
        let position = place.block as usize * BLOCK + place.due.trailing_zeros() as usize;
        place.due &= place.due - 1;
        (place, self.ring[position].endpoint)
    }
}

impl Picker for Stride {
    fn pick(&self, _: &PickRequest<'_>) -> Pick {
        let endpoint = self.next.advance(|place| {
            let (place, endpoint) = self.walk(Place::split(place));
            (place.join(), endpoint)
        });
        Pick::Endpoint(endpoint as usize)
    }
}

impl Cell {
    /// gRFC A58: whether `(weight * generation + phase) mod TOP >= TOP - weight`.
    fn is_due(self, generation: u16) -> bool {
        self.weight
            .wrapping_mul(generation)
            .wrapping_add(self.phase)
            >= self.weight.wrapping_neg()
    }
}

impl Place {
    fn join(self) -> u64 {
        u64::from(self.generation) << 48 | u64::from(self.block) << 16 | u64::from(self.due)
    }

    fn split(place: u64) -> Self {
        Self {
            generation: (place >> 48) as u16,
            block: (place >> 16) as u32,
            due: place as u16,
        }
    }
}

/// Which endpoints of a block are due, as [`Place::due`].
fn due(ring: &[Cell], generation: u16, block: u32) -> u16 {
    let cells = ring.iter().skip(block as usize * BLOCK).take(BLOCK);
    cells.zip(0..).fold(0, |due, (cell, bit)| {
        due | u16::from(cell.is_due(generation)) << bit
    })
}

/// The endpoints in use by falling weight, scaled and given their phases.
fn ring(weights: &[u32]) -> Vec<Cell> {
    /// The golden ratio of a cycle; odd, so that it meets every phase.
    const PHASE: u16 = 40_503;
    let max = u64::from(weights.iter().copied().max().unwrap_or_default());
    let mut used: Vec<(u32, u32)> = (0..=u32::MAX)
        .zip(weights.iter().copied())
        .filter(|(_, weight)| *weight > 0)
        .collect();
    used.sort_by_key(|(_, weight)| Reverse(*weight));
    let cell = |(rank, (endpoint, weight)): (usize, (u32, u32))| {
        let scaled = (u64::from(weight) * u64::from(TOP) + max / 2) / max;
        Cell {
            endpoint,
            weight: scaled.max(1) as u16,
            phase: PHASE.wrapping_mul(rank as u16),
        }
    };
    used.into_iter().enumerate().map(cell).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use fastrand::Rng;
    use proptest::prelude::*;

    use super::*;

    fn stride(weights: &[u32], seed: u64) -> Stride {
        Stride::new(weights, &mut Rng::with_seed(seed))
    }

    /// How many endpoints each pick passes, itself included: the most and the mean.
    fn steps(stride: &Stride, picks: u64) -> (u64, f64) {
        let positions: HashMap<u32, u64> = stride
            .ring
            .iter()
            .map(|cell| cell.endpoint)
            .zip(0..)
            .collect();
        let mut place = Place::split(0);
        let (mut last, mut most, mut total) = (0, 0, 0);
        for _ in 0..picks {
            let (after, endpoint) = stride.walk(place);
            let rounds = u64::from(after.generation.wrapping_sub(place.generation));
            let steps = rounds * stride.ring.len() as u64 + positions[&endpoint] - last;
            (place, last) = (after, positions[&endpoint]);
            most = most.max(steps);
            total += steps;
        }
        (most, total as f64 / picks as f64)
    }

    #[test]
    fn cells_are_eight_bytes() {
        assert_eq!(size_of::<Cell>(), 8);
    }

    #[test]
    fn places_fit_a_counter() {
        let place = Place {
            generation: u16::MAX - 1,
            block: u32::MAX - 2,
            due: u16::MAX - 3,
        };
        assert_eq!(Place::split(place.join()), place);
    }

    #[test]
    fn scaling_rounds_to_the_nearest_and_never_to_nothing() {
        let scaled = |weights: &[u32]| -> Vec<_> {
            ring(weights)
                .into_iter()
                .map(|cell| (cell.endpoint, cell.weight))
                .collect()
        };
        assert_eq!(scaled(&[1, 5, 0, 1]), [(1, 0), (0, 13_107), (3, 13_107)]);
        assert_eq!(scaled(&[u32::MAX, 1]), [(0, 0), (1, 1)]);
        assert_eq!(scaled(&[131_072, 3, 1]), [(0, 0), (1, 2), (2, 1)]);
    }

    #[test]
    fn walks_stay_short_whatever_the_weights() {
        let heavy = |heavy: usize, light: u32| {
            (0..10_000)
                .map(|index| if index < heavy { 100 } else { light })
                .collect()
        };
        let sets: [Vec<u32>; 5] = [
            heavy(1, 13),
            heavy(5_000, 1),
            heavy(1_250, 1),
            (0..10_000).map(|index| 1 + index / 100).collect(),
            (0..10_000).map(|index| 1 << (10 + index % 3)).collect(),
        ];
        for weights in sets {
            for seed in 0..3 {
                let (most, mean) = steps(&stride(&weights, seed), 200_000);
                let sum: u64 = weights.iter().copied().map(u64::from).sum();
                let max = weights.iter().copied().max().unwrap();
                let expected = f64::from(max) * weights.len() as f64 / sum as f64;
                assert!(
                    (mean / expected - 1.0).abs() < 0.02,
                    "{mean} steps, not {expected}"
                );
                assert!(most < 150, "{most} steps for {:?}...", &weights[..3]);
            }
        }
    }

    #[test]
    fn even_the_steepest_set_has_an_end() {
        let mut weights = vec![1; 10_000];
        weights[4_711] = u32::MAX;
        let (most, _) = steps(&stride(&weights, 1), 1_000);
        assert!(most <= 10_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn each_endpoint_is_due_as_often_as_it_weighs(
            weights in prop::collection::vec(0..=u32::MAX, 1..10),
        ) {
            for cell in ring(&weights) {
                let due = (0..=u16::MAX).filter(|&generation| cell.is_due(generation)).count();
                let weight = if cell.weight == 0 { TOP as usize } else { cell.weight.into() };
                prop_assert_eq!(due, weight);
            }
        }

        #[test]
        fn whoever_is_due_is_picked_and_nobody_else(
            weights in prop::collection::vec(1..=u32::MAX, 1..50),
            seed: u64,
            start in prop_oneof![any::<u16>(), Just(u16::MAX)],
        ) {
            let stride = stride(&weights, seed);
            let due = due(&stride.ring, start, 0);
            let mut place = Place { generation: start, block: 0, due };
            for generation in [start, start.wrapping_add(1), start.wrapping_add(2)] {
                for cell in stride.ring.iter().filter(|cell| cell.is_due(generation)) {
                    let endpoint;
                    (place, endpoint) = stride.walk(place);
                    prop_assert_eq!(endpoint, cell.endpoint);
                }
            }
        }
    }
}
