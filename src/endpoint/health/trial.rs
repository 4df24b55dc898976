//! The one call that an endpoint may prove itself with.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::lock::lock;

use super::{EndpointHealth, millis};

/// The right to be the one call that an endpoint may prove itself with.
#[derive(Debug)]
pub(crate) struct Trial {
    health: Arc<EndpointHealth>,
    mark: u64,
}

/// A trial that takes longer than this no longer keeps others from trying: it may be a stream that lasts.
const TRIAL_LIMIT: Duration = Duration::from_secs(10);

impl EndpointHealth {
    /// The right to the one call, if nobody has it.
    pub(in crate::endpoint) fn begin_trial(self: &Arc<Self>) -> Option<Trial> {
        let now = self.mark();
        let before = self.trial.load(Ordering::Relaxed);
        if before != 0 && now.saturating_sub(before) < millis(TRIAL_LIMIT) {
            return None;
        }
        let taken = self
            .trial
            .compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed);
        taken.ok()?;
        let trial = Trial {
            health: Arc::clone(self),
            mark: now,
        };
        // The set that the call picks from may be older than the end of the last trial.
        lock(&self.machine).may_be_tried().then_some(trial)
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // Unless another one has begun since, because this one took too long.
        let _ =
            self.health
                .trial
                .compare_exchange(self.mark, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;
    use tonic::Code;

    use super::super::Origin;
    use super::*;
    use crate::classify::{Bearing, Outcome};
    use crate::health::{Breaker, Rules};
    use crate::time::Instant;

    fn outcome(code: Code) -> Outcome {
        Outcome {
            code,
            ..Outcome::ANSWERED
        }
    }

    /// An endpoint whose breaker opens with each fault.
    fn endpoint() -> Arc<EndpointHealth> {
        let rules = Rules {
            breaker: Some(Breaker::new().consecutive_failures(1)),
            ..Rules::default()
        };
        EndpointHealth::new(Arc::new(rules), Arc::new(Notify::new()))
    }

    /// An attempt that is sent now.
    fn origin(health: &EndpointHealth) -> Origin {
        Origin {
            connection: 1,
            openings: health.openings(),
        }
    }

    fn fault(health: &EndpointHealth) {
        health.record(outcome(Code::Unavailable), Bearing::Fault, origin(health));
    }

    /// Lets the time pass that its breaker is open.
    async fn half_open(health: &EndpointHealth) {
        fault(health);
        let next = health.next().unwrap();
        tokio::time::advance(next - Instant::now()).await;
        assert!(health.standing(Instant::now(), true).trial);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_one_at_a_time_however_it_ends() {
        let health = endpoint();
        half_open(&health).await;
        for _ in 0..3 {
            let trial = health.begin_trial();
            assert!(trial.is_some() && health.begin_trial().is_none());
            // Cancelled: it proved nothing.
            drop(trial);
        }
        let trial = health.begin_trial();
        health.record(outcome(Code::Ok), Bearing::Good, origin(&health));
        drop(trial);
        let standing = health.standing(Instant::now(), true);
        assert!(standing.is_well() && !standing.trial);
    }

    /// Calls with long deadlines end long after the breaker has opened, one after the other.
    #[tokio::test(start_paused = true)]
    async fn what_was_sent_before_the_breaker_opened_decides_nothing() {
        let health = endpoint();
        let old = origin(&health);
        half_open(&health).await;
        let endings = [
            (Code::Unavailable, Bearing::Fault),
            (Code::DeadlineExceeded, Bearing::Fault),
            (Code::Unavailable, Bearing::Lost),
            (Code::Ok, Bearing::Good),
        ];
        for (code, bearing) in endings {
            health.record(outcome(code), bearing, old);
            assert!(health.standing(Instant::now(), true).trial, "{code:?}");
        }
        let trial = health.begin_trial();
        health.record(outcome(Code::Ok), Bearing::Good, origin(&health));
        drop(trial);
        assert!(health.standing(Instant::now(), true).is_well());
        for (code, bearing) in endings {
            health.record(outcome(code), bearing, old);
            assert!(health.standing(Instant::now(), true).is_well(), "{code:?}");
        }
        // What is sent from now on counts again.
        fault(&health);
        assert!(!health.standing(Instant::now(), true).is_well());
    }

    /// Calls that picked from a set that was made before it failed.
    #[tokio::test(start_paused = true)]
    async fn there_is_none_after_one_that_failed() {
        let health = endpoint();
        half_open(&health).await;
        let trial = health.begin_trial();
        fault(&health);
        drop(trial);
        assert!(health.begin_trial().is_none());
        // Asking for it has not taken it.
        let next = health.next().unwrap();
        tokio::time::advance(next - Instant::now()).await;
        assert!(health.standing(Instant::now(), true).trial);
        assert!(health.begin_trial().is_some());
    }

    /// A stream, or a pinned connection that is held.
    #[tokio::test(start_paused = true)]
    async fn one_that_lasts_keeps_others_for_ten_seconds() {
        let health = endpoint();
        half_open(&health).await;
        let lasting = health.begin_trial().unwrap();
        tokio::time::advance(TRIAL_LIMIT - Duration::from_millis(1)).await;
        assert!(health.begin_trial().is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
        let second = health.begin_trial();
        assert!(second.is_some());
        // Its end is not the second one's.
        drop(lasting);
        assert!(health.begin_trial().is_none());
        drop(second);
        assert!(health.begin_trial().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_threads_one_gets_it() {
        let health = endpoint();
        half_open(&health).await;
        for _ in 0..200 {
            let barrier = std::sync::Barrier::new(4);
            let take = || {
                barrier.wait();
                let trial = health.begin_trial();
                // Nobody gives it back before all have asked.
                barrier.wait();
                trial.is_some()
            };
            let got = std::thread::scope(|scope| {
                let threads = [0; 4].map(|_| scope.spawn(take));
                let got = threads.map(|it| it.join().unwrap());
                got.into_iter().filter(|it| *it).count()
            });
            assert_eq!(got, 1);
        }
    }
}
