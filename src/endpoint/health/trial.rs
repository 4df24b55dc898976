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
