//! All that is known of one endpoint.

mod objection;

use std::sync::Arc;

use crate::time::Instant;

use super::admission::Standing;
use super::circuit::{Circuit, Phase};
use super::outlier::Ejection;
use super::overload::Overload;
use super::probed::{Answer, Probed, Thresholds, Verdict};
use super::report::HealthSource;
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
    connected: bool,
    /// Since when it is connected, or is not.
    connected_since: Instant,
    /// Since when nothing is said against it, if so.
    well_since: Option<Instant>,
}

impl Machine {
    pub(crate) fn new(rules: Arc<Rules>, now: Instant) -> Self {
        Self {
            circuit: Circuit::new(now),
            probed: Probed::new(now, rules.probes.as_ref()),
            ejection: Ejection::default(),
            overload: Overload::default(),
            unlisted: None,
            service: Service::Out,
            connected: false,
            connected_since: now,
            well_since: None,
            rules,
        }
    }

    /// Whether its pool has a connection, or makes one when a call comes.
    pub(crate) fn connected(&mut self, now: Instant, connected: bool) {
        if self.connected != connected {
            self.connected = connected;
            self.connected_since = now;
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

    /// Whether the breaker is open, and not half-open.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.circuit.phase(), Phase::Open { .. })
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

    /// What its sources say together, for others to act on.
    pub(crate) fn asked(&mut self, now: Instant) -> Standing {
        let standing = self.standing();
        self.well_since = match standing.word {
            None => self.well_since.or(Some(now)),
            Some(_) => None,
        };
        standing
    }

    pub(super) fn standing(&self) -> Standing {
        let mut standing = Standing {
            usable: self.connected && !self.is_pending(),
            word: match self.connected {
                false => Some(HealthSource::Connectivity),
                true if self.is_pending() => Some(HealthSource::Probe),
                true => self.decisive().map(|it| it.source),
            },
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
        let standing = self.standing();
        !standing.ill && (standing.trial || standing.ejected.is_none())
    }
}

#[cfg(test)]
mod tests;
