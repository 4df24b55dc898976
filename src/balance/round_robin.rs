//! One after the other.

use fastrand::Rng;

use super::randomness::generator;
use super::sequence::Sequences;
use super::stride::Stride;
use super::usable::{Nobody, Usable, shares};
use super::{Candidate, Pick, PickRequest, Picker, Policy};

/// Takes turns: each endpoint once, then each once more. Weights are ignored, except that 0 means
/// drained.
///
/// Each thread goes round by itself, from a random start: the counts of one thread differ by at
/// most 1 between endpoints, those of `k` threads together by at most `k`. A new set of endpoints
/// starts anew. (gRPC's `round_robin`, without its counter that all threads share.)
///
/// | of three endpoints with the weights | 3 | 2 | 1 |
/// |---|---:|---:|---:|
/// | their shares | 33 % | 33 % | 33 % |
///
/// **Use it** where servers are alike and calls cost the same. **Not** where one may be slower than others: it gets as
/// many calls as they do; [`LeastRequest`](super::LeastRequest) sees that.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    seed: Option<u64>,
}

impl RoundRobin {
    /// Starts at a random endpoint.
    pub const fn new() -> Self {
        Self { seed: None }
    }

    /// Starts where `seed` says: the same for each set of the same size. For tests.
    pub const fn with_seed(seed: u64) -> Self {
        Self { seed: Some(seed) }
    }
}

impl Policy for RoundRobin {
    fn name(&self) -> &str {
        "round_robin"
    }

    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
        in_turn(&shares(candidates), &mut generator(self.seed))
    }
}

/// The picker that takes turns, in which each endpoint has its part.
pub(super) fn in_turn(parts: &[u32], rng: &mut Rng) -> Box<dyn Picker> {
    let most = parts.iter().copied().max().unwrap_or_default();
    match Usable::of(parts) {
        None => Box::new(Nobody),
        Some(usable) if parts.iter().all(|part| matches!(part, 0) || *part == most) => {
            Box::new(Turns::new(usable, rng))
        }
        Some(_) => Box::new(Stride::new(parts, rng)),
    }
}

/// The picker that takes turns.
#[derive(Debug)]
pub(super) struct Turns {
    usable: Usable,
    next: Sequences,
}

impl Turns {
    pub(super) fn new(usable: Usable, rng: &mut Rng) -> Self {
        let next = Sequences::new(|| rng.u64(..usable.len() as u64));
        Self { usable, next }
    }
}

impl Picker for Turns {
    fn pick(&self, _: &PickRequest<'_>) -> Pick {
        let len = self.usable.len() as u64;
        let position = self
            .next
            .advance(|at| (if at + 1 == len { 0 } else { at + 1 }, at));
        Pick::Endpoint(self.usable.index(position as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::super::distribution::{self, Picks, Shares, candidates};
    use super::*;

    #[test]
    fn distribution() {
        distribution::check(&RoundRobin::with_seed(1), Shares::Equal, Picks::Even);
    }

    #[test]
    fn goes_round_in_order() {
        let picker = RoundRobin::with_seed(1).build(&candidates(&[9, 0, 1, 1]));
        let picks = distribution::picks(&*picker, 300);
        assert!(
            picks
                .windows(2)
                .all(|two| matches!(two, [0, 2] | [2, 3] | [3, 0])),
            "{picks:?}"
        );
    }
}
