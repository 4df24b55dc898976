//! A limit on how often an agent is asked.

use std::time::Duration;

use crate::time::Instant;

/// A token bucket, as the generic cell rate algorithm: one instant in place of a count and a clock.
///
/// Blocking queries limit themselves while nothing changes. While a service churns, each of them is answered at once,
/// and Consul's documentation asks clients for a token bucket instead of a pause: a lone change is then seen at once.
#[derive(Debug)]
pub(super) struct Bucket {
    interval: Duration,
    /// How far the schedule may run ahead of the clock.
    slack: Duration,
    /// When the next query would start if all were evenly spaced.
    schedule: Instant,
}

impl Bucket {
    /// A full bucket of `burst` tokens, one more each `interval`.
    pub(super) fn new(burst: u32, interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            slack: interval * burst.saturating_sub(1),
            schedule: now,
        }
    }

    /// Takes a token, and says from when on it holds: now, unless the bucket is empty.
    pub(super) fn take(&mut self, now: Instant) -> Instant {
        let scheduled = self.schedule.max(now);
        self.schedule = scheduled + self.interval;
        scheduled.checked_sub(self.slack).unwrap_or(now).max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(3, SECOND, start);
        let waits: Vec<_> = (0..6).map(|_| bucket.take(start) - start).collect();
        let seconds = [0, 0, 0, 1, 2, 3].map(Duration::from_secs);
        assert_eq!(waits, seconds);
    }

    #[test]
    fn it_fills_again_and_no_further() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2, SECOND, start);
        for _ in 0..5 {
            bucket.take(start);
        }
        let later = start + SECOND * 60;
        let waits: Vec<_> = (0..4).map(|_| bucket.take(later) - later).collect();
        assert_eq!(waits, [0, 0, 1, 2].map(Duration::from_secs));
    }

    #[test]
    fn in_the_long_run_there_are_no_more_than_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(5, SECOND, start);
        let (mut now, mut taken) = (start, 0);
        while now < start + SECOND * 60 {
            now = bucket.take(now);
            taken += 1;
        }
        assert!((60..=65).contains(&taken), "{taken}");
    }
}
