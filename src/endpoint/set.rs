//! The snapshot that calls pick from.

mod pick;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::balance::{Candidate, Picker, Policy};
use crate::error::Stage;
use crate::health::{Admission, Fate, Rules, Standing, admit};
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
    /// What becomes of each member that is used, in their order, and whether so many are sick that all get calls.
    pub(crate) admission: Admission,
    /// Those that get calls; the picker's indexes are into this.
    eligible: Vec<Eligible>,
    picker: Option<Box<dyn Picker>>,
    blocked: Blocked,
    /// Since when nothing could be picked, from set to set.
    pub(crate) blocked_since: Option<Instant>,
    /// When time alone changes what its endpoints get.
    pub(crate) turning: Option<Instant>,
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
    /// `None` while it is not used: its weight is 0, or it is outside of the subset.
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
            blocked_since: Some(Instant::now()),
            turning: None,
        }
    }

    /// `age`: how long ago the channel was made.
    pub(crate) fn build(
        version: u64,
        members: Arc<[Member]>,
        policy: &dyn Policy,
        rules: &Rules,
        age: Duration,
    ) -> Self {
        let now = Instant::now();
        let used: Vec<_> = members.iter().filter_map(Member::used).collect();
        let mut standings: Vec<_> = used.iter().map(|(_, it)| it.standing(now)).collect();
        let reports = policy.load_reports();
        let candidate =
            |((endpoint, subchannel), standing): (&(&Endpoint, &Arc<Subchannel>), &Standing)| {
                let reported = reports.and_then(|it| subchannel.load.reported_weight(&it, age));
                Candidate::new(subchannel.identity, endpoint.weight_or_default())
                    .with_metadata(Arc::clone(endpoint.facts()))
                    .with_well(standing.usable && standing.is_well())
                    .with_reported_weight(reported)
                    .with_load(Arc::clone(&subchannel.load))
            };
        let all: Vec<_> = used.iter().zip(&standings).map(candidate).collect();
        let is_sick = |it: &Standing| it.usable && !it.is_well();
        let limits = match standings.iter().any(is_sick) && policy.can_do_without_sick(&all) {
            true => rules.limits.lifted(),
            false => rules.limits,
        };
        let mut admission = admit(&standings, &limits);
        let turning = rules.slow_start.and_then(|rules| {
            let before: Vec<_> = standings.iter().map(|it| it.service).collect();
            let turning = rules.follow(now, &mut standings, &mut admission.fates);
            for (((_, subchannel), before), standing) in used.iter().zip(before).zip(&standings) {
                if standing.service != before {
                    subchannel.health.serves(standing.service);
                }
            }
            turning
        });
        let mut eligible = Vec::new();
        let mut candidates = Vec::new();
        let mut unavailable = Vec::new();
        let mut connecting = false;
        let fates = admission.fates.iter().zip(&standings).zip(all);
        for ((_, subchannel), ((fate, standing), candidate)) in used.iter().zip(fates) {
            let name = &subchannel.name;
            subchannel
                .health
                .decided(name, now, *fate, standing.observed);
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
        } else if used.is_empty() {
            Blocked::Fail(Some("all endpoints are drained (weight 0)".into()))
        } else {
            Blocked::Fail(None)
        };
        Self {
            blocked_since: picker.is_none().then_some(now),
            version,
            members,
            admission,
            eligible,
            picker,
            blocked,
            turning,
        }
    }

    /// Calls that were given to the endpoints that are used, and have not ended.
    #[cfg(feature = "tower")]
    pub(crate) fn in_flight(&self) -> u32 {
        let used = self.members.iter().filter_map(Member::used);
        used.map(|(_, it)| it.load.in_flight()).sum()
    }

    /// Whether there is a picker.
    pub(crate) fn can_be_picked_from(&self) -> bool {
        self.picker.is_some()
    }

    /// The same as the one that comes after `before`: what could not be picked then and can't be now could not in between.
    pub(crate) fn after(mut self, before: &Self) -> Self {
        if self.blocked_since.is_some() {
            self.blocked_since = before.blocked_since.or(self.blocked_since);
        }
        self
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
            Blocked::Wait if self.members.is_empty() => "discovery has not answered yet".to_owned(),
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
    fn used(&self) -> Option<(&Endpoint, &Arc<Subchannel>)> {
        Some((&self.endpoint, self.subchannel.as_ref()?))
    }
}
