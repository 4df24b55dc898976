//! The better of two, drawn at random.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use super::alias::Alias;
use super::load::Load;
use super::randomness::{Draws, split};
use super::usable::{Nobody, Usable, weights};
use super::{Candidate, Pick, PickRequest, Picker};

/// What makes one endpoint worse than another.
pub(super) trait Cost: Send + Sync + Debug + 'static {
    /// The lower, the better. `now` is the time of the channel's life.
    fn cost(&self, load: &Load, weight: u32, now: Duration) -> f64;
}

/// "Power of two choices" (Mitzenmacher, 1996): of two random endpoints the one with the lower cost, and of equal ones the
/// one that was drawn first. Unlike the best of all it needs no order to be kept, and calls that start together do
/// not all go to the same endpoint.
#[derive(Debug)]
struct TwoChoices<C> {
    pairs: Pairs,
    loads: Box<[(Arc<Load>, u32)]>,
    draws: Draws,
    cost: C,
}

/// How two endpoints are drawn.
#[derive(Debug)]
enum Pairs {
    Alone(usize),
    /// Two different ones, with equal chance.
    Equal(Usable),
    /// Each with a chance in proportion to its weight; they may be the same.
    ByWeight(Alias),
}

/// The picker for these candidates.
pub(super) fn build<C: Cost>(
    candidates: &[Candidate],
    cost: C,
    seed: Option<u64>,
) -> Box<dyn Picker> {
    let weights = weights(candidates);
    let Some(usable) = Usable::of(&weights) else {
        return Box::new(Nobody);
    };
    let mut used = weights.iter().filter(|weight| **weight > 0);
    let first = used.next();
    let equal = used.all(|weight| Some(weight) == first);
    let pairs = match (usable.len(), equal, Alias::new(&weights)) {
        (1, _, _) => Pairs::Alone(usable.index(0)),
        (_, false, Some(alias)) => Pairs::ByWeight(alias),
        _ => Pairs::Equal(usable),
    };
    let loads = candidates.iter().zip(&weights);
    Box::new(TwoChoices {
        pairs,
        loads: loads
            .map(|(it, weight)| (it.load(), (*weight).max(1)))
            .collect(),
        draws: Draws::new(seed),
        cost,
    })
}

impl<C: Cost> Picker for TwoChoices<C> {
    fn pick(&self, request: &PickRequest<'_>) -> Pick {
        let (one, other) = match &self.pairs {
            Pairs::Alone(index) => return Pick::Endpoint(*index),
            Pairs::Equal(usable) => {
                let (first, rest) = split(self.draws.draw(), usable.len());
                // What is left of the draw is as random.
                let (step, _) = split(rest, usable.len() - 1);
                let second = first + 1 + step;
                let second = second
                    - if second >= usable.len() {
                        usable.len()
                    } else {
                        0
                    };
                (usable.index(first), usable.index(second))
            }
            Pairs::ByWeight(alias) => (
                alias.look_up(self.draws.draw()),
                alias.look_up(self.draws.draw()),
            ),
        };
        let cost = |index: usize| {
            let (load, weight) = &self.loads[index];
            self.cost.cost(load, *weight, request.now())
        };
        Pick::Endpoint(match one != other && cost(other) < cost(one) {
            true => other,
            false => one,
        })
    }
}
