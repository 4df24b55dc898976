//! The one with fewer calls, of two.

use std::time::Duration;

use super::two_choices::{self, Better, Seen};
use super::{Candidate, Picker, Policy};

/// Takes turns, except that an endpoint is passed over for a random other one that has fewer calls in flight: "power of two
/// choices", as gRFC A48's `least_request` and Envoy's with their defaults, but that the first of the two comes in turn.
/// So endpoints that are equally busy, or idle, are served evenly, however few there are.
///
/// Slow or busy endpoints gather calls, and so get fewer new ones, whatever makes them slow. Turns are by weight, and calls
/// are compared per weight: while the load is even the shares are those of the weights.
///
/// | of three endpoints, at 100 calls in flight | answer in 10 ms | 10 ms | 100 ms |
/// |---|---:|---:|---:|
/// | in turn | 33 % | 33 % | 33 % |
/// | least request | 47 % | 47 % | 5 % |
///
/// **Use it** where calls differ in cost or servers in speed, and there is more than one call at a time. With few calls it
/// does not know the slow one from the others; [`PeakEwma`](super::PeakEwma) does. It sees the calls of its own channel
/// only.
#[derive(Clone, Debug, Default)]
pub struct LeastRequest {
    seed: Option<u64>,
}

impl LeastRequest {
    /// Draws from a generator of each thread's own.
    pub const fn new() -> Self {
        Self { seed: None }
    }

    /// Draws the numbers that follow from `seed`, the same for each set. For tests: all threads share one counter.
    pub const fn with_seed(seed: u64) -> Self {
        Self { seed: Some(seed) }
    }
}

impl Policy for LeastRequest {
    fn name(&self) -> &str {
        "least_request"
    }

    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
        two_choices::build(candidates, InFlight, self.seed)
    }

    fn uses_weights(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct InFlight;

impl Better for InFlight {
    const NOISY: bool = false;

    /// With the call it would not be busier than the first is without it: `(b + 1) / w <= a / v`. Where the two weigh the
    /// same, that is to have fewer calls.
    fn is_second_better(&self, first: Seen<'_>, second: Seen<'_>, _: Duration) -> bool {
        let [first_weight, second_weight] = [first.weight, second.weight].map(u64::from);
        // Both products fit: their factors have 32 bits.
        (u64::from(second.load.in_flight()) + 1) * first_weight
            <= u64::from(first.load.in_flight()) * second_weight
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Load;
    use super::super::distribution::{self, Picks, Shares, picks};
    use super::*;

    #[test]
    fn at_rest_the_shares_are_those_of_the_weights() {
        let policy = LeastRequest::with_seed(4);
        distribution::check(&policy, Shares::ByWeight, Picks::Even);
    }

    #[test]
    fn the_busier_of_two_is_never_picked() {
        let loads = [Arc::new(Load::default()), Arc::new(Load::default())];
        let candidates: Vec<_> = (0..)
            .zip(&loads)
            .map(|(identity, load)| Candidate::new(identity, 1).with_load(Arc::clone(load)))
            .collect();
        let picker = LeastRequest::with_seed(1).build(&candidates);
        let busy = loads[0].begin();
        assert!(picks(&*picker, 100).iter().all(|index| *index == 1));
        drop(busy);
        let after = picks(&*picker, 100);
        assert!(after.contains(&0) && after.contains(&1));
    }

    #[test]
    fn shares_are_those_of_the_table() {
        let shares = distribution::simulate(&LeastRequest::with_seed(1), &[10, 10, 100], 100);
        assert!((shares[2] - 0.05).abs() < 0.01, "{shares:?}");
    }

    #[test]
    fn calls_are_compared_by_weight() {
        let loads = [Arc::new(Load::default()), Arc::new(Load::default())];
        let [heavy, light] = [
            Candidate::new(0, 9).with_load(Arc::clone(&loads[0])),
            Candidate::new(1, 1).with_load(Arc::clone(&loads[1])),
        ];
        let picker = LeastRequest::with_seed(1).build(&[heavy, light]);
        let _eight: Vec<_> = (0..8).map(|_| loads[0].begin()).collect();
        let _one = loads[1].begin();
        let picked = picks(&*picker, 1_000);
        let share = picked.iter().filter(|index| **index == 0).count();
        // The light one only if it is drawn twice: 1 %.
        assert!(share > 950, "{share}");
    }
}
