//! How long an endpoint takes to begin its answer.

use std::sync::Arc;
use std::time::Duration;

use crate::balance::Load;
use crate::classify::{Bearing, Outcome};
use crate::time::Instant;

/// An attempt whose response has no message yet. Tells the endpoint's load how it goes on.
///
/// Dropped before, it says that nobody waits for the answer any more.
#[derive(Debug)]
pub(super) struct FirstMessage {
    load: Arc<Load>,
    /// When the channel was made.
    made: Instant,
    sent: Option<Instant>,
    /// The call counts as pending.
    pending: bool,
}

impl FirstMessage {
    /// Of an attempt that was given to an endpoint. It counts as pending if pickers want to know.
    pub(super) fn of(load: Arc<Load>, pending: bool, made: Instant) -> Self {
        if pending {
            load.begin_pending();
        }
        Self {
            load,
            made,
            sent: None,
            pending,
        }
    }

    /// The request is about to be sent. Without this nothing is told.
    pub(super) fn sent(&mut self) {
        self.sent = Some(Instant::now());
    }

    /// It is there, or the response ended without one, and well.
    pub(super) fn came(mut self) {
        self.tell(|load, took, now| load.answered(took, now));
    }

    /// The attempt ended without one.
    pub(super) fn ended(mut self, outcome: Outcome, bearing: Bearing) {
        match outcome.penalty(bearing) {
            Some(penalty) => self.tell(|load, took, now| load.failed(took, penalty, now)),
            None if bearing == Bearing::Good => self.came(),
            None => {}
        }
    }

    fn tell(&mut self, tell: impl FnOnce(&Load, Duration, Duration)) {
        if let Some(sent) = self.sent.take() {
            let now = Instant::now();
            tell(&self.load, now - sent, now - self.made);
        }
    }
}

impl Drop for FirstMessage {
    fn drop(&mut self) {
        if self.pending {
            self.load.end_pending();
        }
        self.tell(|load, waited, now| load.abandoned(waited, now));
    }
}
