//! What became of each attempt of a call.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tonic::Code;

use crate::error::{Delivery, Stage};

/// As many attempts are kept as a call may make. Only resends can be more; then the oldest are forgotten.
const KEPT: usize = 16;

/// One attempt of a call that did not lead to the call's response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub(crate) endpoint: Option<Arc<str>>,
    pub(crate) stage: Stage,
    pub(crate) delivery: Delivery,
    pub(crate) code: Code,
    pub(crate) elapsed: Duration,
    pub(crate) counted: bool,
}

/// The attempts of a call, oldest first.
///
/// A response that took more than one attempt carries the failed ones as an extension:
///
/// ```
/// # fn show(response: http::Response<trunkline::ResponseBody>) {
/// if let Some(history) = response.extensions().get::<trunkline::History>() {
///     for attempt in history.iter() {
///         println!("{:?} {:?}", attempt.endpoint(), attempt.delivery());
///     }
/// }
/// # }
/// ```
///
/// Under a generated client it is in the extensions of the `tonic::Response`. That client drops the
/// extensions of a response with an error status; a [`Channel::send`](crate::Channel::send) does not. Where
/// there is no response, [`Error::history`](crate::Error::history) has it.
///
/// The last 16 are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(Vec<Attempt>);

impl Attempt {
    /// The endpoint that was picked, as its address is written; `None` if there was none to pick.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// How far the attempt came.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// What is known about the request.
    #[must_use]
    pub const fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// The status: the peer's if it answered, else the one that the failure stands for.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// How long it took to its end, the waits for an endpoint and for a stream included, and the backoff
    /// before it not.
    #[must_use]
    pub const fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Whether it counts as one of the call's attempts: not if it was resent for free.
    #[must_use]
    pub const fn counted(&self) -> bool {
        self.counted
    }
}

impl History {
    pub(crate) fn push(&mut self, attempt: Attempt) {
        if self.0.len() == KEPT {
            self.0.remove(0);
        }
        self.0.push(attempt);
    }
}

impl Deref for History {
    type Target = [Attempt];

    fn deref(&self) -> &[Attempt] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept() {
        let mut history = History::default();
        for millis in 0..20 {
            history.push(Attempt {
                endpoint: None,
                stage: Stage::Pick,
                delivery: Delivery::NotSent,
                code: Code::Unavailable,
                elapsed: Duration::from_millis(millis),
                counted: false,
            });
        }
        let kept: Vec<_> = history.iter().map(|it| it.elapsed().as_millis()).collect();
        assert_eq!(kept, (4..20).collect::<Vec<_>>());
    }
}
