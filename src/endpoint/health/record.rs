//! What the end of a call says about its endpoint, and what follows from it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tonic::Code;

use crate::classify::{Bearing, Outcome};
use crate::error::Delivery;
use crate::health::Totals;
use crate::lock::lock;
use crate::time::Instant;

use super::{EndpointHealth, millis};

/// Where an attempt was made, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// The number of its connection at the endpoint; 0 where that does not matter.
    pub(crate) connection: u64,
    /// How often the endpoint's breaker had opened when it was sent.
    pub(crate) openings: u32,
}

/// For how long calls of connections that stood still may go on to end, after these were given up.
const STALLED: Duration = Duration::from_secs(1);

/// How often connections are looked at while calls come, and have no answer, although the breaker is open.
const LOOKS_AGAIN: Duration = Duration::from_secs(10);

/// What a fault led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// Nothing to be done.
    Quietly,
    /// The first failure after a success.
    FirstFault,
    /// So many calls in a row had no answer that the endpoint is to be kept from calls, unless it is only its connections
    /// that stand still.
    Unanswered,
    /// A call had no answer although its endpoint is kept from calls, or should be: its connections may stand still by now.
    StillUnanswered,
    /// The endpoint is kept from calls now.
    Tripped,
}

impl EndpointHealth {
    /// Counts an attempt that ended here.
    pub(in crate::endpoint) fn record(
        &self,
        outcome: Outcome,
        bearing: Bearing,
        origin: Origin,
    ) -> Recorded {
        if outcome.answered || outcome.code == Code::Ok {
            self.answered.fetch_add(1, Ordering::Relaxed);
        } else if outcome.delivery != Delivery::NotSent {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        // What was sent before the breaker opened is part of what it opened for, however late it ends. Of whether the endpoint
        // is well since then it says nothing, neither to a breaker that is half-open nor to one that has closed again.
        let is_old = origin.openings != self.openings();
        match bearing {
            Bearing::Good | Bearing::Fault | Bearing::Lost if is_old => {
                self.neutral.fetch_add(1, Ordering::Relaxed);
                let late = bearing == Bearing::Fault && outcome.code == Code::DeadlineExceeded;
                match late && self.patience.is_some() && self.looks_again() {
                    true => Recorded::StillUnanswered,
                    false => Recorded::Quietly,
                }
            }
            Bearing::Good => {
                // Read first: a store by every call would move the cache line between cores.
                if self.consecutive.load(Ordering::Relaxed) != 0 {
                    self.consecutive.store(0, Ordering::Relaxed);
                }
                if self.stalled.load(Ordering::Relaxed) != 0 {
                    self.stalled.store(0, Ordering::Relaxed);
                }
                if self.attentive.load(Ordering::Relaxed) {
                    self.succeeded();
                }
                Recorded::Quietly
            }
            Bearing::Fault => self.fault(outcome.code == Code::DeadlineExceeded),
            // They are numbered from 1 on, and calls of several that were lost together come in any order.
            Bearing::Lost
                if self.lost.fetch_max(origin.connection, Ordering::Relaxed)
                    < origin.connection =>
            {
                self.fault(false)
            }
            Bearing::Lost | Bearing::Neutral => {
                if outcome.delivery != Delivery::NotSent {
                    self.neutral.fetch_add(1, Ordering::Relaxed);
                    if outcome.code == Code::ResourceExhausted {
                        self.refused();
                    }
                }
                Recorded::Quietly
            }
        }
    }

    fn succeeded(&self) {
        self.change(|machine, now, totals| machine.success(now, totals));
    }

    /// The endpoint refused a call because it has too much to do.
    fn refused(&self) {
        let before = self.refused.fetch_add(1, Ordering::Relaxed);
        // From the first one on, the counters are looked at by the clock.
        if self.weighed.swap(true, Ordering::Relaxed) {
            return;
        }
        let before = Totals {
            calls: self.all().saturating_sub(1),
            faults: before,
        };
        lock(&self.machine).refused(Instant::now(), before);
        self.flips.notify_one();
    }

    fn fault(&self, late: bool) -> Recorded {
        // Connections are not replaced for a breaker that is only observed.
        let late = late && self.patience.is_some();
        // Once the breaker is open, or about to close, all of them count.
        let excusable = late && !self.attentive.load(Ordering::Relaxed);
        if excusable && self.stands_still() {
            // It was on a connection that has been given up.
            self.neutral.fetch_add(1, Ordering::Relaxed);
            return Recorded::Quietly;
        }
        self.faults.fetch_add(1, Ordering::Relaxed);
        let consecutive = self.consecutive.fetch_add(1, Ordering::Relaxed) + 1;
        let is_enough = self.patience.is_some_and(|it| consecutive >= it);
        if excusable && is_enough && self.begins_to_stand_still() {
            return Recorded::Unanswered;
        }
        match self.count(consecutive) {
            Recorded::Tripped if late && !excusable => Recorded::StillUnanswered,
            Recorded::Quietly if late && !excusable && self.looks_again() => {
                Recorded::StillUnanswered
            }
            counted => counted,
        }
    }

    /// Whether the last look at the connections was long ago, and nobody else has another one now.
    fn looks_again(&self) -> bool {
        let (before, now) = (self.stalled.load(Ordering::Relaxed), self.mark());
        now.saturating_sub(before) >= millis(LOOKS_AGAIN)
            && self
                .stalled
                .compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Whether calls may still be ending that were on connections that have been given up.
    fn stands_still(&self) -> bool {
        let stalled = self.stalled.load(Ordering::Relaxed);
        stalled != 0 && self.mark().saturating_sub(stalled) < millis(STALLED)
    }

    /// Whether this is the first look at the connections since a call succeeded, and nobody else's.
    fn begins_to_stand_still(&self) -> bool {
        let taken =
            self.stalled
                .compare_exchange(0, self.mark(), Ordering::Relaxed, Ordering::Relaxed);
        taken.is_ok()
    }

    /// The calls without an answer were on connections that stood still, and that have been given up: one incident, as a
    /// connection that is lost is one, however many calls were on it.
    pub(in crate::endpoint) fn excuse(&self) {
        self.consecutive.store(0, Ordering::Relaxed);
    }

    /// The calls without an answer were on connections on which the peer shows that it is alive.
    pub(in crate::endpoint) fn blame(&self) -> Recorded {
        self.count(self.consecutive.load(Ordering::Relaxed))
    }

    /// Lets the breaker hear of a fault, with which there are so many in a row.
    fn count(&self, consecutive: u32) -> Recorded {
        let random = fastrand::f64();
        let any = self.tolerated.load(Ordering::Relaxed);
        let mut tripped = false;
        self.change(|machine, now, totals| {
            let changed = machine.fault(now, consecutive, totals, any, random);
            tripped = changed && machine.is_open();
            changed
        });
        if tripped {
            self.openings.fetch_add(1, Ordering::Relaxed);
            self.stalled.store(self.mark(), Ordering::Relaxed);
        }
        match (tripped, consecutive) {
            (true, _) => Recorded::Tripped,
            (false, 1) => Recorded::FirstFault,
            (false, _) => Recorded::Quietly,
        }
    }
}
