//! How long calls took of late, as a distribution.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Eight buckets for each power of two: a bucket's bounds are at most 1/8 apart.
const BUCKETS: usize = 16 + 28 * 8;

/// Half of what is remembered: the percentile is that of the last 15 to 30 s (Finagle's window has 15).
const GENERATION: Duration = Duration::from_secs(15);

/// With fewer, nothing is said.
const ENOUGH: u64 = 100;

/// Two histograms: one that is being written, and the one before.
#[derive(Debug)]
pub(super) struct Latencies([Generation; 2]);

#[derive(Debug)]
struct Generation {
    /// Which one it is; 0: none yet.
    number: AtomicU64,
    counts: [AtomicU32; BUCKETS],
}

impl Latencies {
    pub(super) fn new() -> Self {
        Self([Generation::new(), Generation::new()])
    }

    pub(super) fn record(&self, took: Duration, now: Duration) {
        let number = number(now);
        let generation = &self.0[(number % 2) as usize];
        let seen = generation.number.load(Relaxed);
        // A few of the new ones may be lost here, which no percentile feels.
        if seen < number
            && (generation.number)
                .compare_exchange(seen, number, Relaxed, Relaxed)
                .is_ok()
        {
            generation.counts.iter().for_each(|it| it.store(0, Relaxed));
        }
        generation.counts[bucket(took)].fetch_add(1, Relaxed);
    }

    /// What that share of the calls does not exceed, rounded up; `None` if too few are known.
    pub(super) fn percentile(&self, share: f64, now: Duration) -> Option<Duration> {
        let newest = number(now);
        let mut counts = [0_u64; BUCKETS];
        for generation in &self.0 {
            if generation.number.load(Relaxed) + 1 >= newest {
                for (sum, count) in counts.iter_mut().zip(&generation.counts) {
                    *sum += u64::from(count.load(Relaxed));
                }
            }
        }
        let total: u64 = counts.iter().sum();
        let wanted = share * total as f64;
        let mut sum = 0;
        let bucket = counts.iter().position(|count| {
            sum += count;
            sum as f64 >= wanted
        });
        bucket.filter(|_| total >= ENOUGH).map(upper_bound)
    }
}

impl Generation {
    fn new() -> Self {
        Self {
            number: AtomicU64::new(0),
            counts: [const { AtomicU32::new(0) }; BUCKETS],
        }
    }
}

/// From 1 on.
fn number(now: Duration) -> u64 {
    now.as_secs() / GENERATION.as_secs() + 1
}

fn bucket(took: Duration) -> usize {
    let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
    match micros.checked_ilog2() {
        Some(exponent @ 4..) => {
            let eighth = (micros >> (exponent - 3)) & 7;
            16 + (exponent as usize - 4) * 8 + eighth as usize
        }
        _ => micros as usize,
    }
}

fn upper_bound(bucket: usize) -> Duration {
    let micros = match bucket.checked_sub(16) {
        None => bucket as u64,
        Some(above) => ((above as u64 % 8 + 9) << (above / 8 + 1)) - 1,
    };
    Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_bucket_is_narrow_and_holds_what_is_put_into_it() {
        for micros in (0..70_000).chain([1_000_000, 60_000_000, u64::from(u32::MAX)]) {
            let took = Duration::from_micros(micros);
            let bound = upper_bound(bucket(took));
            assert!(
                bound >= took && bound <= took + took / 8,
                "{took:?} {bound:?}"
            );
            assert_eq!(bucket(bound), bucket(took));
        }
        assert!(bucket(Duration::MAX) < BUCKETS);
    }

    #[test]
    fn percentiles_need_a_hundred_and_forget() {
        let latencies = Latencies::new();
        (0..99).for_each(|_| latencies.record(MS, MS));
        assert_eq!(latencies.percentile(0.5, MS), None);
        (0..10).for_each(|_| latencies.record(100 * MS, MS));
        let [half, most] = [0.5, 0.95].map(|share| latencies.percentile(share, MS).unwrap());
        assert!(half >= MS && half < 2 * MS, "{half:?}");
        assert!(most >= 100 * MS && most < 113 * MS, "{most:?}");
        let next = MS + GENERATION;
        assert_eq!(latencies.percentile(0.5, next), Some(half));
        assert_eq!(latencies.percentile(0.5, next + GENERATION), None);
        (0..100).for_each(|_| latencies.record(5 * MS, next + GENERATION));
        let half = latencies.percentile(0.5, next + GENERATION).unwrap();
        assert!(half >= 5 * MS && half < 6 * MS, "{half:?}");
    }
}
