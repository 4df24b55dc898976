//! Latencies, counted in buckets that are at most 1.6 % wide. Recording is one atomic addition and allocates nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Each power of two has this many buckets, as a power of two.
const PRECISION: u32 = 6;
const BUCKETS: usize = (64 - PRECISION as usize + 1) << PRECISION;

pub struct Histogram(Box<[AtomicU64]>);

impl Histogram {
    pub fn new() -> Self {
        Self((0..BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }

    pub fn record(&self, latency: Duration) {
        self.0[bucket(latency.as_nanos() as u64)].fetch_add(1, Relaxed);
    }

    pub fn clear(&self) {
        self.0.iter().for_each(|count| count.store(0, Relaxed));
    }

    /// The latencies that these shares of all calls did not exceed, in microseconds.
    pub fn quantiles<const N: usize>(&self, shares: [f64; N]) -> [f64; N] {
        let counts: Vec<u64> = self.0.iter().map(|count| count.load(Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        shares.map(|share| {
            let rank = (all as f64 * share).ceil().max(1.0) as u64;
            let mut below = 0;
            let found = counts.iter().position(|count| {
                below += count;
                below >= rank
            });
            found.map_or(0.0, |bucket| lowest(bucket) as f64 / 1e3)
        })
    }
}

/// Small values have a bucket each; above, the leading bits decide.
fn bucket(value: u64) -> usize {
    let shift = (64 - value.leading_zeros()).saturating_sub(PRECISION + 1);
    ((shift as usize) << PRECISION) + (value >> shift) as usize
}

/// The smallest value of a bucket.
fn lowest(bucket: usize) -> u64 {
    let shift = (bucket >> PRECISION).saturating_sub(1) as u32;
    ((bucket - ((shift as usize) << PRECISION)) as u64) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_at_most_one_part_in_64_above_its_bucket() {
        for value in (0..200).chain([1_000, 65_535, 65_536, 1_234_567_890, u64::MAX]) {
            let found = lowest(bucket(value));
            assert!(
                found <= value && value - found <= value >> PRECISION,
                "{value}: {found}"
            );
        }
    }

    #[test]
    fn quantiles_are_ranks() {
        let histogram = Histogram::new();
        (1..=100).for_each(|us| histogram.record(Duration::from_nanos(us)));
        let found = histogram
            .quantiles([0.5, 0.99, 1.0])
            .map(|us| (us * 1e3).round());
        assert_eq!(found, [50.0, 99.0, 100.0]);
    }
}
