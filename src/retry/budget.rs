//! The allowance that keeps retries from multiplying an outage.

use std::sync::Arc;
use std::time::Duration;

use super::BudgetLimits;
use super::ring::{Ring, SLOTS};

/// Deposits count for this many slots and withdrawals for one more, so that neither rounding of a window to
/// whole slots lets through more than the limits say.
const WINDOW_SLOTS: u32 = SLOTS - 1;

/// The retry allowance of one channel: calls pay in, retries draw.
///
/// Whenever a withdrawal is granted, the withdrawals of the window that ends there, itself included and
/// those given back left out, are at most
/// `ratio × deposits of that window + min_per_second × window`. Nothing is added for granularity: time is
/// divided into slots of 1/31 of the window, and the slot that is half in the window counts against the
/// caller. At a steady rate that grants 94 % to 100 % of what the limits allow.
///
/// It reads no clock: `now` is the time since the budget was made. All methods may be called from any
/// thread, and wait for none. Threads that reach for the last retry at the same moment may all be refused.
#[derive(Debug)]
pub(crate) struct Budget {
    ratio: f64,
    floor: f64,
    window_millis: u64,
    deposits: Ring,
    withdrawals: Ring,
}

impl Budget {
    /// A budget with nothing paid in: it has the floor of a whole window to give.
    #[must_use]
    pub(crate) fn new(limits: BudgetLimits) -> Self {
        let window_millis =
            u64::try_from(limits.window.as_millis()).map_or(u64::MAX, |ms| ms.max(1));
        Self {
            ratio: limits.ratio,
            floor: f64::from(limits.min_per_second) * window_millis as f64 / 1000.0,
            window_millis,
            deposits: Ring::default(),
            withdrawals: Ring::default(),
        }
    }

    /// Pays in for one call. Retries and resends of the call don't pay.
    pub(crate) fn deposit(&self, now: Duration) {
        self.deposits.add(self.slot(now));
    }

    /// Asks for one retry; `None` if the allowance is used up.
    ///
    /// Ask before the wait, so that all who wait are counted; a retry that isn't sent gives its
    /// [`Withdrawal`] back.
    #[must_use]
    pub(crate) fn try_withdraw(self: &Arc<Self>, now: Duration) -> Option<Withdrawal> {
        let newest = self.slot(now);
        // Counted first and looked at second, so that no two threads can both take the last one.
        let withdrawal = Withdrawal {
            slot: self.withdrawals.add(newest),
            budget: Arc::clone(self),
            spent: false,
        };
        let withdrawn = self.withdrawals.sum(newest, WINDOW_SLOTS + 1);
        let deposits = self.deposits.sum(newest, WINDOW_SLOTS);
        // 0.29 × 100 is a little less than 29 in floating point.
        let allowed = self.ratio * deposits as f64 + self.floor + 1e-6;
        (withdrawn as f64 <= allowed).then_some(withdrawal)
    }

    fn slot(&self, now: Duration) -> u32 {
        let slots =
            (now.as_millis() as u64).wrapping_mul(u64::from(WINDOW_SLOTS)) / self.window_millis;
        slots as u32
    }
}

/// A retry that the budget has granted. Dropping it gives it back, as of the time it was granted.
///
/// Keep it until the retry is on its way, and then [`spend`](Self::spend) it: a call that is cancelled
/// while it waits, or that finds no endpoint to retry on, costs the others nothing.
#[derive(Debug)]
#[must_use = "dropping it gives the retry back to the budget"]
pub(crate) struct Withdrawal {
    budget: Arc<Budget>,
    slot: u32,
    spent: bool,
}

