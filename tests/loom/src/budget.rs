//! Callers that reach for the last retry together don't both get it.

include!(concat!(env!("OUT_DIR"), "/budget.rs"));

mod model {
    use loom::thread;

    use crate::model;

    use super::*;

    const NOW: Duration = Duration::from_millis(500);

    /// This many retries in all, and one for each call.
    fn budget(min_per_second: u32) -> Arc<Budget> {
        Arc::new(Budget::new(BudgetLimits {
            ratio: 1.0,
            min_per_second,
            window: Duration::from_secs(1),
        }))
    }

    fn spawn<T: 'static>(
        budget: &Arc<Budget>,
        act: fn(&Arc<Budget>) -> T,
    ) -> thread::JoinHandle<T> {
        let budget = Arc::clone(budget);
        thread::spawn(move || act(&budget))
    }

    fn spend(budget: &Arc<Budget>) -> bool {
        budget.try_withdraw(NOW).map(Withdrawal::spend).is_some()
    }

    #[test]
    fn the_last_retry_is_granted_once() {
        model(|| {
            let budget = budget(1);
            let other = spawn(&budget, spend);
            let here = spend(&budget);
            let there = other.join().unwrap();
            assert!(!(here && there));
            // Those who were refused took nothing.
            assert_eq!(spend(&budget), !(here || there));
        });
    }

    /// What one gives back, another may have; never more than one has it.
    #[test]
    fn what_is_given_back_is_granted_again() {
        model(|| {
            let budget = budget(1);
            let other = spawn(&budget, |budget| drop(budget.try_withdraw(NOW)));
            let here = spend(&budget);
            other.join().unwrap();
            assert_eq!(spend(&budget), !here);
            assert!(!spend(&budget));
        });
    }

    /// A call pays in while a retry is asked for.
    #[test]
    fn a_deposit_counts_from_then_on() {
        model(|| {
            let budget = budget(0);
            let other = spawn(&budget, |budget| budget.deposit(NOW));
            let here = spend(&budget);
            other.join().unwrap();
            assert_eq!(spend(&budget), !here);
        });
    }
}
