//! How long an endpoint takes to answer, with more weight on the bad times.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A peak-sensitive moving average of latency: a longer one counts at once, a shorter one little by little.
///
/// One word, so that a reader never sees half an update: the estimate in seconds, an `f32`, above, and the time of it in
/// milliseconds below. 0: nothing was ever observed. Updates that meet may be lost; the next one comes soon.
///
/// A step of the estimate is a part of it, and not of a second: a millisecond takes 10⁻⁴ of what is too much, and with any
/// fixed unit the rounding gave that back where answers come each millisecond.
#[derive(Debug, Default)]
pub(in crate::balance) struct Latency(AtomicU64);

/// How fast what was is forgotten: after this time e⁻¹ of it is left (Finagle, linkerd).
const DECAY: Duration = Duration::from_secs(10);

/// The longest estimate: what takes longer is not worse (the longest pushback that counts, too).
const LONGEST: f64 = 300.0;

impl Latency {
    /// The estimate in seconds, decayed to `now`: an endpoint that nobody picks must not stay slow for ever. `None` if
    /// nothing was ever observed.
    pub(in crate::balance) fn estimate(&self, now: Duration) -> Option<f64> {
        let (estimate, at) = self.read()?;
        Some(estimate * decay(at, now))
    }

    /// An answer took that long.
    pub(super) fn observe(&self, took: Duration, now: Duration) {
        let took = took.as_secs_f64();
        let next = match self.read() {
            Some((estimate, at)) if took < estimate => {
                let kept = decay(at, now);
                estimate * kept + took * (1.0 - kept)
            }
            _ => took,
        };
        self.write(next, now);
    }

    /// A failure is to count as that long, and never makes the estimate lower.
    pub(super) fn observe_failure(&self, penalty: Duration, now: Duration) {
        let estimate = self.read().map_or(0.0, |(estimate, _)| estimate);
        self.write(estimate.max(penalty.as_secs_f64()), now);
    }

    /// An answer would have taken longer than that.
    pub(super) fn observe_bound(&self, waited: Duration, now: Duration) {
        if self
            .estimate(now)
            .is_none_or(|it| waited.as_secs_f64() > it)
        {
            self.write(waited.as_secs_f64(), now);
        }
    }

    fn write(&self, estimate: f64, now: Duration) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "rounds: 24 bits of it are enough"
        )]
        let estimate = estimate.min(LONGEST) as f32;
        let stamp = u64::from(millis(now).max(1));
        let word = u64::from(estimate.to_bits()) << 32 | stamp;
        // A shorter answer changes nothing within the same millisecond. Stored all the same it would take the cache line
        // from the other threads, which compare and answer here too.
        if self.0.load(Relaxed) != word {
            self.0.store(word, Relaxed);
        }
    }

    /// The estimate, and the time of it in milliseconds.
    fn read(&self) -> Option<(f64, u32)> {
        let word = self.0.load(Relaxed);
        let at = (word & u64::from(u32::MAX)) as u32;
        let estimate = f64::from(f32::from_bits((word >> 32) as u32));
        (at > 0).then_some((estimate, at))
    }
}

/// What is left at `now` of what was observed at that time. Counts of milliseconds wrap after 49 days, and threads may come
/// a little late with what they saw: what seems to be more than half of that away is not past.
fn decay(at: u32, now: Duration) -> f64 {
    let elapsed = millis(now).wrapping_sub(at);
    let elapsed = if elapsed > u32::MAX / 2 { 0 } else { elapsed };
    (-f64::from(elapsed) / 1000.0 / DECAY.as_secs_f64()).exp()
}

