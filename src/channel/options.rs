//! What one call may choose for itself.

use std::time::Duration;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use tonic::Code;

use crate::deadline::{Deadline, parse_timeout};
use crate::time::Instant;

/// gRPC's deadline, as the time that is left.
pub(super) static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Options of one call, as a request extension. They go before the channel's.
///
/// ```
/// use std::time::Duration;
/// use trunkline::CallOptions;
///
/// let mut request = tonic::Request::new(());
/// request
///     .extensions_mut()
///     .insert(CallOptions::new().wait_for_ready(true).timeout(Duration::from_secs(5)));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct CallOptions {
    wait_for_ready: Option<bool>,
    /// `Some(None)`: no time limit.
    timeout: Option<Option<Duration>>,
    idempotent: Option<bool>,
}

/// What holds for calls that say nothing.
#[derive(Clone, Debug)]
pub(crate) struct CallDefaults {
    pub(crate) timeout: Option<Duration>,
    /// `timeout` as a `grpc-timeout` header.
    pub(crate) timeout_header: Option<HeaderValue>,
    pub(crate) wait_for_ready: bool,
    /// How long nothing may be fit to be picked before calls no longer wait for it.
    pub(crate) fail_fast_after: Duration,
    /// How many calls may wait for an endpoint.
    pub(crate) max_waiting: usize,
}

impl CallOptions {
    /// No options: the channel's apply.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to wait while no endpoint is ready (until the deadline), or to fail once all of them have
    /// failed. Default: the channel's ([`Connector::wait_for_ready`](crate::Connector::wait_for_ready)).
    #[must_use]
    pub fn wait_for_ready(mut self, yes: bool) -> Self {
        self.wait_for_ready = Some(yes);
        self
    }

    /// Whether processing this call twice does no more than processing it once, whatever the method's
    /// [policy](crate::Retry::idempotent) says. Default: what that says.
    #[must_use]
    pub fn idempotent(mut self, yes: bool) -> Self {
        self.idempotent = Some(yes);
        self
    }

    /// The time limit of the whole call, to the end of its response. A `grpc-timeout` header, which
    /// `tonic::Request::set_timeout` sets, counts too: the shorter one holds. Default: the channel's, where there is no
    /// such header. Any time: 0 fails at once, and more than 30 years are 30.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(Some(timeout));
        self
    }

    /// No time limit, for streams that stay open. A `grpc-timeout` header still counts.
    #[must_use]
    pub fn no_timeout(mut self) -> Self {
        self.timeout = Some(None);
        self
    }
}

/// The time limit of one call.
#[derive(Clone, Debug)]
pub(super) struct TimeLimit {
    pub(super) timeout: Duration,
    pub(super) deadline: Deadline,
    /// As the header says it while next to no time has passed; saves making one.
    pub(super) header: Option<HeaderValue>,
}

impl TimeLimit {
    /// Whether a call that ended with `code` ended for lack of time. A server to which the deadline was told
    /// may be first to end the call, and says CANCELLED; grpc-go and grpc-java too report their own deadline
    /// then.
    pub(super) fn explains(&self, code: Code) -> bool {
        code == Code::Cancelled && self.has_passed()
    }

    /// Whether an answer with that code came because the call's time is over.
    pub(super) fn is_behind(&self, code: Code) -> bool {
        matches!(code, Code::Cancelled | Code::DeadlineExceeded) && self.has_passed()
    }

    pub(super) fn has_passed(&self) -> bool {
        self.deadline.remaining(Instant::now()).is_zero()
    }
}

/// What applies to one call.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) limit: Option<TimeLimit>,
    pub(super) wait_for_ready: bool,
    /// The call's own word; `None`: its method's holds.
    pub(super) idempotent: Option<bool>,
}

impl CallDefaults {
    pub(super) fn settings(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
        now: Instant,
    ) -> Settings {
        let own = extensions.get::<CallOptions>().copied().unwrap_or_default();
        let sent = headers
            .get(&GRPC_TIMEOUT)
            .and_then(|header| Some((parse_timeout(header)?, header.clone())));
        let chosen = match own.timeout {
            Some(chosen) => chosen.map(|timeout| (timeout, None)),
            None if sent.is_some() => None,
            None => self
                .timeout
                .map(|timeout| (timeout, self.timeout_header.clone())),
        };
        let sent = sent.map(|(timeout, header)| (timeout, Some(header)));
        let shorter = match (chosen, sent) {
            (Some(chosen), Some(sent)) if chosen.0 < sent.0 => Some(chosen),
            (Some(chosen), None) => Some(chosen),
            (_, sent) => sent,
        };
        Settings {
            limit: shorter.map(|(timeout, header)| TimeLimit {
                timeout,
                deadline: Deadline::after(now, timeout),
                header,
            }),
            wait_for_ready: own.wait_for_ready.unwrap_or(self.wait_for_ready),
            idempotent: own.idempotent,
        }
    }
}
