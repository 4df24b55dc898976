//! A limit on how often others are asked.

use std::time::Duration;

use crate::time::Instant;

/// A token bucket, as the generic cell rate algorithm: one instant in place of a count and a clock.
///
/// Blocking queries limit themselves while nothing changes. While a service churns, each of them is answered at once,
/// and Consul's documentation asks clients for a token bucket instead of a pause: a lone change is then seen at once.
#[derive(Debug)]
pub(crate) struct Bucket {
    interval: Duration,
    /// How far the schedule may run ahead of the clock.
    slack: Duration,
    /// When the next query would start if all were evenly spaced.
    schedule: Instant,
}

impl Bucket {
    /// A full bucket of `burst` tokens, one more each `interval`.
    pub(crate) fn new(burst: u32, interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            slack: interval * burst.saturating_sub(1),
            schedule: now,
        }
    }

    /// When there is a token. Takes none: whoever gives up while it waits must leave nothing behind.
    pub(crate) fn ready(&self, now: Instant) -> Instant {
        self.schedule
            .checked_sub(self.slack)
            .unwrap_or(now)
            .max(now)
    }

    /// Takes the token that is there.
    pub(crate) fn take(&mut self, now: Instant) {
        self.schedule = self.schedule.max(now) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Waits for a token and takes it. Gives the time then.
    fn next(bucket: &mut Bucket, now: Instant) -> Instant {
        let ready = bucket.ready(now);
        bucket.take(ready);
        ready
    }

    fn waits<const N: usize>(bucket: &mut Bucket, start: Instant) -> [u64; N] {
        let mut now = start;
        [0; N].map(|_| {
            now = next(bucket, now);
            (now - start).as_secs()
        })
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(3, SECOND, start);
        assert_eq!(waits(&mut bucket, start), [0, 0, 0, 1, 2, 3]);
    }

    #[test]
    fn who_gives_up_waiting_leaves_no_debt() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2, SECOND, start);
        let _ = waits::<4>(&mut bucket, start);
        for _ in 0..1000 {
            assert!(bucket.ready(start) <= start + SECOND * 3);
        }
        assert!(bucket.ready(start + SECOND * 3) <= start + SECOND * 3);
    }

    #[test]
    fn it_fills_again_and_no_further() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2, SECOND, start);
        let _ = waits::<5>(&mut bucket, start);
        let later = start + SECOND * 60;
        assert_eq!(waits(&mut bucket, later), [0, 0, 1, 2]);
    }

    #[test]
    fn in_the_long_run_there_are_no_more_than_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(5, SECOND, start);
        let (mut now, mut taken) = (start, 0);
        while now < start + SECOND * 60 {
            now = next(&mut bucket, now);
            taken += 1;
        }
        assert!((60..=65).contains(&taken), "{taken}");
    }
}