#[expect(clippy::cast_possible_truncation, reason = "wraps")]
fn millis(now: Duration) -> u32 {
    now.as_millis() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn close(estimate: Option<f64>, millis: f64) -> bool {
        estimate.is_some_and(|it| (it * 1000.0 - millis).abs() < 0.01)
    }

    #[test]
    fn a_peak_counts_at_once_and_wears_off() {
        let latency = Latency::default();
        assert_eq!(latency.estimate(Duration::ZERO), None);
        latency.observe(2 * MS, MS);
        assert!(close(latency.estimate(MS), 2.0), "the first one is it");
        latency.observe(500 * MS, 2 * MS);
        assert!(close(latency.estimate(2 * MS), 500.0));
        latency.observe(2 * MS, 3 * MS);
        assert!(
            latency.estimate(3 * MS) > Some(0.49),
            "the next does not hide it"
        );
        let later = 2 * MS + DECAY;
        assert!((latency.estimate(later).unwrap() * 1000.0 - 500.0 / 1_f64.exp()).abs() < 1.0);
        assert!(latency.estimate(later + 20 * DECAY) < Some(1e-6));
    }

    #[test]
    fn shorter_answers_change_nothing_within_a_millisecond() {
        for micros in 1_000..3_000 {
            let latency = Latency::default();
            latency.observe(Duration::from_micros(micros), MS);
            let word = latency.0.load(Relaxed);
            latency.observe(Duration::from_micros(500), MS);
            assert_eq!(latency.0.load(Relaxed), word, "{micros} µs");
        }
    }

    #[test]
    fn many_fast_answers_bring_it_down_with_time() {
        let latency = Latency::default();
        latency.observe(100 * MS, Duration::ZERO);
        let mut now = Duration::ZERO;
        for _ in 0..6_000 {
            now += 10 * MS;
            latency.observe(MS, now);
        }
        let estimate = latency.estimate(now);
        assert!(estimate < Some(0.002), "{estimate:?}");
    }

    /// However small it is beside a millisecond, and however many answers there are.
    #[test]
    fn a_small_peak_wears_off_under_answers_in_each_millisecond() {
        for peak in [400, 110, 20] {
            let latency = Latency::default();
            let [peak, usual] = [peak, 10].map(Duration::from_micros);
            latency.observe(peak, MS);
            let mut now = MS;
            while now < MS + DECAY {
                now += MS;
                (0..3).for_each(|_| latency.observe(usual, now));
            }
            let estimate = latency.estimate(now).unwrap();
            let excess = (estimate - usual.as_secs_f64()) / (peak - usual).as_secs_f64();
            assert!((excess * 1_f64.exp() - 1.0).abs() < 0.01, "{excess}");
        }
    }

    #[test]
    fn extremes_saturate() {
        let latency = Latency::default();
        // Shortly before the count of milliseconds wraps.
        let now = Duration::from_millis(u64::from(u32::MAX) - 3);
        latency.observe(Duration::MAX, now);
        for now in [now, now + 5 * MS, now - 5 * MS] {
            let estimate = latency.estimate(now).unwrap();
            assert!((estimate - LONGEST).abs() < 0.2, "{estimate}");
        }
        latency.observe(Duration::ZERO, Duration::MAX);
    }

    #[test]
    fn failures_never_bring_it_down() {
        let latency = Latency::default();
        latency.observe_failure(MS, MS);
        assert!(close(latency.estimate(MS), 1.0));
        latency.observe_failure(5_000 * MS, 2 * MS);
        // One that asks to be tried again at once, again and again.
        let later = 10 * DECAY;
        latency.observe_failure(Duration::ZERO, later);
        assert!(close(latency.estimate(later), 5_000.0));
    }

    #[test]
    fn a_bound_counts_only_above_what_is_expected() {
        let latency = Latency::default();
        latency.observe_bound(20 * MS, MS);
        assert!(close(latency.estimate(MS), 20.0), "nothing was expected");
        let latency = Latency::default();
        latency.observe(10 * MS, MS);
        latency.observe_bound(5 * MS, MS);
        assert!(close(latency.estimate(MS), 10.0));
        latency.observe_bound(40 * MS, MS);
        assert!(close(latency.estimate(MS), 40.0));
        // What is expected falls with time.
        let later = MS + 10 * DECAY;
        latency.observe_bound(5 * MS, later);
        assert!(close(latency.estimate(later), 5.0));
    }
}
