//! Any one, with a chance in proportion to its weight.

use super::alias::Alias;
use super::randomness::Draws;
use super::usable::{Nobody, weights};
use super::{Candidate, Pick, PickRequest, Picker, Policy};

/// Picks independently of all picks before, each endpoint with a chance in proportion to its
/// weight.
///
/// Chances are exact to 2⁻³², and no weight above 0 is too small to be picked. A pick costs the
/// same however many endpoints there are and however their weights differ.
/// [`Weighted`](super::Weighted) is more even. (The table is Vose's, "A linear algorithm for generating random numbers with
/// a given distribution", 1991.)
///
/// | of three endpoints with the weights | 3 | 2 | 1 |
/// |---|---:|---:|---:|
/// | their shares of 900 calls | 50 ± 2 % | 33 ± 2 % | 17 ± 1 % |
///
/// **Use it** where weights differ by orders of magnitude among many endpoints, and as [`Random`](super::Random) where
/// turns would meet a pattern in the calls. **Not** for few calls, which chance spreads unevenly.
#[derive(Clone, Debug, Default)]
pub struct WeightedRandom {
    seed: Option<u64>,
}

impl WeightedRandom {
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

impl Policy for WeightedRandom {
    fn name(&self) -> &str {
        "weighted_random"
    }

    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
        match Alias::new(&weights(candidates)) {
            Some(alias) => Box::new(WeightedLots::new(alias, Draws::new(self.seed))),
            None => Box::new(Nobody),
        }
    }

    fn uses_weights(&self) -> bool {
        true
    }

    fn needs_weights(&self) -> bool {
        true
    }
}

/// The picker that draws lots from an alias table.
#[derive(Debug)]
pub(super) struct WeightedLots {
    alias: Alias,
    draws: Draws,
}

impl WeightedLots {
    pub(super) fn new(alias: Alias, draws: Draws) -> Self {
        Self { alias, draws }
    }
}

impl Picker for WeightedLots {
    fn pick(&self, _: &PickRequest<'_>) -> Pick {
        Pick::Endpoint(self.alias.look_up(self.draws.draw()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::distribution::{self, Picks, Shares};
    use super::*;

    #[test]
    fn distribution() {
        distribution::check(
            &WeightedRandom::with_seed(3),
            Shares::ByWeight,
            Picks::Independent,
        );
    }
}
