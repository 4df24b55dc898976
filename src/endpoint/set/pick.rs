//! Choosing the endpoint of an attempt.

use std::sync::Arc;

use tonic::Code;

use crate::balance::{Pick, PickRequest, Picker, pick_avoiding};
use crate::error::{Error, Kind, Stage};

use super::super::{Subchannel, Trial};
use super::{Blocked, Eligible, EndpointSet};

/// What a call is to do.
#[derive(Debug)]
pub(crate) enum Choice {
    /// The second is the right to be its only call, if it has to prove itself.
    Use(Arc<Subchannel>, Option<Trial>),
    /// The endpoint of this identity has to prove itself with one call, and that is under way: pick another one.
    OnTrial(u64),
    /// Wait for the next set.
    Wait,
    /// Wait for a call to end: those that could be used have as many as they may.
    Full,
    /// Fail, unless the call waits for readiness.
    Fail(Error),
    /// Fail in any case.
    Drop(Error),
}

impl EndpointSet {
    /// Chooses the endpoint of an attempt: one that is not in `tried` while there is one, and never one that
    /// is in `unready`, or has as many calls as it may if that is limited.
    pub(crate) fn pick(
        &self,
        request: &PickRequest<'_>,
        tried: &[u64],
        unready: &[u64],
        limit: Option<u32>,
    ) -> Choice {
        let Some(picker) = &self.picker else {
            return self.blocked_choice();
        };
        match self.ask(&**picker, request, tried, unready, limit) {
            Pick::Endpoint(index) => match self.eligible.get(index) {
                Some(found) if found.is_ready(unready) && !found.is_full(limit) => found.choose(),
                Some(_) => self.use_any(unready, limit),
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

    /// The endpoint that would be chosen now. Takes nothing: not the right to be the one call that it has to prove itself
    /// with, either.
    pub(crate) fn next(&self, request: &PickRequest<'_>, tried: &[u64]) -> Option<&Subchannel> {
        match self.ask(&**self.picker.as_ref()?, request, tried, &[], None) {
            Pick::Endpoint(index) => Some(&self.eligible.get(index)?.subchannel),
            _ => None,
        }
    }

    fn ask(
        &self,
        picker: &dyn Picker,
        request: &PickRequest<'_>,
        tried: &[u64],
        unready: &[u64],
        limit: Option<u32>,
    ) -> Pick {
        let avoided = |index: usize| {
            self.eligible.get(index).is_none_or(|it| {
                tried.contains(&it.subchannel.identity)
                    || !it.is_ready(unready)
                    || it.is_full(limit)
            })
        };
        if tried.is_empty() && unready.is_empty() && limit.is_none() {
            picker.pick(request)
        } else {
            pick_avoiding(picker, self.eligible.len(), request, avoided)
        }
    }

    /// All were tried and the picked one can't be used: any other will do, else one that will have room, else the next set.
    fn use_any(&self, unready: &[u64], limit: Option<u32>) -> Choice {
        let mut full = false;
        for it in self.eligible.iter().filter(|it| it.is_ready(unready)) {
            if !it.is_full(limit) {
                return it.choose();
            }
            full = true;
        }
        if full { Choice::Full } else { Choice::Wait }
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
}

impl Eligible {
    fn is_ready(&self, unready: &[u64]) -> bool {
        !unready.contains(&self.subchannel.identity)
    }

    fn is_full(&self, limit: Option<u32>) -> bool {
        limit.is_some_and(|most| self.subchannel.load.is_full(most))
    }

    fn choose(&self) -> Choice {
        let subchannel = &self.subchannel;
        if !self.on_trial {
            return Choice::Use(Arc::clone(subchannel), None);
        }
        match subchannel.health.begin_trial() {
            Some(trial) => Choice::Use(Arc::clone(subchannel), Some(trial)),
            None => Choice::OnTrial(subchannel.identity),
        }
    }
}

fn pick_error(message: impl Into<String>) -> Error {
    Error::new(Kind::NoEndpoint, Code::Unavailable, message).in_stage(Stage::Pick)
}
