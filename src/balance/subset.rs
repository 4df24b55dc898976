//! Which endpoints of a very large set a client uses.

use std::time::Duration;

use xxhash_rust::xxh64::xxh64;

use crate::error::Error;

/// How many endpoints of a very large set are used.
///
/// Each connection costs both sides memory, and someone the handshake: a thousand clients that connect to all of ten
/// thousand servers hold ten million connections. With a subset, each client uses some servers only, and those that
/// different clients use are different. The others have no connection, no health check and no task;
/// [`Channel::status`](crate::Channel::status) lists them.
///
/// **Who is in**: the first endpoints in the order of a hash of endpoint and client (rendezvous hashing, gRFC A68), so that
/// an endpoint that comes or goes changes at most one place. Weights do not matter here: they count among the endpoints
/// that are in, so that over all clients each still gets its part. Drained endpoints (weight 0) take no place.
///
/// **Spares**: for each endpoint that is in but can't be connected to, or is not well, the next one of the order is used
/// too, up to as many again. When fewer are needed the last ones are given back, once that has been so for
/// [`hold_spares`](Self::hold_spares): they finish their calls.
///
/// With few clients some servers get no calls: each has this many of them, on average, as
/// `clients × size ÷ endpoints`. It should be 5 at least, or servers get very different parts.
///
/// ```
/// use trunkline::{Connector, Endpoint, Subset};
///
/// let many = (1..=10_000).map(|port| Endpoint::tcp(format!("10.0.0.7:{port}")));
/// let connector = Connector::endpoints(many).subset(Subset::of(100));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Subset {
    size: usize,
    seed: Option<u64>,
    hold: Duration,
    /// Somebody wants it, whatever the policy says.
    is_asked_for: bool,
}

/// What connecting to all costs a client is little up to here: 18 MiB of heap, and a tenth of a second until all sockets are
/// open (`benches/peers`, `many`). Fewer would leave servers without calls where there are few clients.
const SIZE: usize = 500;

/// As long as slow start: a spare that has just got its share should keep it for a while.
const HOLD: Duration = Duration::from_secs(30);
const LONGEST_HOLD: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Subset {
    /// 500 endpoints, unless the policy [needs all](crate::Policy::needs_all).
    fn default() -> Self {
        Self {
            is_asked_for: false,
            ..Self::of(SIZE)
        }
    }
}

impl Subset {
    /// At most so many endpoints, and as many spares: at least 1. Smaller sets are used whole.
    pub fn of(size: usize) -> Self {
        Self {
            size,
            seed: None,
            hold: HOLD,
            is_asked_for: true,
        }
    }

    /// What tells this client from others: the same seed chooses the same endpoints. Default: a random one for each
    /// channel.
    ///
    /// It is for tests, and for clients that should find warm servers again after a restart; clients that share a seed all
    /// use the same servers. Other versions of this crate may choose others.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How long spares stay after they are needed no more, so that an endpoint that comes and goes does not make others
    /// come and go. Default 30 s; from 0 to a day.
    pub fn hold_spares(mut self, time: Duration) -> Self {
        self.hold = time;
        self
    }

    /// # Errors
    ///
    /// A configuration error that names the field.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        if self.size == 0 {
            let problem = "0 endpoints could serve no call; use at least 1, or no_subset()";
            return Err(Error::config("subset", problem));
        }
        if self.hold > LONGEST_HOLD {
            let problem = format!("{:?} must be at most a day", self.hold);
            return Err(Error::config("subset.hold_spares", problem));
        }
        Ok(())
    }

    pub(crate) fn is_asked_for(&self) -> bool {
        self.is_asked_for
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn seed_or(&self, random: u64) -> u64 {
        self.seed.unwrap_or(random)
    }

    pub(super) fn hold(&self) -> Duration {
        self.hold
    }
}

/// The first `count` endpoints in the order of that seed, as indexes into `identities`. Whoever is in one with more
/// endpoints is in one with fewer of them, too.
pub(crate) fn first_of(identities: &[u64], seed: u64, count: usize) -> Vec<usize> {
    let score = |(index, identity): (usize, &u64)| {
        // The identity decides between equal scores: an order must not depend on what else there is.
        (xxh64(&identity.to_le_bytes(), seed), *identity, index)
    };
    let mut order: Vec<_> = identities.iter().enumerate().map(score).collect();
    if count < order.len() {
        order.select_nth_unstable(count);
        order.truncate(count);
    }
    order.sort_unstable();
    order.into_iter().map(|(.., index)| index).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Those that are in, by their identity.
    fn chosen(identities: &[u64], seed: u64, count: usize) -> BTreeSet<u64> {
        let first = first_of(identities, seed, count);
        assert_eq!(first.len(), count.min(identities.len()));
        first.into_iter().map(|index| identities[index]).collect()
    }

    proptest! {
        #[test]
        fn one_that_leaves_moves_at_most_one_place(
            all in proptest::collection::btree_set(any::<u64>(), 2..200),
            seed in any::<u64>(),
            count in 1_usize..50,
            leaving in any::<proptest::sample::Index>(),
        ) {
            let all: Vec<_> = all.into_iter().collect();
            let gone = *leaving.get(&all);
            let mut rest: Vec<_> = all.iter().copied().filter(|it| *it != gone).collect();
            // Another order of discovery is no change.
            rest.reverse();
            let (before, after) = (chosen(&all, seed, count), chosen(&rest, seed, count));
            let left: Vec<_> = before.difference(&after).collect();
            let came = after.difference(&before).count();
            prop_assert!(left.is_empty() || left == [&gone]);
            prop_assert!(came <= left.len());
        }

        #[test]
        fn a_longer_order_begins_as_a_shorter_one(
            all in proptest::collection::vec(any::<u64>(), 1..100),
            seed in any::<u64>(),
            count in 1_usize..50,
        ) {
            let (short, long) = (first_of(&all, seed, count), first_of(&all, seed, 2 * count));
            prop_assert_eq!(&short[..], &long[..short.len()]);
        }
    }

    #[test]
    fn over_all_seeds_each_is_in_as_often() {
        let identities: Vec<u64> = (0..50).collect();
        let mut times = [0_u32; 50];
        for seed in 0..10_000 {
            for index in first_of(&identities, seed, 5) {
                times[index] += 1;
            }
        }
        // 1,000 each, give or take 30: five of those are no accident.
        assert!(times.iter().all(|it| it.abs_diff(1_000) < 150), "{times:?}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(Subset::of(1).validate().is_ok());
        assert!(Subset::default().validate().is_ok());
        let none = Subset::of(0).validate().unwrap_err();
        assert!(none.to_string().contains("subset: 0 endpoints"), "{none}");
        let long = Subset::of(1).hold_spares(Duration::MAX);
        let long = long.validate().unwrap_err();
        assert!(long.to_string().contains("subset.hold_spares"), "{long}");
    }
}