impl Withdrawal {
    /// The retry was sent; it stays counted for the window.
    pub(crate) fn spend(mut self) {
        self.spent = true;
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if !self.spent {
            self.budget.withdrawals.remove(self.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn limits(ratio: f64, min_per_second: u32) -> BudgetLimits {
        BudgetLimits::default()
            .ratio(ratio)
            .min_per_second(min_per_second)
    }

    fn budget(limits: BudgetLimits) -> Arc<Budget> {
        limits.validate("retry_budget").unwrap();
        Arc::new(Budget::new(limits))
    }

    /// Spends until refused, at most `most` times.
    fn drain(budget: &Arc<Budget>, now: Duration, most: u32) -> u32 {
        let mut granted = 0;
        while granted < most && budget.try_withdraw(now).map(Withdrawal::spend).is_some() {
            granted += 1;
        }
        granted
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_fresh_budget_has_the_floor_of_one_window() {
        assert_eq!(drain(&budget(BudgetLimits::default()), at(0), 1000), 100);
        let short = BudgetLimits::default().window(at(1)).min_per_second(3);
        assert_eq!(drain(&budget(short), at(0), 1000), 3);
        assert_eq!(drain(&budget(limits(0.2, 0)), at(0), 1000), 0);
    }

    #[test]
    fn ratios_are_exact() {
        for (ratio, calls, retries) in [
            (0.2, 4, 0),
            (0.2, 5, 1),
            (0.3, 10, 3),
            (0.3, 1000, 300),
            (0.29, 100, 29),
            (0.7, 10, 7),
            (0.1, 30, 3),
            (1.0, 7, 7),
            (2.5, 4, 10),
            (10.0, 3, 30),
            (0.0, 1000, 0),
        ] {
            let budget = budget(limits(ratio, 0));
            for _ in 0..calls {
                budget.deposit(at(1));
            }
            assert_eq!(drain(&budget, at(1), 10_000), retries, "{ratio} of {calls}");
        }
    }

    #[test]
    fn works_after_idle_of_any_length() {
        for idle in [11, 60, 3600, 10 * 365 * 24 * 3600] {
            let budget = budget(BudgetLimits::default());
            for _ in 0..1000 {
                budget.deposit(at(5));
            }
            assert_eq!(drain(&budget, at(5), 10_000), 300);
            assert_eq!(
                drain(&budget, at(5 + idle), 10_000),
                100,
                "old calls don't count"
            );
            budget.deposit(at(6 + idle));
            assert_eq!(drain(&budget, at(6 + idle), 10_000), 0, "{idle}");
        }
    }

    #[test]
    fn what_is_not_sent_is_given_back() {
        let budget = budget(limits(0.0, 1));
        let held: Vec<_> = (0..10).filter_map(|_| budget.try_withdraw(at(3))).collect();
        assert_eq!(held.len(), 10);
        assert!(budget.try_withdraw(at(3)).is_none());
        assert!(
            budget.try_withdraw(at(3)).is_none(),
            "a refusal takes nothing"
        );
        drop(held);
        assert_eq!(drain(&budget, at(4), 100), 10);
    }

    #[test]
    fn giving_back_late_frees_nothing_else() {
        let budget = budget(limits(0.0, 1));
        let early = budget.try_withdraw(at(0)).unwrap();
        assert_eq!(drain(&budget, at(30), 100), 10);
        drop(early);
        assert_eq!(
            drain(&budget, at(30), 100),
            0,
            "its own window is long over"
        );
    }

    #[test]
    fn a_long_outage_adds_what_the_limits_say() {
        // 500 calls/s for 60 s, all failing, each asking for two retries.
        let budget = budget(BudgetLimits::default());
        let mut granted = 0;
        for millis in (0..60_000).step_by(2) {
            let now = Duration::from_millis(millis);
            budget.deposit(now);
            granted += drain(&budget, now, 2);
        }
        let allowed = 60 * (500 / 5 + 10) + 100;
        assert!(
            (allowed * 9 / 10..=allowed).contains(&granted),
            "{granted} of {allowed}"
        );
    }

    #[test]
    fn threads_share_one_allowance() {
        let budget = budget(limits(0.5, 0));
        let each = |work: fn(&Arc<Budget>) -> u32| -> u32 {
            thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| work(&budget))).collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .sum()
            })
        };
        each(|budget| {
            (0..1000).for_each(|_| budget.deposit(at(2)));
            0
        });
        let contended = each(|budget| drain(budget, at(2), 10_000));
        assert!(contended <= 2000, "{contended}");
        assert_eq!(contended + drain(&budget, at(2), 10_000), 2000);
    }

