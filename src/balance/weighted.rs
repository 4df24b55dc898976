//! Shares by weight, evenly interleaved.

use super::alias::Alias;
use super::randomness::{Draws, generator};
use super::round_robin::in_turn;
use super::usable::weights;
use super::weighted_random::WeightedLots;
use super::{Candidate, Picker, Policy};

/// How much more than the mean the greatest weight may be before even interleaving costs too much:
/// a pick takes that many steps on average. Up to as many endpoints as this can never exceed it.
const STEEPEST: u128 = 8;

/// Picks in proportion to the weights, as evenly interleaved as they allow.
///
/// The algorithm is the static stride scheduler of gRPC ([gRFC A58]), without its lock or its
/// shared counter. Each thread goes through the sequence by itself, from a random start. Equal
/// weights make it [`RoundRobin`](super::RoundRobin).
///
/// - With weights 5:1:1 no endpoint is picked more than 5 times running, and any 7,000 picks of a
///   thread in a row are 5,000, 1,000 and 1,000, give or take 2.
/// - Weights count relative to the greatest one, in steps of 1/65,536 of it, rounded to the nearest
///   and never to 0. Shares are therefore within 0.02 % of all picks of the exact ones.
/// - A pick takes as many steps (of about 1 ns) as the greatest weight exceeds the mean one, on
///   average. Where that is more than 8, so never with 8 endpoints or fewer, the picks are those of
///   [`WeightedRandom`](super::WeightedRandom) instead: a single great weight among thousands of
///   small ones would mean thousands of steps, and rounding errors.
///
/// | of three endpoints with the weights | 3 | 2 | 1 |
/// |---|---:|---:|---:|
/// | their shares | 50 % | 33 % | 17 % |
///
/// **Use it** where you know what servers can do: their size, or a part of the traffic for a new version. **Not** for what
/// changes by the minute: [`LeastRequest`](super::LeastRequest) follows weights, and load.
///
/// [gRFC A58]: https://github.com/grpc/proposal/blob/master/A58-client-side-weighted-round-robin-lb-policy.md
#[derive(Clone, Debug, Default)]
pub struct Weighted {
    seed: Option<u64>,
}

impl Weighted {
    /// Starts at a random place of the sequence.
    pub const fn new() -> Self {
        Self { seed: None }
    }

    /// Starts where `seed` says: the same for each set of the same weights. For tests.
    pub const fn with_seed(seed: u64) -> Self {
        Self { seed: Some(seed) }
    }
}

impl Policy for Weighted {
    fn name(&self) -> &str {
        "weighted"
    }

    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
        in_proportion(&weights(candidates), self.seed)
    }

    fn uses_weights(&self) -> bool {
        true
    }

    fn needs_weights(&self) -> bool {
        true
    }
}

/// The picker in which each endpoint has its part, as evenly interleaved as that costs little.
pub(super) fn in_proportion(parts: &[u32], seed: Option<u64>) -> Box<dyn Picker> {
    let most = parts.iter().copied().max().unwrap_or_default();
    let used = parts.iter().filter(|part| **part > 0).count();
    let sum: u128 = parts.iter().copied().map(u128::from).sum();
    let steep = u128::from(most) * used as u128 > STEEPEST * sum;
    match steep.then(|| Alias::new(parts)).flatten() {
        Some(alias) => Box::new(WeightedLots::new(alias, Draws::new(seed))),
        None => in_turn(parts, &mut generator(seed)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::distribution::{self, Picks, Shares, candidates, counts, picks};
    use super::*;

    #[test]
    fn distribution() {
        distribution::check(&Weighted::with_seed(4), Shares::ByWeight, Picks::Even);
    }

    #[test]
    fn a_steep_set_is_drawn_by_lot() {
        let mut weights = vec![10; 100];
        weights[17] = 1_000;
        weights[18] = 0;
        let policy = Weighted::with_seed(5);
        distribution::check_set(&policy, &weights, Shares::ByWeight, Picks::Independent);
    }

    #[test]
    fn equal_weights_take_turns_in_order() {
        let picker = Weighted::with_seed(1).build(&candidates(&[6, 0, 6, 6]));
        let picks = picks(&*picker, 300);
        let in_order = |two: &[usize]| matches!(two, [0, 2] | [2, 3] | [3, 0]);
        assert!(picks.windows(2).all(in_order), "{picks:?}");
    }

    #[test]
    fn five_to_one_to_one_is_even_everywhere() {
        for seed in 0..20 {
            let picker = Weighted::with_seed(seed).build(&candidates(&[5, 1, 1]));
            let picks = picks(&*picker, 70_000);
            let longest = picks.chunk_by(|a, b| a == b).map(<[usize]>::len).max();
            assert!(
                longest <= Some(5),
                "{longest:?} times running with seed {seed}"
            );
            for window in picks.windows(7_000).step_by(501) {
                for (count, ideal) in counts(window, 3).into_iter().zip([5_000_u64, 1_000, 1_000]) {
                    assert!(
                        count.abs_diff(ideal) <= 2,
                        "{count} for {ideal} with seed {seed}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_giant_among_ten_thousand_leaves_something_for_the_rest() {
        let mut weights = vec![1; 10_000];
        weights[4_711] = 20_000;
        let picker = Weighted::with_seed(6).build(&candidates(&weights));
        let counts = counts(&picks(&*picker, 60_000), 10_000);
        let rest = 60_000 - counts[4_711];
        assert!(
            rest.abs_diff(20_000) < 1_000,
            "{rest} picks of the rest, not 20,000"
        );
    }

    fn any_weights() -> impl Strategy<Value = Vec<u32>> {
        let weight = prop_oneof![
            1..=u32::MAX,
            1..=100_u32,
            (0..32_u32).prop_map(|bits| 1 << bits)
        ];
        prop_oneof![
            prop::collection::vec(weight, 1..200),
            prop::collection::vec(1..=u32::MAX, 1..200),
            prop::collection::vec(50..=100_u32, 1..200),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn shares_hold_in_the_long_run(weights in any_weights(), seed: u64) {
            const PICKS: usize = 20_000;
            let sum: f64 = weights.iter().copied().map(f64::from).sum();
            let max = f64::from(*weights.iter().max().unwrap());
            let steep = max * weights.len() as f64 > STEEPEST as f64 * sum;
            let picks = picks(&*Weighted::with_seed(seed).build(&candidates(&weights)), PICKS);
            for (count, weight) in counts(&picks, weights.len()).into_iter().zip(&weights) {
                let ideal = PICKS as f64 * f64::from(*weight) / sum;
                // By lot: six standard deviations, and some more for rare endpoints, whose counts
                // are no bell curve. In turns: what scaling rounds off (see the type's
                // documentation), and the round not finished.
                let in_turns = 0.0002 * PICKS as f64 + 3.0;
                let bound = if steep { 6.0 * ideal.sqrt() + 12.0 } else { in_turns };
                let off = (count as f64 - ideal).abs();
                prop_assert!(off <= bound, "{} for {} ± {}", count, ideal, bound);
            }
        }
    }
}
