//! What speaks against an endpoint, and what users see of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::time::Instant;

use super::super::admission::Fate;
use super::super::circuit::{Cause, Phase};
use super::super::probed::Verdict;
use super::super::report::{Health, HealthSource, HealthStatus};
use super::{Influence, Machine};

/// A source that speaks against the endpoint.
pub(super) struct Objection {
    pub(super) source: HealthSource,
    pub(super) influence: Influence,
    pub(super) since: Instant,
    until: Option<Instant>,
    pub(super) half_open: bool,
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
    /// What users see. `fate` and `word` are those of the last decision over the set, which may be a moment old.
    pub(crate) fn report(
        &self,
        now: Instant,
        fate: Fate,
        word: Option<HealthSource>,
    ) -> HealthStatus {
        let mut observed = Vec::new();
        self.each_objection(|objection| {
            if objection.influence == Influence::Observe {
                observed.push(objection.source);
            }
        });
        let decisive = self.decisive();
        let health = match (fate, &decisive) {
            (Fate::Unusable, _) if self.connected && self.is_pending() => {
                return HealthStatus {
                    health: Health::Unknown,
                    decided_by: Some(HealthSource::Probe),
                    for_how_long: now.saturating_duration_since(self.connected_since),
                    changes_in: None,
                    reason: Some("its first health check has no answer yet".to_owned()),
                    observed,
                };
            }
            (Fate::Unusable, _) => {
                return HealthStatus {
                    for_how_long: now.saturating_duration_since(self.connected_since),
                    observed,
                    ..HealthStatus::disconnected("it has no connection")
                };
            }
            (Fate::Out, _) => Health::Ejected,
            (Fate::Trial, _) => Health::HalfOpen,
            (Fate::Tolerated(_), _) => Health::Tolerated,
            (Fate::In(_), Some(_)) => Health::Suspect,
            (Fate::In(_), None) => Health::Healthy,
        };
        if decisive.is_none() && health != Health::Healthy {
            return HealthStatus {
                health,
                decided_by: word,
                for_how_long: Duration::ZERO,
                changes_in: Some(Duration::ZERO),
                reason: Some("it has just recovered".to_owned()),
                observed,
            };
        }
        let since = match &decisive {
            Some(objection) => objection.since,
            None => self.well_since(),
        };
        HealthStatus {
            health,
            decided_by: decisive.as_ref().map(|it| it.source),
            for_how_long: now.saturating_duration_since(since),
            changes_in: decisive
                .as_ref()
                .and_then(|it| it.until)
                .map(|until| until.saturating_duration_since(now)),
            reason: decisive.map(|it| it.reason.to_string()),
            observed,
        }
    }

    /// Since when nothing is said against it.
    fn well_since(&self) -> Instant {
        self.well_since.unwrap_or_else(|| {
            // Nobody has asked since.
            let sources = self.circuit.since().max(self.probed.since());
            self.connected_since.max(sources)
        })
    }

    /// Which source decides: one with a veto before others; of several such, one that leaves it no trial, and of those the
    /// one that lasts longest, so that what is said of the end is true.
    pub(super) fn decisive(&self) -> Option<Objection> {
        let rank = |it: &Objection| match it.influence {
            Influence::Veto => 0,
            Influence::Weight(_) => 1,
            Influence::Hint => 2,
            Influence::Observe => 3,
        };
        // `None` is no end, and the longest.
        let key = |it: &Objection| (rank(it), it.half_open, it.until.map(std::cmp::Reverse));
        let mut decisive: Option<Objection> = None;
        self.each_objection(|objection| {
            if decisive.as_ref().is_none_or(|it| key(&objection) < key(it)) {
                decisive = Some(objection);
            }
        });
        decisive
    }

    pub(super) fn each_objection(&self, mut hear: impl FnMut(Objection)) {
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
        if let Some((accepted, since)) = self.overload.share() {
            let influence = match self.rules.overload {
                Influence::Weight(least) => Influence::Weight(accepted.max(least)),
                other => other,
            };
            hear(Objection {
                source: HealthSource::Overload,
                influence,
                since,
                until: None,
                half_open: false,
                reason: Reason::Overload(accepted),
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
            Self::Overload(accepted) => {
                let percent = accepted * 100.0;
                write!(
                    f,
                    "it refuses calls (RESOURCE_EXHAUSTED), and accepts {percent:.0} % of them"
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
