//! What calls and probes tell of an endpoint, and what follows from it.

mod trial;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tonic::Code;

use crate::classify::{Bearing, Outcome};
use crate::error::Delivery;
use crate::health::outlier::Seen;
use crate::health::{
    Answer, Fate, HealthSource, HealthStatus, Machine, Rules, Service, Standing, Totals,
};
use crate::lock::lock;
use crate::time::Instant;

pub(crate) use trial::Trial;

/// One endpoint's counters and its [`Machine`]. A call that goes well adds to one counter and takes no lock.
#[derive(Debug)]
pub(crate) struct EndpointHealth {
    answered: AtomicU64,
    failed: AtomicU64,
    faults: AtomicU64,
    /// Attempts that say nothing about it.
    neutral: AtomicU64,
    /// Calls that it refused to protect itself.
    refused: AtomicU64,
    /// Refusals are looked at already.
    weighed: AtomicBool,
    /// Faults since the last success.
    consecutive: AtomicU32,
    /// Faults in a row that open the breaker, if there is one that is not only observed.
    patience: Option<u32>,
    /// When calls without an answer, or the breaker, led to a look at the connections, in milliseconds after `born`, plus
    /// one; 0 if a call has succeeded since.
    stalled: AtomicU64,
    /// The latest connection whose loss was counted.
    lost: AtomicU64,
    /// Successes matter to the machine just now.
    attentive: AtomicBool,
    /// Calls come whatever the machine says.
    tolerated: AtomicBool,
    /// What was decided last, to tell of changes; 0 before the first time.
    decided: AtomicU8,
    /// When the trial that is under way began, in milliseconds after `born`, plus one; 0 without one.
    trial: AtomicU64,
    /// At the last sweep for outliers.
    swept: Mutex<Totals>,
    born: Instant,
    machine: Mutex<Machine>,
    flips: Arc<Notify>,
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
    pub(crate) fn new(rules: Arc<Rules>, flips: Arc<Notify>) -> Arc<Self> {
        let born = Instant::now();
        Arc::new(Self {
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            neutral: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            weighed: AtomicBool::new(false),
            consecutive: AtomicU32::new(0),
            patience: rules.patience(),
            stalled: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            attentive: AtomicBool::new(false),
            tolerated: AtomicBool::new(false),
            decided: AtomicU8::new(0),
            trial: AtomicU64::new(0),
            swept: Mutex::default(),
            born,
            machine: Mutex::new(Machine::new(rules, born)),
            flips,
        })
    }

