//! Where random numbers come from: each thread's own generator, or a seed that makes them
//! repeatable.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use fastrand::Rng;

/// The generator for building a picker.
pub(super) fn generator(seed: Option<u64>) -> Rng {
    seed.map_or_else(Rng::new, Rng::with_seed)
}

/// One random number per pick.
#[derive(Debug)]
pub(super) enum Draws {
    /// From the calling thread's generator: nothing is shared.
    Thread,
    /// The same numbers in every run, in the order of the picks of all threads.
    Seeded(AtomicU64),
}

impl Draws {
    pub(super) fn new(seed: Option<u64>) -> Self {
        seed.map_or(Self::Thread, |seed| Self::Seeded(AtomicU64::new(seed)))
    }

    /// A uniform number of 64 bits.
    pub(super) fn draw(&self) -> u64 {
        match self {
            Self::Thread => fastrand::u64(..),
            Self::Seeded(state) => {
                // An odd step near 2^64 / golden ratio, so that neighbouring draws share no pattern
                // of bits (Weyl sequence).
                const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
                Rng::with_seed(state.fetch_add(STEP, Relaxed)).u64(..)
            }
        }
    }
}

/// Splits a draw into an index below `n`, and a fraction of 64 bits that is independent of it:
/// Lemire's multiplication ("Fast random integer generation in an interval", 2019). Without his
/// rejection step indexes differ in their chance by less than `n` in 2^64.
pub(super) fn split(draw: u64, n: usize) -> (usize, u64) {
    let product = u128::from(draw) * n as u128;
    ((product >> 64) as usize, product as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let draw = |seed| {
            let draws = Draws::new(Some(seed));
            [draws.draw(), draws.draw(), draws.draw()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_eq!(generator(Some(7)).u64(..), generator(Some(7)).u64(..));
    }

    #[test]
    fn a_split_covers_the_range_and_no_more() {
        assert_eq!(split(0, 3), (0, 0));
        assert_eq!(split(u64::MAX, 3).0, 2);
        assert_eq!(split(u64::MAX, 1).0, 0);
        assert_eq!(split(1 << 63, 3), (1, 1 << 63));
    }
}
