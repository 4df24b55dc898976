//! Refusals by which an endpoint protects itself.

use std::time::Duration;

use crate::time::Instant;

use super::window::{Totals, Window};

/// Which part of its calls an endpoint accepts. One that answers `RESOURCE_EXHAUSTED` is not ill: it has too much to do, and
/// is to get less, not nothing, so that the rest does not fall on the others at once (as linkerd's breaker and Finagle's
/// nack filter have it).
///
/// It is looked at only while there are refusals.
#[derive(Debug, Default)]
pub(super) struct Overload(Option<Watch>);

#[derive(Debug)]
struct Watch {
    since: Instant,
    window: Window,
    /// When the counters are looked at next.
    next: Instant,
    /// What it accepted, as of the last look.
    accepted: f64,
}

/// The time over which refusals count.
const WINDOW: Duration = Duration::from_secs(10);

/// How often the counters are looked at meanwhile.
const STEP: Duration = Duration::from_secs(1);

/// There are taken to be at least so many calls in the window: one refusal of one call says little.
const FEWEST: u64 = 10;

/// What it gets at least, unless set otherwise, to show that it accepts more again.
pub(super) const LEAST: f64 = 0.1;

impl Overload {
    /// It refused a call. `before`: calls and refusals so far, without this one.
    pub(super) fn refused(&mut self, now: Instant, before: Totals) {
        if self.0.is_none() {
            let mut window = Window::default();
            window.restart(now, before);
            self.0 = Some(Watch {
                since: now,
                window,
                next: now + STEP,
                accepted: 1.0,
            });
        }
    }

    /// What time has done. `totals`: calls and refusals so far.
    pub(super) fn advance(&mut self, now: Instant, totals: Totals) {
        let Some(watch) = self.0.as_mut().filter(|it| it.next <= now) else {
            return;
        };
        watch.window.sample(now, totals, WINDOW);
        let seen = watch.window.totals(totals);
        if seen.faults == 0 {
            self.0 = None;
            return;
        }
        let seen = Totals {
            calls: seen.calls.max(FEWEST),
            ..seen
        };
        watch.accepted = seen.success_rate();
        watch.next = now + STEP;
    }

    /// What it accepts of its calls, and since when it refuses some, if it does.
    pub(super) fn share(&self) -> Option<(f64, Instant)> {
        let watch = self.0.as_ref().filter(|it| it.accepted < 1.0)?;
        Some((watch.accepted, watch.since))
    }

    /// Whether refusals are looked at.
    pub(super) fn is_watched(&self) -> bool {
        self.0.is_some()
    }

    /// When time will change it next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.as_ref().map(|it| it.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An endpoint that so many calls come to in each second.
    struct Endpoint {
        overload: Overload,
        now: Instant,
        totals: Totals,
    }

    impl Endpoint {
        fn new() -> Self {
            Self {
                overload: Overload::default(),
                now: Instant::now(),
                totals: Totals {
                    calls: 1000,
                    faults: 0,
                },
            }
        }

        /// A second in which it refuses so many of so many calls. Gives its share in percent afterwards.
        fn second(&mut self, refused: u64, calls: u64) -> u32 {
            if refused > 0 {
                self.overload.refused(self.now, self.totals);
            }
            self.totals.calls += calls;
            self.totals.faults += refused;
            self.now += STEP;
            self.overload.advance(self.now, self.totals);
            let share = self.overload.share().map_or(1.0, |it| it.0.max(LEAST));
            (share * 100.0).round() as u32
        }
    }

    #[test]
    fn it_gets_what_it_accepts() {
        let mut endpoint = Endpoint::new();
        assert_eq!(endpoint.second(0, 100), 100);
        assert!(!endpoint.overload.is_watched());
        for _ in 0..20 {
            assert_eq!(endpoint.second(50, 100), 50);
        }
        assert!(endpoint.overload.is_watched());
    }

    #[test]
    fn it_comes_back_within_the_window_and_is_left_alone_then() {
        let mut endpoint = Endpoint::new();
        for _ in 0..20 {
            endpoint.second(50, 100);
        }
        let shares: Vec<_> = (0..11).map(|_| endpoint.second(0, 100)).collect();
        assert!(shares.is_sorted(), "{shares:?}");
        assert_eq!((shares[0], shares[10]), (55, 100));
        assert_eq!(endpoint.overload.next(), None);
    }

    #[test]
    fn it_comes_back_by_time_alone() {
        let mut endpoint = Endpoint::new();
        assert_eq!(endpoint.second(100, 100), 10, "no less than that");
        for _ in 0..9 {
            assert_eq!(endpoint.second(0, 0), 10);
        }
        let rest: Vec<_> = (0..3).map(|_| endpoint.second(0, 0)).collect();
        assert_eq!(rest.last(), Some(&100), "{rest:?}");
        assert!(!endpoint.overload.is_watched());
    }

    #[test]
    fn a_few_calls_say_little() {
        let mut endpoint = Endpoint::new();
        assert_eq!(endpoint.second(1, 1), 90);
        assert_eq!(endpoint.second(1, 1), 80);
    }
}