    #[test]
    fn unchecked_limits_do_not_panic() {
        let good = BudgetLimits::default();
        for limits in [
            good.ratio(f64::NAN),
            good.ratio(f64::INFINITY),
            good.ratio(-1.0),
            good.window(Duration::ZERO),
            good.window(Duration::MAX).min_per_second(u32::MAX),
        ] {
            let budget = Arc::new(Budget::new(limits));
            for now in [Duration::ZERO, Duration::MAX] {
                budget.deposit(now);
                let _ = drain(&budget, now, 10);
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// A part of the window, in 1/1000.
        Wait(u32),
        Calls(u8),
        /// Retries asked for, each spent or (if odd) kept for a while and then given back.
        Retries(Vec<u8>),
        GiveBack,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..100_u32).prop_map(Step::Wait),
            3 => (900..1050_u32).prop_map(Step::Wait),
            1 => (0..4000_u32).prop_map(Step::Wait),
            4 => any::<u8>().prop_map(Step::Calls),
            4 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Retries),
            1 => Just(Step::GiveBack),
        ];
        prop::collection::vec(step, 1..80)
    }

    /// How many of `times` lie in the `span` that ends with `now`; its start is left out.
    fn within(times: &[Duration], now: Duration, span: Duration) -> f64 {
        times.iter().filter(|&&time| now < time + span).count() as f64
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(0xb0d6e7),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Both sides of the bound: never more than the limits, and a refusal only when the limits are
        /// reached, taken one slot and a millisecond less generously.
        #[test]
        fn grants_what_the_limits_allow(
            steps in steps(),
            ratio in prop_oneof![Just(0.0), Just(0.2), Just(0.3), 0.0..=10.0],
            min_per_second in 0..4_u32,
            window_millis in prop_oneof![Just(1_000_u64), 1_000..=60_000_u64],
        ) {
            let window = Duration::from_millis(window_millis);
            let tick = Duration::from_millis(1);
            let slot = window / WINDOW_SLOTS + tick;
            let budget = budget(limits(ratio, min_per_second).window(window));
            let allowed = |calls: f64| ratio * calls + f64::from(min_per_second) * window.as_secs_f64();
            let (mut now, mut calls, mut sent) = (Duration::ZERO, Vec::new(), Vec::new());
            let mut held: Vec<(Duration, Withdrawal)> = Vec::new();
            for step in steps {
                match step {
                    Step::Wait(part) => now += window * part / 1000,
                    Step::Calls(count) => for _ in 0..count {
                        budget.deposit(now);
                        calls.push(now);
                    },
                    Step::GiveBack => held.clear(),
                    Step::Retries(each) => for fate in each {
                        let withdrawal = budget.try_withdraw(now);
                        let kept: Vec<_> = held.iter().map(|(time, _)| *time).collect();
                        let granted = withdrawal.is_some();
                        let drawn = |span| 1.0 + within(&sent, now, span) + within(&kept, now, span);
                        if granted {
                            prop_assert!(drawn(window) <= allowed(within(&calls, now, window)) + 1e-3);
                        } else {
                            let fewer = within(&calls, now, window.saturating_sub(slot));
                            prop_assert!(drawn(window + slot) > allowed(fewer));
                        }
                        match withdrawal {
                            Some(withdrawal) if fate % 2 == 1 => held.push((now, withdrawal)),
                            Some(withdrawal) => {
                                withdrawal.spend();
                                sent.push(now);
                            }
                            None => {}
                        }
                    },
                }
            }
        }
    }
}
