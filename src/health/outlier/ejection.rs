//! The ejection of one endpoint.

use crate::time::Instant;

use super::OutlierDetection;

/// The ejection of one endpoint.
#[derive(Debug, Default)]
pub(in crate::health) struct Ejection {
    /// Ejections, less the sweeps since then that found nothing.
    times: u32,
    /// Since when it is out, and until when.
    out: Option<(Instant, Instant)>,
    /// It came back since the last sweep. The next one is still one of its ejection: it has seen hardly a call.
    is_back: bool,
}

impl Ejection {
    pub(in crate::health) fn out(&self) -> Option<(Instant, Instant)> {
        self.out
    }

    pub(in crate::health) fn eject(&mut self, now: Instant, rules: &OutlierDetection) {
        self.times = self.times.saturating_add(1);
        self.out = Some((now, now + rules.time(self.times)));
        self.is_back = false;
    }

    /// A sweep did not find it. As in A50, the sweep that ends an ejection does not make the next one shorter: with an
    /// ejection of three intervals, all would be of the same length. Says whether anything has changed.
    pub(in crate::health) fn spared(&mut self, now: Instant) -> bool {
        let over = self.advance(now);
        if self.out.is_none() && !std::mem::take(&mut self.is_back) {
            self.times = self.times.saturating_sub(1);
        }
        over
    }

    /// What time has done: it does not wait for a sweep. Says whether anything has changed.
    pub(in crate::health) fn advance(&mut self, now: Instant) -> bool {
        let over = self.out.is_some_and(|(_, until)| until <= now);
        if over {
            self.out = None;
            self.is_back = true;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ejections_grow_longer_and_are_forgotten_sweep_by_sweep() {
        let rules = OutlierDetection::new();
        let now = Instant::now();
        let mut ejection = Ejection::default();
        for seconds in [30, 60, 90] {
            ejection.eject(now, &rules);
            let until = now + Duration::from_secs(seconds);
            assert_eq!(ejection.out(), Some((now, until)));
            assert!(!ejection.advance(until - Duration::from_millis(1)));
            assert!(ejection.advance(until));
        }
        let now = now + Duration::from_secs(90);
        // The first sweep after it came back is one of its ejection still.
        for _ in 0..3 {
            assert!(!ejection.spared(now));
        }
        ejection.eject(now, &rules);
        assert_eq!(ejection.out(), Some((now, now + Duration::from_secs(60))));
        for _ in 0..100 {
            ejection.eject(now, &rules);
        }
        assert_eq!(ejection.out(), Some((now, now + Duration::from_secs(300))));
    }

    /// The default is 30 s of ejection and a sweep each 10 s, so that both end at the same moment.
    #[test]
    fn one_that_fails_as_soon_as_it_is_back_is_out_for_longer_each_time() {
        let rules = OutlierDetection::new();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        // Whoever comes first: the sweep, or the clock that ends ejections.
        for sweep_first in [false, true] {
            let mut ejection = Ejection::default();
            let mut out = Vec::new();
            for second in (0..1_700).step_by(10) {
                let now = at(second);
                let was_back = ejection.out().is_none();
                if !sweep_first {
                    ejection.advance(now);
                }
                // It had calls in the interval before, and failed all of them.
                if was_back {
                    ejection.eject(now, &rules);
                    let (since, until) = ejection.out().unwrap();
                    out.push((until - since).as_secs());
                } else {
                    ejection.spared(now);
                }
                ejection.advance(now);
            }
            assert_eq!(out, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300]);
        }
    }

    #[test]
    fn a_sweep_ends_what_is_over_and_says_so() {
        let rules = OutlierDetection::new();
        let now = Instant::now();
        let mut ejection = Ejection::default();
        ejection.eject(now, &rules);
        assert!(!ejection.spared(now + Duration::from_secs(29)));
        assert!(ejection.out().is_some());
        assert!(ejection.spared(now + Duration::from_secs(30)));
        assert_eq!(ejection.out(), None);
    }
}
