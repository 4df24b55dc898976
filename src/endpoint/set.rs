//! The snapshot that calls pick from.

use std::fmt::Write as _;
use std::sync::Arc;

use tonic::Code;

use crate::balance::{Candidate, Pick, PickRequest, Picker, Policy, pick_avoiding};
use crate::error::{Error, Kind, Stage};
use crate::pool::State;
use crate::time::Instant;

use super::{Endpoint, Subchannel};

/// All known endpoints, those that may be picked, and their picker: one immutable value, replaced as a whole.
#[derive(Debug)]
pub(crate) struct EndpointSet {
    /// Grows with each set.
    pub(crate) version: u64,
    pub(crate) members: Arc<[Member]>,
    /// Ready, or idle and dialled on demand; the picker's indexes are into this.
    eligible: Vec<Arc<Subchannel>>,
    picker: Option<Box<dyn Picker>>,
    blocked: Blocked,
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

/// What a call is to do.
#[derive(Debug)]
pub(crate) enum Choice {
    Use(Arc<Subchannel>),
    /// Wait for the next set.
    Wait,
    /// Fail, unless the call waits for readiness.
    Fail(Error),
    /// Fail in any case.
    Drop(Error),
}

/// Endpoints that an error names; the rest is counted.
const NAMED: usize = 8;

impl EndpointSet {
    /// A set from which nothing can be picked.
    pub(crate) fn blocked(version: u64, members: Arc<[Member]>, blocked: Blocked) -> Self {
        Self {
            version,
            members,
            eligible: Vec::new(),
            picker: None,
            blocked,
        }
    }

    pub(crate) fn build(version: u64, members: Arc<[Member]>, policy: &dyn Policy) -> Self {
        let mut eligible = Vec::new();
        let mut candidates = Vec::new();
        let mut connecting = false;
        for member in members.iter() {
            let Some(subchannel) = &member.subchannel else {
                continue;
            };
            match subchannel.pool.state() {
                State::Ready | State::Idle => {
                    let weight = member.endpoint.weight_or_default();
                    let facts = Arc::clone(member.endpoint.facts());
                    let candidate = Candidate::new(subchannel.identity, weight);
                    candidates.push(candidate.with_metadata(facts));
                    eligible.push(Arc::clone(subchannel));
                }
                State::Connecting => connecting = true,
                State::TransientFailure | State::Shutdown => {}
            }
        }
        let picker = (!candidates.is_empty()).then(|| policy.build(&candidates));
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
            eligible,
            picker,
            blocked,
        }
    }

    /// Chooses the endpoint of an attempt: one that is not in `tried` while there is one, and never one that
    /// is in `unready`.
    pub(crate) fn pick(&self, request: &PickRequest<'_>, tried: &[u64], unready: &[u64]) -> Choice {
        let Some(picker) = &self.picker else {
            return self.blocked_choice();
        };
        let avoided = |index: usize| {
            self.eligible
                .get(index)
                .is_none_or(|it| tried.contains(&it.identity) || unready.contains(&it.identity))
        };
        let pick = if tried.is_empty() && unready.is_empty() {
            picker.pick(request)
        } else {
            pick_avoiding(&**picker, self.eligible.len(), request, avoided)
        };
        match pick {
            Pick::Endpoint(index) => match self.eligible.get(index) {
                Some(found) if !unready.contains(&found.identity) => Choice::Use(Arc::clone(found)),
                Some(_) => self.use_any_ready(unready),
                None => Choice::Fail(pick_error(format!(
                    "the picker chose endpoint {index} of {}",
                    self.eligible.len()
                ))),
            },
            // Waiting for an endpoint that exists is for calls that asked for it.
            Pick::Wait => Choice::Fail(pick_error(
                "the balancing policy found no endpoint fit for the call",
            )),
            Pick::Fail(reason) => Choice::Fail(pick_error(reason)),
            Pick::Drop(reason) => Choice::Drop(
                Error::new(Kind::Dropped, Code::Unavailable, reason).in_stage(Stage::Pick),
            ),
        }
    }

    /// All were tried and the picked one is unready: any other will do, else the next set.
    fn use_any_ready(&self, unready: &[u64]) -> Choice {
        self.eligible
            .iter()
            .find(|it| !unready.contains(&it.identity))
            .map_or(Choice::Wait, |it| Choice::Use(Arc::clone(it)))
    }

    fn blocked_choice(&self) -> Choice {
        match &self.blocked {
            Blocked::Wait => Choice::Wait,
            Blocked::Closed(why) => Choice::Drop(
                Error::new(Kind::Closed, Code::Unavailable, *why).in_stage(Stage::Pick),
            ),
            Blocked::Fail(_) => Choice::Fail(pick_error(self.why_not_ready())),
        }
    }

    /// How the channel as a whole is connected (gRPC's aggregation rule).
    pub(crate) fn state(&self) -> State {
        let states = self.eligible.iter().map(|it| it.pool.state());
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

fn pick_error(message: impl Into<String>) -> Error {
    Error::new(Kind::NoEndpoint, Code::Unavailable, message).in_stage(Stage::Pick)
}
