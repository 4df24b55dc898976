//! The breaker of one endpoint.

use crate::time::Instant;

use super::Breaker;
use super::window::{Totals, Window};

/// Closed, open or half-open.
#[derive(Debug)]
pub(super) struct Circuit {
    phase: Phase,
    since: Instant,
    /// How often in a row it opened without having been closed for long.
    trips: u32,
    window: Window,
    /// Why it opened.
    cause: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// So many faults in a row.
    Consecutive(u32),
    /// Too many faults among so many calls.
    Rate(Totals),
    /// The trial call failed.
    Trial,
}

impl Circuit {
    pub(super) fn new(now: Instant) -> Self {
        let mut window = Window::default();
        window.restart(now, Totals::default());
        Self {
            phase: Phase::Closed,
            since: now,
            trips: 0,
            window,
            cause: Cause::Consecutive(0),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn cause(&self) -> Cause {
        self.cause
    }

    /// When time alone changes it.
    pub(super) fn next(&self) -> Option<Instant> {
        match self.phase {
            Phase::Open { until } => Some(until),
            Phase::Closed | Phase::HalfOpen => None,
        }
    }

    /// What time has done. Says whether anything has changed.
    pub(super) fn advance(&mut self, now: Instant) -> bool {
        match self.phase {
            Phase::Open { until } if until <= now => self.enter(Phase::HalfOpen, now),
            _ => false,
        }
    }

    /// Looks at the counters, a few times in each window.
    pub(super) fn sample(&mut self, now: Instant, totals: Totals, rules: &Breaker) {
        self.window.sample(now, totals, rules.window);
    }

    /// A call failed by the endpoint's fault; `consecutive` with this one. `any` says that calls come whatever the breaker
    /// says: then none of them is a trial that could fail. Says whether anything has changed.
    pub(super) fn fault(
        &mut self,
        now: Instant,
        rules: &Breaker,
        consecutive: u32,
        totals: Totals,
        random: f64,
        any: bool,
    ) -> bool {
        match self.phase {
            Phase::Closed => {
                let seen = self.window.totals(totals);
                let cause = if consecutive >= rules.consecutive {
                    Cause::Consecutive(consecutive)
                } else if seen.calls >= rules.min_calls
                    && seen.success_rate() < rules.min_success_rate
                {
                    Cause::Rate(seen)
                } else {
                    return false;
                };
                // What was long ago is not held against it.
                if now.saturating_duration_since(self.since) >= rules.max_open_for {
                    self.trips = 0;
                }
                self.open(now, rules, cause, random)
            }
            Phase::HalfOpen if !any => self.open(now, rules, Cause::Trial, random),
            Phase::HalfOpen | Phase::Open { .. } => false,
        }
    }

    /// A call succeeded, while it was not closed. `any` says that calls come although it is open.
    pub(super) fn success(&mut self, now: Instant, totals: Totals, any: bool) -> bool {
        let proof = match self.phase {
            Phase::HalfOpen => true,
            Phase::Open { .. } => any,
            Phase::Closed => false,
        };
        if proof {
            self.window.restart(now, totals);
            self.enter(Phase::Closed, now);
        }
        proof
    }

    fn open(&mut self, now: Instant, rules: &Breaker, cause: Cause, random: f64) -> bool {
        self.trips = self.trips.saturating_add(1);
        self.cause = cause;
        let until = now + rules.open_time(self.trips, random);
        self.enter(Phase::Open { until }, now)
    }

    fn enter(&mut self, phase: Phase, now: Instant) -> bool {
        self.phase = phase;
        self.since = now;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn circuit() -> (Circuit, Instant, Breaker) {
        let now = Instant::now();
        (Circuit::new(now), now, Breaker::new())
    }

    fn totals(calls: u64, faults: u64) -> Totals {
        Totals { calls, faults }
    }

    #[test]
    fn five_faults_in_a_row_open_it_and_four_do_not() {
        let (mut circuit, now, rules) = circuit();
        for count in 1..=4 {
            assert!(!circuit.fault(now, &rules, count, totals(4, 4), 0.0, false));
        }
        assert!(circuit.fault(now, &rules, 5, totals(5, 5), 0.0, false));
        let until = now + Duration::from_secs(1);
        assert_eq!(circuit.phase(), Phase::Open { until });
        assert_eq!(circuit.cause(), Cause::Consecutive(5));
    }

    #[test]
    fn a_low_rate_opens_it_once_there_are_ten_calls() {
        let (mut circuit, now, rules) = circuit();
        assert!(!circuit.fault(now, &rules, 1, totals(9, 4), 0.0, false));
        assert!(
            !circuit.fault(now, &rules, 1, totals(10, 2), 0.0, false),
            "80 % is enough"
        );
        assert!(circuit.fault(now, &rules, 1, totals(10, 3), 0.0, false));
        assert_eq!(circuit.cause(), Cause::Rate(totals(10, 3)));
    }

    #[test]
    fn a_trial_decides_and_the_time_doubles_up_to_its_limit() {
        let (mut circuit, mut now, rules) = circuit();
        circuit.fault(now, &rules, 5, totals(5, 5), 0.0, false);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let until = now + Duration::from_secs(seconds);
            assert_eq!(circuit.phase(), Phase::Open { until });
            assert!(!circuit.advance(until - Duration::from_millis(1)));
            assert!(circuit.advance(until));
            assert_eq!(circuit.phase(), Phase::HalfOpen);
            now = until;
            assert!(circuit.fault(now, &rules, 1, totals(6, 6), 0.0, false));
        }
        now += Duration::from_secs(60);
        circuit.advance(now);
        assert!(circuit.success(now, totals(7, 6), false));
        assert_eq!(circuit.phase(), Phase::Closed);
    }

    #[test]
    fn a_short_recovery_does_not_reset_the_time_and_a_long_one_does() {
        let (mut circuit, start, rules) = circuit();
        circuit.fault(start, &rules, 5, totals(5, 5), 0.0, false);
        let mut now = start + Duration::from_secs(1);
        circuit.advance(now);
        circuit.success(now, totals(6, 5), false);
        now += Duration::from_secs(10);
        circuit.fault(now, &rules, 5, totals(11, 10), 0.0, false);
        assert_eq!(circuit.next(), Some(now + Duration::from_secs(2)));
        now += Duration::from_secs(2);
        circuit.advance(now);
        circuit.success(now, totals(12, 10), false);
        now += Duration::from_secs(60);
        circuit.fault(now, &rules, 5, totals(17, 15), 0.0, false);
        assert_eq!(circuit.next(), Some(now + Duration::from_secs(1)));
    }

    #[test]
    fn an_old_success_proves_nothing_while_it_is_open() {
        let (mut circuit, now, rules) = circuit();
        circuit.fault(now, &rules, 5, totals(5, 5), 0.0, false);
        assert!(!circuit.success(now, totals(6, 5), false));
        assert!(circuit.success(now, totals(6, 5), true), "in panic mode");
    }

    #[test]
    fn the_window_starts_anew_with_the_recovery() {
        let (mut circuit, mut now, rules) = circuit();
        circuit.fault(now, &rules, 5, totals(20, 20), 0.0, false);
        now += Duration::from_secs(1);
        circuit.advance(now);
        circuit.success(now, totals(21, 20), false);
        assert!(!circuit.fault(now, &rules, 1, totals(40, 21), 0.0, false));
    }

    #[test]
    fn in_panic_failures_do_not_keep_it_open_for_longer() {
        let (mut circuit, mut now, rules) = circuit();
        circuit.fault(now, &rules, 5, totals(5, 5), 0.0, false);
        now += Duration::from_secs(1);
        circuit.advance(now);
        for count in 6..100 {
            now += Duration::from_secs(1);
            assert!(!circuit.fault(now, &rules, count, totals(100, 100), 0.0, true));
        }
        // Panic is over because another one is well: this one may show that it is, too.
        assert_eq!(circuit.phase(), Phase::HalfOpen);
        assert!(circuit.fault(now, &rules, 100, totals(101, 101), 0.0, false));
        assert_eq!(circuit.next(), Some(now + Duration::from_secs(2)));
    }

    #[test]
    fn jitter_only_lengthens() {
        let rules = Breaker::new();
        assert_eq!(rules.open_time(1, 0.0), Duration::from_secs(1));
        assert_eq!(rules.open_time(1, 1.0), Duration::from_millis(1200));
        assert_eq!(rules.open_time(u32::MAX, 0.0), Duration::from_secs(60));
    }
}
