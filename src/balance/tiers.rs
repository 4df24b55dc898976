//! First these endpoints, then those.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use super::randomness::{Draws, split};
use super::usable::Nobody;
use super::{Candidate, Pick, PickRequest, Picker, Policy, ReportRules};

/// Groups of endpoints in an order: a later one gets calls only as far as those before it are not well. Within each group
/// another policy chooses.
///
/// A tier takes 1.4 times the part of it that is well (Envoy's priority load and its overprovisioning factor), and what it
/// can't take goes to the next. So up to 28 % of a tier may be missing before anything spills over, and it comes back as
/// they do. If all tiers together can't take all, each gets its part of all.
///
/// | of tier 0 are well | tier 0 gets | tier 1, all well |
/// |---:|---:|---:|
/// | 10 of 10 | 100 % | |
/// | 8 | 100 % | |
/// | 7 | 98 % | 2 % |
/// | 5 | 70 % | 30 % |
/// | 1 | 14 % | 86 % |
/// | 0 | | 100 % |
///
/// What is well is counted by weight: connected, or dialled on demand, and not ejected; of one that gets less than its due
/// for a while, because it starts or turns calls away, that part. Endpoints of weight 0 are in no tier.
///
/// **Use it** for what is near and what is far, for what is paid for and what is not, for a spare. **Not** if a
/// tier can't bear what it gets when the one before it is gone: nothing here knows how much that is. Among the calls that
/// spill over are sticky ones, too: with [`ConsistentHash`](super::ConsistentHash) within, a key has an endpoint in each
/// tier.
#[derive(Clone, Debug)]
pub struct Tiers {
    order: Order,
    inner: Arc<dyn Policy>,
    overprovisioning: f64,
    seed: Option<u64>,
}

/// Which tier an endpoint is in.
#[derive(Clone, Debug)]
enum Order {
    ByPriority,
    ByMetadata(String, Vec<String>),
}

/// The metadata that [`Endpoint::priority`](crate::Endpoint::priority) sets.
pub(crate) const PRIORITY: &str = "priority";

impl Tiers {
    /// By the endpoints' [priority](crate::Endpoint::priority), the smallest number first: their metadata `priority`, as
    /// Consul's services can have it. Default 0, for what is no number too. Within a tier `inner` chooses.
    pub fn by_priority(inner: impl Policy) -> Self {
        Self::new(Order::ByPriority, inner)
    }

    /// By what discovery says about the endpoints under `key`: first those with the first of the values, and so on, then all
    /// others. For example `Tiers::by_metadata("zone", ["eu-1a", "eu-1b"], RoundRobin::new())`.
    pub fn by_metadata<V: Into<String>>(
        key: impl Into<String>,
        values: impl IntoIterator<Item = V>,
        inner: impl Policy,
    ) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        Self::new(Order::ByMetadata(key.into(), values), inner)
    }

    fn new(order: Order, inner: impl Policy) -> Self {
        Self {
            order,
            inner: Arc::new(inner),
            overprovisioning: 1.4,
            seed: None,
        }
    }

    /// How many times the part of a tier that is well it may be given. Default 1.4; from 1 to 100, and what is not is brought
    /// there. The greater it is, the later calls spill over.
    #[must_use]
    pub fn overprovisioning(mut self, factor: f64) -> Self {
        // `max` takes the number where the other one is NaN.
        self.overprovisioning = factor.max(1.0).clamp(1.0, 100.0);
        self
    }

    /// Draws the tiers by the numbers that follow from `seed`, the same for each set. For tests: all threads share one
    /// counter.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

impl Order {
    fn tier_of(&self, candidate: &Candidate) -> usize {
        match self {
            Self::ByPriority => {
                let text = candidate.metadata(PRIORITY).unwrap_or_default();
                text.parse::<u32>().unwrap_or_default() as usize
            }
            Self::ByMetadata(key, values) => {
                let found = candidate.metadata(key);
                let place = values.iter().position(|it| Some(it.as_str()) == found);
                place.unwrap_or(values.len())
            }
        }
    }
}

