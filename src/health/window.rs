//! A sliding share of successes, from samples of counters that only grow.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Instant;

/// Calls so far, and how many of them were faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) calls: u64,
    pub(crate) faults: u64,
}

/// The samples of one window. Counting a call costs nothing here: its totals are looked at from time to time.
#[derive(Debug, Default)]
pub(super) struct Window {
    samples: VecDeque<(Instant, Totals)>,
}

/// Samples that a window is cut into.
pub(super) const SAMPLES: u32 = 10;

impl Window {
    /// Forgets everything before.
    pub(super) fn restart(&mut self, now: Instant, totals: Totals) {
        self.samples.clear();
        self.samples.push_back((now, totals));
    }

    pub(super) fn sample(&mut self, now: Instant, totals: Totals, window: Duration) {
        // Nothing has happened since: the last sample says so as well, and an idle endpoint keeps one. It keeps its time,
        // too: what is before it grows old.
        if self.samples.back().is_none_or(|it| it.1 != totals) {
            self.samples.push_back((now, totals));
        }
        let is_old = |at: Instant| now.saturating_duration_since(at) >= window;
        while self.samples.get(1).is_some_and(|(at, _)| is_old(*at)) {
            self.samples.pop_front();
        }
    }

    /// Calls and faults of the window that ends now, to a tenth of its length.
    pub(super) fn totals(&self, totals: Totals) -> Totals {
        let base = self.samples.front().map_or(Totals::default(), |it| it.1);
        Totals {
            calls: totals.calls.saturating_sub(base.calls),
            faults: totals.faults.saturating_sub(base.faults),
        }
    }
}

impl Totals {
    pub(super) fn success_rate(self) -> f64 {
        if self.calls == 0 {
            return 1.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let share = self.faults.min(self.calls) as f64 / self.calls as f64;
        1.0 - share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    fn totals(calls: u64, faults: u64) -> Totals {
        Totals { calls, faults }
    }

    #[test]
    fn old_calls_fall_out_and_new_ones_count() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut window = Window::default();
        window.restart(start, totals(0, 0));
        for step in 1..=20 {
            window.sample(at(3 * step), totals(step * 10, step), WINDOW);
        }
        // At 60 s the window begins with the sample of 30 s.
        assert_eq!(window.totals(totals(205, 22)), totals(105, 12));
        assert!(window.samples.len() <= 12);
    }

    #[test]
    fn an_idle_endpoint_keeps_one_sample() {
        let start = Instant::now();
        let mut window = Window::default();
        window.restart(start, totals(7, 1));
        for second in 1..500 {
            window.sample(start + Duration::from_secs(second), totals(7, 1), WINDOW);
        }
        assert_eq!(window.samples.len(), 1);
        assert_eq!(window.totals(totals(9, 2)), totals(2, 1));
    }

    #[test]
    fn calls_before_a_long_pause_do_not_count_after_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut window = Window::default();
        window.restart(start, totals(0, 0));
        for step in 1..1000 {
            window.sample(at(3 * step), totals(10, 2), WINDOW);
        }
        assert_eq!(window.totals(totals(11, 3)), totals(1, 1));
        assert_eq!(window.samples.len(), 1);
    }

    #[test]
    fn rates() {
        assert!((totals(0, 0).success_rate() - 1.0).abs() < 1e-9);
        assert!((totals(10, 3).success_rate() - 0.7).abs() < 1e-9);
        assert!(totals(1, 5).success_rate().abs() < 1e-9);
    }
}
