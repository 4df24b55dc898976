//! All that is known of one endpoint.

use std::fmt;
use std::sync::Arc;

use crate::time::Instant;

use super::admission::{Fate, Standing};
use super::circuit::{Cause, Circuit, Phase};
use super::outlier::Ejection;
use super::overload::Overload;
use super::probed::{Answer, Probed, Thresholds, Verdict};
use super::report::{Health, HealthSource, HealthStatus};
use super::window::Totals;
use super::{Influence, Rules, Service};

/// One endpoint's health. Each event says whether something has changed that others must hear of.
#[derive(Debug)]
pub(crate) struct Machine {
    rules: Arc<Rules>,
    circuit: Circuit,
    probed: Probed,
    ejection: Ejection,
    overload: Overload,
    /// Since when discovery no longer lists it.
    unlisted: Option<Instant>,
    /// Whether it is in service, as it was decided last.
    service: Service,
    born: Instant,
}

/// A source that speaks against the endpoint.
struct Objection {
    source: HealthSource,
    influence: Influence,
    since: Instant,
    until: Option<Instant>,
    half_open: bool,
    reason: Reason,
}

/// Why it does. Put into words for reports only.
enum Reason {
    Probe(Arc<str>),
    Breaker(Cause),
    Outlier,
    Overload(f64),
    Unlisted,
}

impl Machine {
    pub(crate) fn new(rules: Arc<Rules>, now: Instant) -> Self {
        Self {
            rules,
            circuit: Circuit::new(now),
            probed: Probed::new(now),
            ejection: Ejection::default(),
            overload: Overload::default(),
            unlisted: None,
            service: Service::Out,
            born: now,
        }
    }

    /// A call failed by the endpoint's fault, the last of so many in a row. `any`: calls come whatever the breaker says.
    pub(crate) fn fault(
        &mut self,
        now: Instant,
        consecutive: u32,
        totals: Totals,
        any: bool,
        random: f64,
    ) -> bool {
        let Some(rules) = &self.rules.breaker else {
            return false;
        };
        let any = any || !rules.influence.is_veto();
        let advanced = self.circuit.advance(now);
        let seen = (consecutive, totals);
        self.circuit.fault(now, rules, seen, any, random) || advanced
    }

    /// A call succeeded.
    pub(crate) fn success(&mut self, now: Instant, totals: Totals) -> bool {
        if self.rules.breaker.is_none() {
            return false;
        }
        let advanced = self.circuit.advance(now);
        self.circuit.success(now, totals) || advanced
    }

    /// It refused a call to protect itself. `before`: calls and refusals so far, without this one.
    pub(crate) fn refused(&mut self, now: Instant, before: Totals) {
        self.overload.refused(now, before);
    }

    /// Looks at calls and refusals so far, if it is time.
    pub(crate) fn weigh(&mut self, now: Instant, totals: Totals) {
        self.overload.advance(now, totals);
    }

    /// Whether refusals are looked at already.
    pub(crate) fn weighs(&self) -> bool {
        self.overload.is_watched()
    }

    /// Whether a success would change anything.
    pub(crate) fn awaits_success(&self) -> bool {
        self.circuit.phase() != Phase::Closed
    }

    /// A probe has ended.
    pub(crate) fn probed(&mut self, now: Instant, answer: Answer) -> bool {
        match &self.rules.probes {
            Some(rules) => self.probed.learn(now, answer, rules),
            None => false,
        }
    }

    /// The server's last word of its own accord still stands.
    pub(crate) fn standing_word(&mut self, now: Instant) -> bool {
        self.probed.standing_word(now)
    }

    /// Whether more probes than usual are worth while.
    pub(crate) fn is_undecided(&self) -> bool {
        self.probed.is_undecided()
    }

    /// Looks at the counters; a few times in each window of the breaker.
    pub(crate) fn sample(&mut self, now: Instant, totals: Totals) {
        if let Some(rules) = &self.rules.breaker {
            self.circuit.sample(now, totals, rules);
        }
    }

    /// A sweep found it far worse than the others.
    pub(crate) fn eject(&mut self, now: Instant) {
        if let Some(rules) = &self.rules.outliers {
            self.ejection.eject(now, rules);
        }
    }

    /// A sweep did not.
    pub(crate) fn spare(&mut self, now: Instant) -> bool {
        self.ejection.spared(now)
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.ejection.out().is_some()
    }

    /// Discovery has answered.
    pub(crate) fn listed(&mut self, now: Instant, listed: bool) {
        self.unlisted = (!listed).then(|| self.unlisted.unwrap_or(now));
    }

    /// Whether it was in service until now was decided anew.
    pub(crate) fn serves(&mut self, service: Service) {
        self.service = service;
    }

    /// What time has done.
    pub(crate) fn advance(&mut self, now: Instant) -> bool {
        // Not short-circuiting: each of them must move on.
        self.circuit.advance(now) | self.probed.advance(now) | self.ejection.advance(now)
    }

    /// When time will change it next.
    pub(crate) fn next(&self) -> Option<Instant> {
        let ejection = self.ejection.out().map(|(_, until)| until);
        let overload = self.overload.next();
        let all = [self.circuit.next(), self.probed.next(), ejection, overload];
        all.into_iter().flatten().min()
    }

    /// Whether it waits for its first probe.
    pub(crate) fn is_pending(&self) -> bool {
        let waits = |rules: &Thresholds| {
            rules.influence.is_veto() && self.probed.verdict() == Verdict::Unknown
        };
        self.rules.probes.as_ref().is_some_and(waits)
    }

