//! What happens if nobody chooses.

use super::{Candidate, LeastRequest, Picker, Policy, Weighted};

/// [`Weighted`] where weights differ, else [`LeastRequest`].
///
/// Weights that differ are somebody's will; where there are none the load decides, and while that is even, least
/// request takes turns. Shares (slow start, recovery) are not weights: they hold with either.
#[derive(Debug)]
pub(super) struct DefaultPolicy;

impl Policy for DefaultPolicy {
    fn name(&self) -> &str {
        "default"
    }

    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
        let mut weights = candidates
            .iter()
            .map(Candidate::weight)
            .filter(|it| *it > 0);
        let first = weights.next();
        match weights.all(|weight| Some(weight) == first) {
            true => LeastRequest::new().build(candidates),
            false => Weighted::new().build(candidates),
        }
    }

    fn uses_weights(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Load;
    use super::super::distribution::{counts, picks};
    use super::*;

    /// The counts of 700 picks while the first of the endpoints has a call in flight.
    fn beside_a_busy_one(candidates: Vec<Candidate>) -> Vec<u64> {
        let load = Arc::new(Load::default());
        let _busy = load.begin();
        let mut candidates = candidates;
        candidates[0] = candidates[0].clone().with_load(load);
        let picker = DefaultPolicy.build(&candidates);
        counts(&picks(&*picker, 700), candidates.len())
    }

    fn weighing(weights: &[u32]) -> Vec<Candidate> {
        super::super::distribution::candidates(weights)
    }

    #[test]
    fn load_decides_unless_weights_differ() {
        assert_eq!(beside_a_busy_one(weighing(&[1, 1])), [0, 700]);
        assert_eq!(beside_a_busy_one(weighing(&[5, 5, 0])), [0, 700, 0]);
        let by_weight = beside_a_busy_one(weighing(&[5, 2]));
        assert!(by_weight[0].abs_diff(500) <= 2, "{by_weight:?}");
    }

    #[test]
    fn shares_make_no_difference_to_that() {
        let starting = vec![
            Candidate::new(1, 1),
            Candidate::new(2, 1).with_share(0.4),
            Candidate::new(3, 1),
        ];
        let counts = beside_a_busy_one(starting);
        // By weight it would get 700 / 2.4 = 292. Of these it keeps those, half and by lot (± 9), in which it is compared with the
        // starting one, which would be busier with the call.
        assert!(counts[0].abs_diff(146) < 60, "{counts:?}");
    }
}
