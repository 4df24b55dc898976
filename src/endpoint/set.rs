//! The snapshot that calls pick from.

mod pick;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::balance::{Candidate, Picker, Policy};
use crate::error::Stage;
use crate::health::{Admission, EjectionLimits, Fate, Standing, admit};
use crate::pool::State;
use crate::time::Instant;

use super::{Endpoint, Subchannel};

pub(crate) use pick::Choice;

/// All known endpoints, those that may be picked, and their picker: one immutable value, replaced as a whole.
#[derive(Debug)]
pub(crate) struct EndpointSet {
    /// Grows with each set.
    pub(crate) version: u64,
    pub(crate) members: Arc<[Member]>,
    /// What becomes of each member, and whether so many are sick that all get calls.
    pub(crate) admission: Admission,
    /// Those that get calls; the picker's indexes are into this.
    eligible: Vec<Eligible>,
    picker: Option<Box<dyn Picker>>,
    blocked: Blocked,
}

/// An endpoint that gets calls: ready, or idle and dialled on demand.
#[derive(Debug)]
struct Eligible {
    subchannel: Arc<Subchannel>,
    /// One at a time, to prove itself.
    on_trial: bool,
}

/// A known endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) endpoint: Endpoint,
    /// `None` while its weight is 0.
    pub(crate) subchannel: Option<Arc<Subchannel>>,
    /// Whether discovery's last answer lists it.
    pub(crate) listed: bool,
    /// When it leaves, if it is not listed.
    pub(crate) until: Option<Instant>,
}

/// Why nothing may be picked, when nothing may.
#[derive(Clone, Debug)]
pub(crate) enum Blocked {
    /// Discovery has not answered yet, or endpoints are connecting for the first time: it may change soon.
    Wait,
    /// Nothing can be picked until something changes, for this reason or because all endpoints have failed.
    Fail(Option<Arc<str>>),
    /// Nothing will ever change again, because of this.
    Closed(&'static str),
}

/// Endpoints that an error names; the rest is counted.
const NAMED: usize = 8;

impl EndpointSet {
    /// A set from which nothing can be picked.
    pub(crate) fn blocked(version: u64, members: Arc<[Member]>, blocked: Blocked) -> Self {
        Self {
            version,
            members,
            admission: Admission::default(),
            eligible: Vec::new(),
            picker: None,
            blocked,
        }
    }

    /// `age`: how long ago the channel was made.
    pub(crate) fn build(
        version: u64,
        members: Arc<[Member]>,
        policy: &dyn Policy,
        limits: &EjectionLimits,
        age: Duration,
    ) -> Self {
        let now = Instant::now();
        let standings: Vec<_> = members.iter().map(|it| it.standing(now)).collect();
        let admission = admit(&standings, limits);
        let reports = policy.load_reports();
        let mut eligible = Vec::new();
        let mut candidates = Vec::new();
        let mut unavailable = Vec::new();
        let mut connecting = false;
        for ((member, fate), standing) in members.iter().zip(&admission.fates).zip(&standings) {
            let Some(subchannel) = &member.subchannel else {
                continue;
            };
            let name = &subchannel.name;
            subchannel
                .health
                .decided(name, now, *fate, standing.observed);
            let weight = member.endpoint.weight_or_default();
            let candidate = Candidate::new(subchannel.identity, weight)
                .with_metadata(Arc::clone(member.endpoint.facts()))
                .with_reported_weight(
                    reports.and_then(|it| subchannel.load.reported_weight(&it, age)),
                )
                .with_load(Arc::clone(&subchannel.load));
            let share = match fate {
                Fate::In(share) | Fate::Tolerated(share) => *share,
                Fate::Trial => 1.0,
                Fate::Out | Fate::Unusable => {
                    unavailable.push(candidate);
                    connecting |= *fate == Fate::Unusable && subchannel.is_connecting();
                    continue;
                }
            };
            candidates.push(candidate.with_share(share));
            eligible.push(Eligible {
                subchannel: Arc::clone(subchannel),
                on_trial: *fate == Fate::Trial,
            });
        }
        let picker =
            (!candidates.is_empty()).then(|| policy.build_among(&candidates, &unavailable));
        let blocked = if connecting {
            Blocked::Wait
        } else if members.is_empty() {
            Blocked::Fail(Some("no endpoint is known".into()))
        } else if members.iter().all(|member| member.subchannel.is_none()) {
            Blocked::Fail(Some("all endpoints are drained (weight 0)".into()))
        } else {
            Blocked::Fail(None)
        };
        Self {
            version,
            members,
            admission,
            eligible,
            picker,
            blocked,
        }
    }

