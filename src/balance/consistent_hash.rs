//! Calls with the same key go to the same endpoint.

use http::HeaderName;

use super::rendezvous::Rendezvous;
use super::usable::{Nobody, weights};
use super::weighted::in_proportion;
use super::{Candidate, HashKey, Pick, PickRequest, Picker, Policy};

/// Sticky calls: all with the same key go to the same endpoint as long as it is there, and then to the same other one.
/// All clients agree on which, without a word between them.
///
/// The key is a request's [`HashKey`], or else its value of a header; requests without one take turns by weight.
/// Where endpoints come and go, no more keys move than must: those of an endpoint that leaves, and those that one that joins
/// takes over. A retry goes to the endpoint that would take over.
///
/// It does what ring hash (gRFC A42) and Maglev do, by weighted rendezvous hashing, worked out for each slot of a table:
///
/// | of 10 endpoints | leaves: keys moved | joins |
/// |---|---:|---:|
/// | consistent hash | 1/10 | 1/11 |
/// | by number, `hash % 10` | 9/10 | 10/11 |
///
/// Weights are followed, as far as keys are many and alike. With the default of 16,384 slots the shares of ten endpoints
/// are within 2.3 % of 1/10 each, those of a hundred within 8 % of 1/100 (one standard deviation).
///
/// **Use it** for what servers keep between calls: caches, sessions. **Not** to spread load: a key that is asked for often
/// has one endpoint, however busy that is. Wherever an endpoint is out only for a moment, its keys are elsewhere for that
/// moment, so it is no substitute for shared state.
#[derive(Clone, Debug)]
pub struct ConsistentHash {
    header: Option<HeaderName>,
    slots: usize,
    seed: Option<u64>,
}

/// Each slot is 4 bytes of each set, and a fifth of a microsecond of the making of it.
const MIN_SLOTS: usize = 1_024;
const DEFAULT_SLOTS: usize = 16_384;
const MAX_SLOTS: usize = 1 << 20;

/// With fewer, shares are too far from what they should be.
const SLOTS_PER_ENDPOINT: usize = 4;

impl ConsistentHash {
    /// By the [`HashKey`] among the request's extensions.
    #[must_use]
    pub const fn by_key() -> Self {
        Self {
            header: None,
            slots: DEFAULT_SLOTS,
            seed: None,
        }
    }

    /// By a header, in gRPC by a value of the metadata, unless the request has a [`HashKey`]. The values of a header that
    /// comes more than once count as one, joined by commas.
    #[must_use]
    pub const fn by_header(name: HeaderName) -> Self {
        Self {
            header: Some(name),
            slots: DEFAULT_SLOTS,
            seed: None,
        }
    }

    /// How finely keys are spread. All clients must have the same number, or they disagree about half of the keys and more.
    /// Default 16,384; from 1,024 to 1,048,576, and what is not is brought there.
    ///
    /// There are 4 for each endpoint at least, so that above 4,096 endpoints their number doubles when that of the endpoints
    /// does, and with it half of the keys move. Set it to 4 or more times the number that you expect to avoid that.
    #[must_use]
    pub fn slots(mut self, slots: usize) -> Self {
        self.slots = slots.clamp(MIN_SLOTS, MAX_SLOTS);
        self
    }

    /// Requests without a key start where `seed` says: the same for each set of the same weights. For tests.
    #[must_use]
    pub const fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

impl Policy for ConsistentHash {
    fn name(&self) -> &str {
        "consistent_hash"
    }

    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
        self.build_among(candidates, &[])
    }

    fn build_among(&self, candidates: &[Candidate], unavailable: &[Candidate]) -> Box<dyn Picker> {
        let weights = weights(candidates);
        let identities = candidates.iter().map(Candidate::identity);
        let endpoints: Vec<_> = identities.zip(weights.iter().copied()).collect();
        // Of all, or the number of slots, and with it half of the keys' endpoints, would change with a connection.
        let known = candidates.len() + unavailable.len();
        let least = known.saturating_mul(SLOTS_PER_ENDPOINT);
        let slots = self.slots.max(least.next_power_of_two().min(MAX_SLOTS));
        match Rendezvous::new(&endpoints, slots) {
            None => Box::new(Nobody),
            Some(table) => Box::new(Sticky {
                header: self.header.clone(),
                table,
                keyless: in_proportion(&weights, self.seed),
            }),
        }
    }

    fn uses_weights(&self) -> bool {
        true
    }

    fn needs_all(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Sticky {
    header: Option<HeaderName>,
    table: Rendezvous,
    keyless: Box<dyn Picker>,
}

impl Picker for Sticky {
    fn pick(&self, request: &PickRequest<'_>) -> Pick {
        let key = request.extensions().get::<HashKey>().copied();
        let of_header = || HashKey::of_header(request.headers(), self.header.as_ref()?);
        match key.or_else(of_header) {
            Some(key) => Pick::Endpoint(self.table.look_up(key.hash(), request.asked())),
            None => self.keyless.pick(request),
        }
    }
}

#[cfg(test)]
mod tests;
