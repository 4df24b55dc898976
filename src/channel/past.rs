//! What a call has behind it.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Delivery, Error, Kind, Stage};
use crate::history::{Attempt, History};
use crate::time::Instant;

use tonic::Code;

/// The attempts of a call so far.
#[derive(Debug)]
pub(super) struct Past {
    /// Those that count: resends of provably unprocessed work do not.
    pub(super) attempts: u32,
    /// Those of them that were made since a server last said when to retry.
    pub(super) since_pushback: u32,
    /// Those that led to no response.
    pub(super) history: History,
    /// When the last one began.
    began: Instant,
}

/// How an attempt ended.
pub(super) struct Ended<'a> {
    pub(super) endpoint: Option<&'a Arc<str>>,
    pub(super) stage: Stage,
    pub(super) delivery: Delivery,
    pub(super) code: Code,
}

impl Past {
    pub(super) fn none(now: Instant) -> Self {
        Self {
            attempts: 0,
            since_pushback: 0,
            history: History::default(),
            began: now,
        }
    }

    /// Of the attempt with that number, which runs beside others.
    pub(super) fn before(number: u32, now: Instant) -> Self {
        Self {
            attempts: number - 1,
            ..Self::none(now)
        }
    }

    /// Takes over what became of one of several attempts that run at the same time.
    pub(super) fn adopt(&mut self, other: &mut Self, attempts: u32) {
        self.attempts = attempts;
        self.began = other.began;
        let others = std::mem::take(&mut other.history);
        others.iter().for_each(|it| self.history.push(it.clone()));
    }

    /// One of them had no answer yet when the call had its own.
    pub(super) fn lost(&mut self, endpoint: &Arc<str>, elapsed: Duration) {
        self.history.push(Attempt {
            endpoint: Some(Arc::clone(endpoint)),
            stage: Stage::Response,
            delivery: Delivery::MaybeProcessed,
            code: Code::Cancelled,
            elapsed,
            counted: true,
        });
    }

    /// One more attempt begins. The first one begins with the call.
    pub(super) fn begin(&mut self) {
        self.attempts += 1;
        self.since_pushback += 1;
        if !self.history.is_empty() {
            self.began = Instant::now();
        }
    }

    /// When the attempt under way began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// How long the attempt under way has taken.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The attempt is over, and counts.
    pub(super) fn failed(&mut self, ended: &Ended<'_>) {
        self.note(ended, true);
    }

    /// The attempt is over, and will be resent: as if it had not been.
    pub(super) fn resent(&mut self, ended: &Ended<'_>) {
        self.attempts -= 1;
        self.since_pushback -= 1;
        self.note(ended, false);
    }

    /// Puts all that is known into the call's error.
    pub(super) fn tell(&mut self, error: Error) -> Error {
        error
            .after_attempts(self.attempts)
            .with_history(std::mem::take(&mut self.history))
    }

    fn note(&mut self, ended: &Ended<'_>, counted: bool) {
        self.history.push(Attempt {
            endpoint: ended.endpoint.cloned(),
            stage: ended.stage,
            delivery: ended.delivery,
            code: ended.code,
            elapsed: self.began.elapsed(),
            counted,
        });
    }
}

impl<'a> Ended<'a> {
    /// An attempt that ended with this error; `endpoint` is the one picked last.
    pub(super) fn with(error: &Error, endpoint: Option<&'a Arc<str>>) -> Self {
        let stage = error.stage().unwrap_or(Stage::Response);
        Self {
            endpoint: endpoint.filter(|_| stage != Stage::Pick),
            stage,
            delivery: error.delivery(),
            code: error.code(),
        }
    }
}

/// The connection did not just break: the channel was closed, and with it the call.
pub(super) fn closed_under(lost: Error, endpoint: Option<&Arc<str>>) -> Error {
    let message = "the channel was closed while the call ran";
    let mut error = Error::new(Kind::Closed, Code::Unavailable, message)
        .in_stage(lost.stage().unwrap_or(Stage::Response))
        .delivered(lost.delivery());
    if let Some(endpoint) = endpoint {
        error = error.about(endpoint);
    }
    error.because(lost)
}
