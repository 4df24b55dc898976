//! Any one, with equal chance.

use super::alias::Alias;
use super::randomness::{Draws, split};
use super::usable::{Nobody, Usable, shares};
use super::weighted_random::WeightedLots;
use super::{Candidate, Pick, PickRequest, Picker, Policy};

/// Picks independently of all picks before, with equal chance for each endpoint. Weights are
/// ignored, except that 0 means drained.
///
/// Of `m` picks an endpoint with the share `p` gets `m·p` ± `sqrt(m·p)`, give or take.
/// [`RoundRobin`](super::RoundRobin) is more even; this one keeps no state at all, and many clients
/// in step with each other don't exist. (Envoy's `RANDOM`.)
///
/// | of three endpoints with the weights | 3 | 2 | 1 |
/// |---|---:|---:|---:|
/// | their shares of 900 calls | 33 ± 2 % | 33 ± 2 % | 33 ± 2 % |
///
/// **Use it** for comparison, and where taking turns would meet a pattern in the calls, as every third one that is
/// large. **Not** for few calls, which chance spreads unevenly.
#[derive(Clone, Debug, Default)]
pub struct Random {
    seed: Option<u64>,
}

impl Random {
    /// Draws from a generator of each thread's own.
    pub const fn new() -> Self {
        Self { seed: None }
    }

    /// Draws the numbers that follow from `seed`, the same for each set. For tests: all threads
    /// share one counter.
    pub const fn with_seed(seed: u64) -> Self {
        Self { seed: Some(seed) }
    }
}

impl Policy for Random {
    fn name(&self) -> &str {
        "random"
    }

    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
        let draws = Draws::new(self.seed);
        let parts = shares(candidates);
        let most = parts.iter().copied().max().unwrap_or_default();
        let equal = parts.iter().all(|part| *part == 0 || *part == most);
        match (Usable::of(&parts), Alias::new(&parts)) {
            (None, _) => Box::new(Nobody),
            (_, Some(alias)) if !equal => Box::new(WeightedLots::new(alias, draws)),
            (Some(usable), _) => Box::new(Lots { usable, draws }),
        }
    }
}

/// The picker that draws lots.
#[derive(Debug)]
struct Lots {
    usable: Usable,
    draws: Draws,
}

impl Picker for Lots {
    fn pick(&self, _: &PickRequest<'_>) -> Pick {
        let (position, _) = split(self.draws.draw(), self.usable.len());
        Pick::Endpoint(self.usable.index(position))
    }
}

#[cfg(test)]
mod tests {
    use super::super::distribution::{self, Picks, Shares};
    use super::*;

    #[test]
    fn distribution() {
        distribution::check(&Random::with_seed(2), Shares::Equal, Picks::Independent);
    }
}
