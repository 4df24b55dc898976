//! The better of two.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use super::alias::Alias;
use super::load::Load;
use super::randomness::{Draws, split};
use super::usable::{Nobody, Usable, weights};
use super::weighted::in_proportion;
use super::{Candidate, Pick, PickRequest, Picker};

/// When the second of two endpoints is the better one.
pub(super) trait Better: Send + Sync + Debug + 'static {
    /// Whether what is compared always differs a little, so that of two alike each is better half of the time. Then the
    /// second must be drawn by weight, as the first is, or the comparison makes all weights equal.
    const NOISY: bool;

    /// Whether the second is better than the first. `now` is the time of the channel's life.
    fn is_second_better(&self, first: Seen<'_>, second: Seen<'_>, now: Duration) -> bool;
}

/// An endpoint, as it is compared.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) load: &'a Load,
    /// At least 1.
    pub(super) weight: u32,
}

/// "Power of two choices" (Mitzenmacher, 1996), of which the first comes in turn and the second is drawn. Unlike the
/// best of all it needs no order to be kept, and calls that start together do not all go to the same endpoint.
///
/// With two draws a handful of idle endpoints would be served as unevenly as by lot. In turn they are served evenly until
/// one of them is worse than others, and only then left out.
#[derive(Debug)]
struct TwoChoices<B> {
    first: Box<dyn Picker>,
    second: Second,
    loads: Box<[(Arc<Load>, u32)]>,
    draws: Draws,
    better: B,
}

/// How the second one is drawn.
#[derive(Debug)]
enum Second {
    /// Any other, with equal chance. There are two at least.
    Other(Usable),
    /// Any, the first too, with a chance in proportion to its weight.
    ByWeight(Alias),
}

/// The picker for these candidates.
pub(super) fn build<B: Better>(
    candidates: &[Candidate],
    better: B,
    seed: Option<u64>,
) -> Box<dyn Picker> {
    let weights = weights(candidates);
    let first = in_proportion(&weights, seed);
    let Some(usable) = Usable::of(&weights) else {
        return Box::new(Nobody);
    };
    if usable.len() == 1 {
        return first;
    }
    let most = weights.iter().copied().max().unwrap_or_default();
    let differ = weights.iter().any(|&it| it > 0 && it < most);
    let by_weight = (B::NOISY && differ).then(|| Alias::new(&weights)).flatten();
    let loads = candidates.iter().zip(&weights);
    Box::new(TwoChoices {
        first,
        second: by_weight.map_or(Second::Other(usable), Second::ByWeight),
        loads: loads
            .map(|(it, weight)| (it.load(), (*weight).max(1)))
            .collect(),
        draws: Draws::new(seed),
        better,
    })
}

impl<B: Better> TwoChoices<B> {
    fn seen(&self, index: usize) -> Seen<'_> {
        let (load, weight) = &self.loads[index];
        Seen {
            load,
            weight: *weight,
        }
    }
}

impl<B: Better> Picker for TwoChoices<B> {
    fn pick(&self, request: &PickRequest<'_>) -> Pick {
        let first = match self.first.pick(request) {
            Pick::Endpoint(index) => index,
            nobody => return nobody,
        };
        let draw = self.draws.draw();
        let second = match &self.second {
            Second::ByWeight(alias) => alias.look_up(draw),
            Second::Other(usable) => {
                let last = usable.len() - 1;
                let index = usable.index(split(draw, last).0);
                // The last one stands in for the first.
                if index == first {
                    usable.index(last)
                } else {
                    index
                }
            }
        };
        let is_second = second != first
            && self
                .better
                .is_second_better(self.seen(first), self.seen(second), request.now());
        Pick::Endpoint(if is_second { second } else { first })
    }
}