impl Policy for Tiers {
    fn name(&self) -> &str {
        "tiers"
    }

    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
        self.build_among(candidates, &[])
    }

    fn build_among(&self, candidates: &[Candidate], unavailable: &[Candidate]) -> Box<dyn Picker> {
        let mut groups = std::collections::BTreeMap::<usize, Group>::new();
        for (index, candidate) in (0..).zip(candidates) {
            let group = groups.entry(self.order.tier_of(candidate)).or_default();
            group.indexes.push(index);
            group.candidates.push(candidate.clone());
        }
        for candidate in unavailable {
            let group = groups.entry(self.order.tier_of(candidate)).or_default();
            group.unavailable.push(candidate.clone());
        }
        let mut rest = 1.0;
        let mut upto = 0.0;
        let mut tiers = Vec::new();
        for group in groups.into_values() {
            let load = (group.part_well() * self.overprovisioning).min(rest);
            rest -= load;
            if group.candidates.is_empty() {
                continue;
            }
            upto += load;
            let (candidates, unavailable) = (&group.candidates, &group.unavailable);
            tiers.push(Tier {
                upto,
                picker: self.inner.build_among(candidates, unavailable),
                indexes: group.indexes.into(),
            });
        }
        let whole = upto;
        for tier in &mut tiers {
            tier.upto /= whole;
        }
        match tiers.is_empty() {
            true => Box::new(Nobody),
            false => Box::new(Tiered {
                tiers: tiers.into(),
                draws: Draws::new(self.seed),
            }),
        }
    }

    fn uses_weights(&self) -> bool {
        self.inner.uses_weights()
    }

    fn needs_weights(&self) -> bool {
        self.inner.needs_weights()
    }

    /// A tier that is left out, or part of one, would look as if it were not there.
    fn needs_all(&self) -> bool {
        true
    }

    fn refresh_interval(&self) -> Option<Duration> {
        self.inner.refresh_interval()
    }

    fn load_reports(&self) -> Option<ReportRules> {
        self.inner.load_reports()
    }

    fn uses_latency(&self) -> bool {
        self.inner.uses_latency()
    }
}

/// The endpoints of one tier.
#[derive(Default)]
struct Group {
    indexes: Vec<u32>,
    candidates: Vec<Candidate>,
    unavailable: Vec<Candidate>,
}

impl Group {
    /// By weight, and what each is to get of its due: within a tier of one endpoint nothing else would follow its share. If
    /// all weights are 0 they count as equal, as for every policy.
    fn part_well(&self) -> f64 {
        let known = || self.candidates.iter().chain(&self.unavailable);
        let drained = known().all(|it| it.weight() == 0);
        let weight = |it: &Candidate| if drained { 1.0 } else { f64::from(it.weight()) };
        let well = |it: &Candidate| weight(it) * it.share();
        let well: f64 = self.candidates.iter().map(well).sum();
        well / known().map(weight).sum::<f64>()
    }
}

#[derive(Debug)]
struct Tiered {
    tiers: Box<[Tier]>,
    draws: Draws,
}

#[derive(Debug)]
struct Tier {
    /// The part of all calls that this one and those before it get.
    upto: f64,
    picker: Box<dyn Picker>,
    /// The endpoints' indexes in the set.
    indexes: Box<[u32]>,
}

impl Tiered {
    fn draw(&self) -> usize {
        match &*self.tiers {
            [first, ..] if first.upto >= 1.0 => 0,
            tiers => {
                // As many bits as fit a float.
                let (draw, _) = split(self.draws.draw(), 1 << 53);
                let draw = draw as f64 / (1_u64 << 53) as f64;
                let found = tiers.iter().position(|tier| draw < tier.upto);
                found.unwrap_or(tiers.len() - 1)
            }
        }
    }
}

impl Picker for Tiered {
    fn pick(&self, request: &PickRequest<'_>) -> Pick {
        let mut at = self.draw();
        let mut asked = request.asked();
        // Its endpoints have all been no good.
        while let Some(tier) = self.tiers.get(at)
            && asked as usize >= tier.indexes.len()
            && at + 1 < self.tiers.len()
        {
            asked -= tier.indexes.len() as u32;
            at += 1;
        }
        let Some(tier) = self.tiers.get(at) else {
            return Pick::Wait;
        };
        match tier.picker.pick(&request.with_asked(asked)) {
            Pick::Endpoint(index) => match tier.indexes.get(index) {
                Some(index) => Pick::Endpoint(*index as usize),
                // What is outside of the tier is outside of the set.
                None => Pick::Endpoint(usize::MAX),
            },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests;