    /// What its sources say together.
    pub(crate) fn standing(&self, connected: bool) -> Standing {
        let mut standing = Standing {
            usable: connected && !self.is_pending(),
            ill: false,
            ejected: None,
            trial: false,
            share: 1.0,
            failing: false,
            service: self.service,
            observed: false,
        };
        let mut trial = true;
        self.each_objection(|objection| match objection.influence {
            Influence::Veto if objection.source == HealthSource::Probe => standing.ill = true,
            Influence::Veto => {
                let since = objection.since;
                standing.ejected = Some(standing.ejected.map_or(since, |it| it.min(since)));
                trial &= objection.half_open;
            }
            Influence::Weight(share) => standing.share *= share,
            Influence::Observe => standing.observed = true,
            Influence::Hint => {}
        });
        standing.trial = trial && standing.ejected.is_some();
        standing
    }

    /// Whether nothing forbids a trial.
    pub(crate) fn may_be_tried(&self) -> bool {
        let standing = self.standing(true);
        !standing.ill && (standing.trial || standing.ejected.is_none())
    }

    /// What users see.
    pub(crate) fn report(&self, now: Instant, fate: Fate) -> HealthStatus {
        let mut decisive: Option<Objection> = None;
        let mut observed = Vec::new();
        let rank = |it: &Objection| match it.influence {
            Influence::Veto => 0,
            Influence::Weight(_) => 1,
            Influence::Hint => 2,
            Influence::Observe => 3,
        };
        self.each_objection(|objection| {
            if objection.influence == Influence::Observe {
                observed.push(objection.source);
            }
            // Of two that forbid it, the one that does so without a trial decides.
            let key = |it: &Objection| (rank(it), it.half_open);
            if decisive.as_ref().is_none_or(|it| key(&objection) < key(it)) {
                decisive = Some(objection);
            }
        });
        let health = match (fate, &decisive) {
            (Fate::Unusable, _) if self.is_pending() => Health::Unknown,
            (Fate::Unusable, _) => Health::Disconnected,
            (Fate::Out, _) => Health::Ejected,
            (Fate::Trial, _) => Health::HalfOpen,
            (Fate::Tolerated(_), _) => Health::Tolerated,
            (Fate::In(_), Some(_)) => Health::Suspect,
            (Fate::In(_), None) => Health::Healthy,
        };
        let since = match &decisive {
            Some(objection) => objection.since,
            None => self.well_since(),
        };
        HealthStatus {
            health,
            decided_by: match health {
                Health::Unknown => Some(HealthSource::Probe),
                _ => decisive.as_ref().map(|it| it.source),
            },
            for_how_long: now.saturating_duration_since(since),
            changes_in: decisive
                .as_ref()
                .and_then(|it| it.until)
                .map(|until| until.saturating_duration_since(now)),
            reason: match health {
                Health::Unknown => Some("its first health check has no answer yet".to_owned()),
                _ => decisive.map(|it| it.reason.to_string()),
            },
            observed,
        }
    }

    /// Since when nothing is said against it.
    fn well_since(&self) -> Instant {
        self.born.max(self.circuit.since()).max(self.probed.since())
    }

    fn each_objection(&self, mut hear: impl FnMut(Objection)) {
        if let Some(rules) = &self.rules.probes
            && self.probed.verdict() == Verdict::Unhealthy
        {
            hear(Objection {
                source: HealthSource::Probe,
                influence: rules.influence,
                since: self.probed.since(),
                until: self.probed.next(),
                half_open: false,
                reason: Reason::Probe(Arc::clone(self.probed.why())),
            });
        }
        if let Some(rules) = &self.rules.breaker
            && self.circuit.phase() != Phase::Closed
        {
            hear(Objection {
                source: HealthSource::Breaker,
                influence: rules.influence,
                since: self.circuit.since(),
                until: self.circuit.next(),
                half_open: self.circuit.phase() == Phase::HalfOpen,
                reason: Reason::Breaker(self.circuit.cause()),
            });
        }
        if let Some(rules) = &self.rules.outliers
            && let Some((since, until)) = self.ejection.out()
        {
            hear(Objection {
                source: HealthSource::Outliers,
                influence: rules.influence_of(),
                since,
                until: Some(until),
                half_open: false,
                reason: Reason::Outlier,
            });
        }
        if let Some((share, since)) = self.overload.share() {
            hear(Objection {
                source: HealthSource::Overload,
                influence: Influence::Weight(share),
                since,
                until: None,
                half_open: false,
                reason: Reason::Overload(share),
            });
        }
        if let Some(since) = self.unlisted {
            hear(Objection {
                source: HealthSource::Discovery,
                influence: self.rules.discovery,
                since,
                until: None,
                half_open: false,
                reason: Reason::Unlisted,
            });
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Probe(why) => f.write_str(why),
            Self::Breaker(cause) => cause.fmt(f),
            Self::Outlier => f.write_str("it does far worse than the others"),
            Self::Overload(share) => {
                let percent = share * 100.0;
                write!(
                    f,
                    "it refuses calls (RESOURCE_EXHAUSTED), and gets {percent:.0} % of its share"
                )
            }
            Self::Unlisted => f.write_str("discovery no longer lists it"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consecutive(faults) => write!(f, "{faults} calls in a row failed"),
            Self::Rate(totals) => {
                write!(
                    f,
                    "{} of the last {} calls failed",
                    totals.faults, totals.calls
                )
            }
            Self::Trial => f.write_str("the call that should prove it well failed"),
        }
    }
}

#[cfg(test)]
mod tests;
