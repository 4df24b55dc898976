//! The errors that only the call as a whole can make.

use std::time::Duration;

use tonic::Code;

use crate::classify::{Bearing, Outcome};
use crate::endpoint::Origin;
use crate::error::{Delivery, Error, Kind, Stage};
use crate::time::Instant;

use super::super::past::{Ended, closed_under};
use super::{Call, Waiting};

impl Call {
    /// What the call was doing when its time was over.
    pub(super) fn deadline_passed(&mut self) -> Error {
        let timeout = self
            .settings
            .limit
            .as_ref()
            .map(|it| it.timeout)
            .unwrap_or_default();
        let (stage, doing) = match self.waiting {
            Waiting::ForToken => (Stage::Pick, "waiting for a token"),
            Waiting::ForRoom => (Stage::Pick, "waiting for room under the concurrency limits"),
            Waiting::ForEndpoint => (Stage::Pick, "waiting for an endpoint to be ready"),
            Waiting::ForStream => (Stage::Pool, "waiting for a free stream"),
            Waiting::ForResponse => (Stage::Response, "waiting for the response"),
            Waiting::ToRetry => (Stage::Pick, "waiting to retry"),
        };
        let at_endpoint = matches!(stage, Stage::Pool | Stage::Response);
        let name = self
            .endpoint
            .as_ref()
            .map(|it| &it.name)
            .filter(|_| at_endpoint);
        let mut message = format!("the deadline of {timeout:?} passed while {doing}");
        if let Some(name) = name {
            message.push_str(" of ");
            message.push_str(name);
        }
        let last = self.last_error.take();
        if let Some(last) = &last {
            message.push_str("; before that: ");
            message.push_str(last.message());
        }
        let sent = self.waiting == Waiting::ForResponse;
        self.in_doubt |= sent;
        let mut error = Error::new(Kind::Timeout, Code::DeadlineExceeded, message).in_stage(stage);
        if let Some(name) = name {
            error = error.about(name);
        }
        if sent {
            error = error.delivered(Delivery::MaybeProcessed);
        }
        if self.waiting != Waiting::ToRetry && self.past.attempts > 0 {
            error = self.failed(error);
        }
        match last {
            Some(last) => error.because(last),
            None => error,
        }
    }

    /// Counts the attempt that the deadline cut off.
    pub(super) fn record_lateness(&self) {
        let Some(endpoint) = self.endpoint.as_ref() else {
            return;
        };
        if self.waiting == Waiting::ForResponse {
            let late = Outcome {
                delivery: Delivery::MaybeProcessed,
                code: Code::DeadlineExceeded,
                answered: false,
                pushback: None,
            };
            let bearing = self.blame_for_lateness();
            if let Some(penalty) = late.penalty(bearing).filter(|_| self.inner.times_calls) {
                let now = Instant::now();
                let had = now - self.sent.unwrap_or(self.past.began());
                endpoint.load.failed(had, penalty, self.inner.age(now));
            }
            let origin = Origin {
                // Only losses are counted once for each.
                connection: 0,
                openings: self.openings,
            };
            endpoint.record_as(late, bearing, origin);
        }
    }

    /// What it says about the endpoint that the call's time is over: one that had little of it is not to blame.
    pub(super) fn blame_for_lateness(&self) -> Bearing {
        let timeout = self.settings.limit.as_ref().map(|it| it.timeout);
        let had = match self.sent {
            Some(sent) => sent.elapsed(),
            None => self.past.elapsed(),
        };
        match timeout {
            Some(timeout) if had >= timeout / 2 => Bearing::Fault,
            _ => Bearing::Neutral,
        }
    }

    /// The last attempt ended with this error, and the call with it.
    pub(super) fn failed(&mut self, error: Error) -> Error {
        let endpoint = self.endpoint.as_ref().map(|it| &it.name);
        self.past.failed(&Ended::with(&error, endpoint));
        error
    }

    /// The last attempt ended because the channel was closed.
    pub(super) fn closed_under(&mut self, lost: Error) -> Error {
        let lost = self.failed(lost);
        closed_under(lost, self.endpoint.as_ref().map(|it| &it.name))
    }
}

pub(super) fn per_try_timeout_passed(limit: Duration) -> Error {
    let message = format!("no response within {limit:?} (retry.per_try_timeout)");
    Error::new(Kind::Timeout, Code::DeadlineExceeded, message)
        .in_stage(Stage::Response)
        .delivered(Delivery::MaybeProcessed)
}

pub(super) fn unrepeatable() -> Error {
    let message = "the request's body is too large to be sent again (retry.replay_buffer)";
    Error::new(Kind::Disconnected, Code::Unavailable, message)
        .in_stage(Stage::Send)
        .delivered(Delivery::MaybeProcessed)
}
