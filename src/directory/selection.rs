//! Which of the endpoints are connected. Pure: time comes in as an argument.

use std::sync::Arc;

use crate::balance::{Spares, Subset, first_of};
use crate::endpoint::{Key, Subchannel};
use crate::time::Instant;

/// All endpoints, or a subset.
#[derive(Debug, Default)]
pub(super) struct Selection(Option<Chosen>);

#[derive(Debug)]
struct Chosen {
    size: usize,
    seed: u64,
    spares: Spares,
    /// Endpoints that there were to choose from.
    known: usize,
    /// Those that are used, in the order of the choice. Empty if they are all.
    order: Vec<Arc<Subchannel>>,
}

impl Selection {
    /// `random` is the seed if none was given.
    pub(super) fn new(subset: Option<&Subset>, random: u64) -> Self {
        Self(subset.map(|subset| Chosen {
            size: subset.size(),
            seed: subset.seed_or(random),
            spares: Spares::new(subset),
            known: 0,
            order: Vec::new(),
        }))
    }

    /// Chooses among `keys`, each with its place in the set: gives the places of those to use, in the order of the choice,
    /// or nothing if it is all of them.
    pub(super) fn choose<'a>(
        &mut self,
        keys: impl Iterator<Item = (usize, &'a Key)>,
    ) -> Option<Vec<usize>> {
        let chosen = self.0.as_mut()?;
        let (places, identities): (Vec<_>, Vec<_>) =
            keys.map(|(place, key)| (place, key.identity())).unzip();
        chosen.known = places.len();
        if places.len() <= chosen.size {
            return None;
        }
        let first = first_of(&identities, chosen.seed, chosen.spares.used());
        Some(first.into_iter().map(|index| places[index]).collect())
    }

    /// These are used now, in the order of the choice; nothing, if it is all of them.
    pub(super) fn uses(&mut self, order: Vec<Arc<Subchannel>>) {
        if let Some(chosen) = &mut self.0 {
            if order.is_empty() {
                chosen.spares.forget();
            }
            chosen.order = order;
        }
    }

    /// Looks at those that are used. Says whether the choice would be another one now.
    pub(super) fn has_changed(&mut self, now: Instant) -> bool {
        self.0.as_mut().is_some_and(|chosen| {
            let down = chosen.order.iter().map(|it| it.is_down(now));
            !chosen.order.is_empty() && chosen.spares.look(now, chosen.known, down)
        })
    }

    /// When time alone changes the choice.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.as_ref()?.spares.next()
    }
}
