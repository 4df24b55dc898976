//! What calls and probes tell of an endpoint, and what follows from it.

mod record;
mod trial;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use crate::health::outlier::Seen;
use crate::health::{
    Answer, Fate, HealthSource, HealthStatus, Machine, Rules, Service, Standing, Totals,
};
use crate::lock::lock;
use crate::time::Instant;

pub(crate) use record::{Origin, Recorded};
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
    /// How often the breaker has opened.
    openings: AtomicU32,
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
            openings: AtomicU32::new(0),
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

    /// How often the breaker has opened.
    pub(crate) fn openings(&self) -> u32 {
        self.openings.load(Ordering::Relaxed)
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