    /// Counts an attempt that ended here, on that connection.
    pub(super) fn record(&self, outcome: Outcome, bearing: Bearing, connection: u64) -> Recorded {
        if outcome.answered || outcome.code == Code::Ok {
            self.answered.fetch_add(1, Ordering::Relaxed);
        } else if outcome.delivery != Delivery::NotSent {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        match bearing {
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
            Bearing::Lost if self.lost.fetch_max(connection, Ordering::Relaxed) < connection => {
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
    pub(super) fn excuse(&self) {
        self.consecutive.store(0, Ordering::Relaxed);
    }

    /// The calls without an answer were on connections on which the peer shows that it is alive.
    pub(super) fn blame(&self) -> Recorded {
        self.count(self.consecutive.load(Ordering::Relaxed))
    }

    /// Lets the breaker hear of a fault, with which there are so many in a row.
    fn count(&self, consecutive: u32) -> Recorded {
        let random = fastrand::f64();
        let any = self.tolerated.load(Ordering::Relaxed);
        let tripped = self
            .change(|machine, now, totals| machine.fault(now, consecutive, totals, any, random));
        if tripped {
            self.stalled.store(self.mark(), Ordering::Relaxed);
        }
        match (tripped, consecutive) {
            (true, _) => Recorded::Tripped,
            (false, 1) => Recorded::FirstFault,
            (false, _) => Recorded::Quietly,
        }
    }

    /// A probe has ended.
    pub(crate) fn probed(&self, answer: Answer) {
        self.change(|machine, now, _| machine.probed(now, answer));
    }

    /// The server said of its own accord that it is well, and has said nothing since.
    pub(crate) fn standing_word(&self) {
        self.change(|machine, now, _| machine.standing_word(now));
    }

    /// Lets the machine hear of something, and the directory of what changed by it.
    fn change(&self, event: impl FnOnce(&mut Machine, Instant, Totals) -> bool) -> bool {
        let mut machine = lock(&self.machine);
        let next = machine.next();
        let changed = event(&mut machine, Instant::now(), self.totals());
        self.attentive
            .store(machine.awaits_success(), Ordering::Relaxed);
        let later = machine.next() != next;
        drop(machine);
        if changed || later {
            self.flips.notify_one();
        }
        changed
    }

    /// Whether probes should come more often than usual.
    pub(crate) fn is_undecided(&self) -> bool {
        lock(&self.machine).is_undecided()
    }

    /// What is said of it now.
    pub(super) fn standing(&self, now: Instant, connected: bool) -> Standing {
        let mut machine = lock(&self.machine);
        if machine.advance(now) {
            self.attentive
                .store(machine.awaits_success(), Ordering::Relaxed);
        }
        if machine.weighs() {
            let totals = Totals {
                calls: self.all(),
                faults: self.refused.load(Ordering::Relaxed),
            };
            machine.weigh(now, totals);
            self.weighed.store(machine.weighs(), Ordering::Relaxed);
        }
        machine.connected(now, connected);
        machine.asked(now)
    }

    /// Whether it waits for its first probe.
    pub(crate) fn is_pending(&self) -> bool {
        lock(&self.machine).is_pending()
    }

    /// Discovery has answered.
    pub(crate) fn listed(&self, now: Instant, listed: bool) {
        lock(&self.machine).listed(now, listed);
    }

    /// Whether it is in service now.
    pub(super) fn serves(&self, service: Service) {
        lock(&self.machine).serves(service);
    }

    /// What was decided about the endpoint of that name. The log is told of each change.
    pub(super) fn decided(&self, name: &str, now: Instant, fate: Fate, observed: bool) {
        let tolerated = matches!(fate, Fate::Tolerated(_));
        self.tolerated.store(tolerated, Ordering::Relaxed);
        let mark = match fate {
            // Its pool tells of that.
            Fate::Unusable => return,
            Fate::In(_) => 1,
            Fate::Tolerated(_) => 2,
            Fate::Trial => 3,
            Fate::Out => 4,
        };
        let mark = mark * 2 + u8::from(observed);
        let before = self.decided.swap(mark, Ordering::Relaxed);
        if before == mark || (before == 0 && mark == 2) {
            return;
        }
        let HealthStatus {
            health,
            decided_by,
            reason,
            observed,
            ..
        } = self.report(now, fate, None);
        let decided_by = decided_by.map(|it| it.to_string());
        tracing::info!(endpoint = name, %health, decided_by, reason, ?observed, "endpoint health");
    }

    /// When time alone will change what is said of it.
    pub(crate) fn next(&self) -> Option<Instant> {
        lock(&self.machine).next()
    }

    /// Looks at the counters; a few times in each window of the breaker.
    pub(crate) fn sample(&self, now: Instant) {
        lock(&self.machine).sample(now, self.totals());
    }

    /// What happened since the last sweep for outliers.
    pub(crate) fn seen(&self) -> Seen {
        let totals = self.totals();
        let before = std::mem::replace(&mut *lock(&self.swept), totals);
        Seen {
            totals: Totals {
                calls: totals.calls.saturating_sub(before.calls),
                faults: totals.faults.saturating_sub(before.faults),
            },
            ejected: lock(&self.machine).is_ejected(),
        }
    }

    /// What the sweep found. Says whether anything has changed.
    pub(crate) fn swept(&self, now: Instant, is_outlier: bool) -> bool {
        let mut machine = lock(&self.machine);
        if is_outlier {
            machine.eject(now);
            return true;
        }
        machine.spare(now)
    }

    /// What users see.
    pub(crate) fn report(
        &self,
        now: Instant,
        fate: Fate,
        word: Option<HealthSource>,
    ) -> HealthStatus {
        lock(&self.machine).report(now, fate, word)
    }

    /// The time, as the atomics keep it.
    fn mark(&self) -> u64 {
        millis(self.born.elapsed()) + 1
    }

    fn totals(&self) -> Totals {
        // Faults first: a rate must not come out too low.
        let faults = self.faults.load(Ordering::Relaxed);
        let neutral = self.neutral.load(Ordering::Relaxed);
        Totals {
            calls: self.all().saturating_sub(neutral),
            faults,
        }
    }

    /// Attempts that reached it.
    fn all(&self) -> u64 {
        self.answered() + self.failed()
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
