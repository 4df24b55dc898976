//! Which endpoint a hash belongs to.

use xxhash_rust::xxh64::xxh64;

use super::randomness::split;

/// Weighted rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998; weights by
/// the logarithmic method of Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005), worked out beforehand
/// for each part of the range of hashes.
///
/// Each endpoint throws darts at the slots, its own always the same, as often in a unit of time as it weighs. A slot
/// belongs to whoever hits it first. So an endpoint that leaves gives up its slots and changes no other, one that joins takes
/// those that it hits first, and shares are in proportion to weights, whatever they are: there is nothing to scale, unlike on
/// a ring of points, where each endpoint's points depend on the number of endpoints and on their weights.
///
/// `n` slots take about `n · (ln n + 2)` darts of 15 ns, for any number of endpoints, and a look-up one access.
#[derive(Debug)]
pub(super) struct Rendezvous {
    owners: Box<[u32]>,
}

/// An endpoint's darts.
struct Darts {
    endpoint: u32,
    identity: u64,
    weight: f64,
    thrown: u64,
    /// When the next one hits.
    at: f64,
    slot: usize,
}

impl Rendezvous {
    /// Of each endpoint its identity and its weight; `None` if all are 0.
    pub(super) fn new(endpoints: &[(u64, u32)], slots: usize) -> Option<Self> {
        let used = (0..=u32::MAX)
            .zip(endpoints)
            .filter(|(_, (_, weight))| *weight > 0);
        let mut all: Vec<_> = used
            .map(|(endpoint, (identity, weight))| Darts {
                endpoint,
                identity: *identity,
                weight: f64::from(*weight),
                thrown: 0,
                at: 0.0,
                slot: 0,
            })
            .collect();
        let sum: f64 = all.iter().map(|darts| darts.weight).sum();
        if all.is_empty() || slots == 0 {
            return None;
        }
        all.iter_mut().for_each(|darts| darts.throw(slots));
        let mut hits = vec![(f64::INFINITY, 0); slots];
        // By then every slot has been hit with a chance of e^(-1/e²), 87 %; whoever hit it first is settled.
        let mut until = slots as f64 * ((slots as f64).ln() + 2.0) / sum;
        while hits.iter().any(|(at, _)| *at > until) {
            for darts in &mut all {
                while darts.at <= until {
                    let hit = &mut hits[darts.slot];
                    if darts.at < hit.0 {
                        *hit = (darts.at, darts.endpoint);
                    }
                    darts.throw(slots);
                }
            }
            until *= 1.5;
        }
        Some(Self {
            owners: hits.into_iter().map(|(_, endpoint)| endpoint).collect(),
        })
    }

    /// The endpoint to which this hash belongs. If so many have been `passed` over, the owner of the next slot that is none of
    /// them: of the eight that come first, round and round.
    pub(super) fn look_up(&self, hash: u64, passed: u32) -> usize {
        const MET: usize = 8;
        let (start, _) = split(hash, self.owners.len());
        let passed = passed as usize % MET;
        let mut met = [0; MET];
        let mut count = 0;
        let (before, on) = self.owners.split_at(start);
        for owner in on.iter().chain(before) {
            if met[..count].contains(owner) {
                continue;
            }
            if count == passed {
                return *owner as usize;
            }
            met[count] = *owner;
            count += 1;
        }
        // There are only so many.
        met[passed % count.max(1)] as usize
    }
}

impl Darts {
    /// The time to the next dart is exponentially distributed, so that in any time each endpoint's are in proportion to its
    /// weight.
    fn throw(&mut self, slots: usize) {
        let draw = xxh64(&self.thrown.to_le_bytes(), self.identity);
        self.thrown += 1;
        let (slot, rest) = split(draw, slots);
        // Above 0, at most 1.
        let uniform = ((rest >> 11) + 1) as f64 * 2_f64.powi(-53);
        self.slot = slot;
        self.at -= uniform.ln() / self.weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOTS: usize = 16_384;

    fn equal(count: u64) -> Vec<(u64, u32)> {
        (0..count).map(|identity| (identity, 1)).collect()
    }

    fn shares(table: &Rendezvous, endpoints: usize) -> Vec<f64> {
        let mut shares = vec![0.0; endpoints];
        for owner in &table.owners {
            shares[*owner as usize] += 1.0 / table.owners.len() as f64;
        }
        shares
    }

    #[test]
    fn shares_are_in_proportion_to_weights_whatever_they_are() {
        let sets: [&[u32]; 6] = [
            &[1],
            &[1, 1],
            &[9, 1, 0],
            &[u32::MAX, u32::MAX / 3, 1],
            &[100, 1, 1, 1, 1, 1, 1],
            &[7; 100],
        ];
        for weights in sets {
            let endpoints: Vec<_> = (1_000..).zip(weights.iter().copied()).collect();
            let table = Rendezvous::new(&endpoints, SLOTS).unwrap();
            let sum: f64 = weights.iter().copied().map(f64::from).sum();
            for (share, weight) in shares(&table, weights.len()).iter().zip(weights) {
                let ideal = f64::from(*weight) / sum;
                let deviation = (ideal * (1.0 - ideal) / SLOTS as f64).sqrt();
                assert!((share - ideal).abs() <= 4.0 * deviation, "{share}, {ideal}");
            }
        }
    }

    #[test]
    fn nobody_owns_nothing() {
        assert!(Rendezvous::new(&[], SLOTS).is_none());
        assert!(Rendezvous::new(&[(1, 0)], SLOTS).is_none());
        assert!(Rendezvous::new(&[(1, 1)], 0).is_none());
    }

    #[test]
    fn others_come_in_an_order_and_again() {
        let table = Rendezvous::new(&equal(3), SLOTS).unwrap();
        for hash in (0..1_000_u64).map(|it| it << 54) {
            let order: Vec<_> = (0..3).map(|passed| table.look_up(hash, passed)).collect();
            let mut all = order.clone();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2]);
            assert_eq!(table.look_up(hash, 3), order[0]);
        }
        let table = Rendezvous::new(&equal(50), SLOTS).unwrap();
        assert_eq!(table.look_up(5, 8), table.look_up(5, 0));
        assert_ne!(table.look_up(5, 7), table.look_up(5, 0));
        assert!(table.look_up(u64::MAX, u32::MAX) < 50);
    }

    #[test]
    fn it_is_the_same_everywhere_and_for_ever() {
        let table = Rendezvous::new(&[(4_711, 3), (42, 2), (7, 1)], 16).unwrap();
        assert_eq!(
            *table.owners,
            [0, 0, 0, 0, 2, 1, 0, 1, 2, 1, 0, 1, 0, 1, 0, 0]
        );
    }
}
