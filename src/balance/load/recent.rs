//! How long an endpoint took to answer of late.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How many answers are remembered.
const KEPT: usize = 16;

/// With fewer, nothing is said: one slow answer is no rule.
const ENOUGH: usize = 5;

/// How long they are remembered. What an endpoint did in an outage must not keep retries from it for ever.
const WINDOW: Duration = Duration::from_secs(30);

/// The last [`KEPT`] latencies, each with its time; of many, one in a millisecond.
///
/// A cell is one word, so that a reader never sees half of it: the latency in µs above, and below the time in
/// milliseconds. 0: nothing yet.
#[derive(Debug, Default)]
pub(super) struct Recent {
    cells: [AtomicU64; KEPT],
    next: AtomicU32,
}

impl Recent {
    pub(super) fn add(&self, took: Duration, now: Duration) {
        let stamp = u64::from(millis(now).max(1));
        // One in a millisecond is enough, once there are so many: each takes the cache lines from all other threads.
        let next = self.next.load(Relaxed);
        let [newest, oldest] =
            [next.wrapping_sub(1), next].map(|it| self.cells[it as usize % KEPT].load(Relaxed));
        if oldest > 0 && newest & u64::from(u32::MAX) == stamp {
            return;
        }
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let index = self.next.fetch_add(1, Relaxed) as usize % KEPT;
        self.cells[index].store(u64::from(micros) << 32 | stamp, Relaxed);
    }

    /// The median of the last 16 that are not older than 30 s; `None` if they are fewer than 5. Of an even number the
    /// lower one in the middle.
    pub(super) fn median(&self, now: Duration) -> Option<Duration> {
        let mut known = [0; KEPT];
        let mut count = 0;
        for cell in &self.cells {
            let word = cell.load(Relaxed);
            let at = (word & u64::from(u32::MAX)) as u32;
            if at > 0 && is_recent(at, now) {
                known[count] = (word >> 32) as u32;
                count += 1;
            }
        }
        let known = &mut known[..count];
        let (_, median, _) =
            (count >= ENOUGH).then(|| known.select_nth_unstable((count - 1) / 2))?;
        Some(Duration::from_micros(u64::from(*median)))
    }
}

/// Counts of milliseconds wrap after 49 days, and threads may come a little late: what seems to be more than half of that
/// away is not past.
fn is_recent(at: u32, now: Duration) -> bool {
    let elapsed = millis(now).wrapping_sub(at);
    elapsed > u32::MAX / 2 || Duration::from_millis(u64::from(elapsed)) <= WINDOW
}

#[expect(clippy::cast_possible_truncation, reason = "wraps")]
fn millis(now: Duration) -> u32 {
    now.as_millis() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_few_are_needed_and_the_oldest_are_forgotten() {
        let recent = Recent::default();
        for millis in [9, 1, 7, 3] {
            recent.add(millis * MS, MS);
            assert_eq!(recent.median(MS), None);
        }
        recent.add(5 * MS, MS);
        assert_eq!(recent.median(MS), Some(5 * MS));
        recent.add(100 * MS, MS);
        assert_eq!(recent.median(MS), Some(5 * MS), "the lower one");
        (0..16).for_each(|_| recent.add(20 * MS, MS));
        assert_eq!(recent.median(MS), Some(20 * MS));
    }

    #[test]
    fn of_many_one_in_a_millisecond_is_remembered() {
        let recent = Recent::default();
        (0..KEPT).for_each(|_| recent.add(5 * MS, MS));
        (0..100).for_each(|_| recent.add(900 * MS, MS));
        assert_eq!(recent.median(MS), Some(5 * MS), "a burst is one moment");
        for now in 2..=9 {
            recent.add(20 * MS, now * MS);
            recent.add(900 * MS, now * MS);
        }
        assert_eq!(recent.median(MS), Some(5 * MS), "half of them");
        recent.add(20 * MS, 10 * MS);
        assert_eq!(recent.median(MS), Some(20 * MS));
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let recent = Recent::default();
        (0..8).for_each(|_| recent.add(5_000 * MS, MS));
        assert_eq!(recent.median(MS + WINDOW), Some(5_000 * MS));
        assert_eq!(recent.median(2 * MS + WINDOW), None);
        (0..5).for_each(|_| recent.add(MS, 2 * MS + WINDOW));
        assert_eq!(recent.median(2 * MS + WINDOW), Some(MS));
    }

    #[test]
    fn extremes_saturate() {
        let recent = Recent::default();
        let now = Duration::from_millis(u64::from(u32::MAX) - 3);
        (0..5).for_each(|_| recent.add(Duration::MAX, now));
        for now in [now, now + 5 * MS, now - 5 * MS] {
            assert!(recent.median(now).unwrap() > Duration::from_secs(4_000));
        }
    }
}