    /// How the channel as a whole is connected (gRPC's aggregation rule).
    pub(crate) fn state(&self) -> State {
        let states = self.eligible.iter().map(|it| it.subchannel.pool.state());
        match self.blocked {
            Blocked::Closed(_) => State::Shutdown,
            _ if states.clone().any(|state| state == State::Ready) => State::Ready,
            Blocked::Wait => State::Connecting,
            _ if !self.eligible.is_empty() => State::Idle,
            Blocked::Fail(_) => State::TransientFailure,
        }
    }

    /// How far the dials that failed last came, the furthest of them.
    pub(crate) fn failed_stage(&self) -> Option<Stage> {
        let subchannels = self.members.iter().filter_map(|it| it.subchannel.as_ref());
        subchannels
            .filter_map(|it| it.pool.status().last_error?.stage())
            .max_by_key(|stage| *stage as u8)
    }

    /// One sentence: why nothing can be picked.
    pub(crate) fn why_not_ready(&self) -> String {
        match &self.blocked {
            Blocked::Fail(Some(reason)) => reason.to_string(),
            Blocked::Closed(why) => (*why).to_owned(),
            _ => self.failures(),
        }
    }

    /// What happened at each endpoint, and when it is tried again.
    fn failures(&self) -> String {
        let now = Instant::now();
        let connected: Vec<_> = self
            .members
            .iter()
            .filter_map(|it| it.subchannel.as_ref())
            .collect();
        let all_failed = connected
            .iter()
            .all(|it| it.pool.state() == State::TransientFailure);
        let mut text = match (connected.len(), all_failed) {
            (1, true) => "the only endpoint failed: ".to_owned(),
            (count, true) => format!("all {count} endpoints failed: "),
            (1, false) => "the only endpoint is not ready: ".to_owned(),
            (count, false) => format!("none of {count} endpoints is ready: "),
        };
        for (index, subchannel) in connected.iter().take(NAMED).enumerate() {
            let status = subchannel.pool.status();
            let separator = if index > 0 { "; " } else { "" };
            let _ = write!(text, "{separator}{}: ", subchannel.name);
            let failing = status.state == State::TransientFailure;
            let Some(error) = status.last_error.filter(|_| failing) else {
                let _ = write!(text, "{}", status.state);
                if status.state == State::Ready && subchannel.health.is_pending() {
                    text.push_str(", but its health check has not answered yet");
                }
                continue;
            };
            let times = if status.failed_dials == 1 {
                "attempt"
            } else {
                "attempts"
            };
            let _ = write!(text, "{} ({} {times}", error.message(), status.failed_dials);
            if let Some(next) = status.next_dial {
                let wait = next.saturating_duration_since(now).as_secs_f64();
                let _ = write!(text, ", next in {wait:.1} s");
            }
            text.push(')');
        }
        if connected.len() > NAMED {
            let _ = write!(text, "; and {} more", connected.len() - NAMED);
        }
        text
    }
}

impl Member {
    /// What is said of it.
    fn standing(&self, now: Instant) -> Standing {
        match &self.subchannel {
            Some(subchannel) => {
                let state = subchannel.pool.state();
                let connected = matches!(state, State::Ready | State::Idle);
                let standing = subchannel.health.standing(now, connected);
                match state {
                    // Nobody can be asked there, so that probes would keep it from the call that gets it a connection for
                    // ever. That call waits for it, and then for what the probes say.
                    State::Idle => standing.without_probes(),
                    _ => standing,
                }
            }
            None => Standing::DRAINED,
        }
    }
}
