//! The one error of the crate: opaque, with questions to ask it and a full source chain.

use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tonic::{Code, Status};

use crate::history::{Attempt, History};

type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a call, a connection or a configuration failed.
///
/// Ask it with the `is_…` questions, [`delivery`](Self::delivery) and [`code`](Self::code); print it for
/// one sentence that says what happened where. Its [`source`](StdError::source) chain starts with the
/// [`tonic::Status`] that a generated client returns for it and goes on with the causes.
///
/// A generated client turns it into a [`Status`]. To get back from there:
/// `Error::from_status(&status)`.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: Kind,
    endpoint: Option<Arc<str>>,
    stage: Option<Stage>,
    delivery: Delivery,
    attempts: u32,
    history: History,
    code: Code,
    message: String,
    cause: Option<Arc<dyn StdError + Send + Sync>>,
    /// The above as a `Status`, made when somebody asks: tonic looks for one in the source chain.
    status: OnceLock<Status>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A setting is wrong.
    Config,
    /// No connection could be made.
    Connect,
    /// A time limit passed.
    Timeout,
    /// No stream became free in time, or too many calls were waiting for one.
    PoolWait,
    /// There is no endpoint that could take the call.
    NoEndpoint,
    /// The peer said that it did not process the call.
    Refused,
    /// The connection ended under the call.
    Disconnected,
    /// The peer reset the call, or broke the protocol.
    Protocol,
    /// The caller's own request could not be sent.
    Request,
    /// There was no token for the call, or it may not go where the call goes.
    Token,
    /// The picker dropped the call.
    Dropped,
    /// The channel is closed.
    Closed,
}

/// What is known about a failed attempt's request, and so about the safety of repeating it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// No part of the request reached the peer's application: it was never written, or the peer's GOAWAY
    /// says that it was not looked at. Repeating it is safe.
    NotSent,
    /// The peer got the request and says that it did not process it (`REFUSED_STREAM`). Repeating is safe.
    Refused,
    /// The request may have been processed: there was no answer, or a proxy's that does not know (HTTP 502, 504). Only an
    /// idempotent call may be repeated.
    MaybeProcessed,
    /// The peer's application answered.
    Answered,
}

/// How far an attempt had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Turning a host name into addresses.
    Resolve,
    /// Opening the socket.
    Connect,
    /// The HTTP/2 handshake, until the peer's SETTINGS frame.
    Handshake,
    /// Choosing an endpoint.
    Pick,
    /// Waiting for a free stream on a connection of the endpoint.
    Pool,
    /// Sending the request.
    Send,
    /// Waiting for the response's headers.
    Response,
    /// Reading the response's body and trailers.
    Body,
}

impl Error {
    /// The error inside a status that a generated client returned, if the status came from this crate.
    #[must_use]
    pub fn from_status(status: &Status) -> Option<&Self> {
        let mut cause = status.source();
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            cause = error.source();
        }
        None
    }

    /// A setting was rejected; the message names the field and the fix.
    #[must_use]
    pub fn is_config(&self) -> bool {
        self.kind() == Kind::Config
    }

    /// No connection could be made to the endpoint.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        self.kind() == Kind::Connect
    }

    /// A time limit passed: the call's deadline, the limit on one attempt
    /// ([`Retry::per_try_timeout`](crate::Retry::per_try_timeout)), or that of
    /// [`connect`](crate::Connector::connect).
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.kind() == Kind::Timeout
    }

    /// All streams of the endpoint were taken, and none became free within the limit on waiting, or too
    /// many calls were waiting already, for that or for an endpoint to be ready.
    #[must_use]
    pub fn is_pool_wait(&self) -> bool {
        self.kind() == Kind::PoolWait
    }

    /// No endpoint could take the call: none is known, all are drained, or all have failed.
    #[must_use]
    pub fn is_no_endpoint(&self) -> bool {
        self.kind() == Kind::NoEndpoint
    }

    /// The peer refused the call before processing it.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.kind() == Kind::Refused
    }

    /// The connection ended while the call was on it.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        self.kind() == Kind::Disconnected
    }

    /// The peer reset the call or broke the protocol.
    #[must_use]
    pub fn is_protocol(&self) -> bool {
        self.kind() == Kind::Protocol
    }

    /// There was no token for the call, or it may not be sent where the call goes; see
    /// [`Credentials`](crate::Credentials).
    #[must_use]
    pub fn is_token(&self) -> bool {
        self.kind() == Kind::Token
    }

    /// The picker dropped the call on purpose.
    #[must_use]
    pub fn is_dropped(&self) -> bool {
        self.kind() == Kind::Dropped
    }

    /// The channel was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.kind() == Kind::Closed
    }

    /// Whether the call may have been processed, in any of its attempts: `false` proves that it was not.
    #[must_use]
    pub fn maybe_processed(&self) -> bool {
        matches!(
            self.inner.delivery,
            Delivery::MaybeProcessed | Delivery::Answered
        )
    }

    /// What is known about the request, all attempts taken together: `NotSent` and `Refused` hold for each.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.inner.delivery
    }

    /// The gRPC status code of this case, as gRPC's `statuscodes.md` and `PROTOCOL-HTTP2.md` give it.
    #[must_use]
    pub fn code(&self) -> Code {
        self.inner.code
    }

    /// The endpoint it concerns, as its address is written.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.inner.endpoint.as_deref()
    }

    /// How far the last attempt had come.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        self.inner.stage
    }

    /// How many attempts were made. Resends of provably unsent work are not counted.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.inner.attempts
    }

    /// What became of each attempt, resends included: the last 16, oldest first. Empty if the call made none,
    /// and for errors that concern no call.
    #[must_use]
    pub fn history(&self) -> &[Attempt] {
        &self.inner.history
    }

    pub(crate) fn new(kind: Kind, code: Code, message: impl Into<String>) -> Self {
        Self {
            inner: Box::new(Inner {
                kind,
                endpoint: None,
                stage: None,
                delivery: Delivery::NotSent,
                attempts: 0,
                history: History::default(),
                code,
                message: message.into(),
                cause: None,
                status: OnceLock::new(),
            }),
        }
    }

    /// A wrong setting: the field, what is wrong with it, and what to do.
    pub(crate) fn config(field: &str, problem: impl fmt::Display) -> Self {
        Self::new(
            Kind::Config,
            Code::InvalidArgument,
            format!("{field}: {problem}"),
        )
    }

    /// The request's own body failed with this status; it goes back to the caller as it is.
    pub(crate) fn request_body(status: Status) -> Self {
        let error = Self::new(Kind::Request, status.code(), status.message());
        error.inner.status.get_or_init(|| status);
        error.in_stage(Stage::Send)
    }

    pub(crate) fn kind(&self) -> Kind {
        self.inner.kind
    }

    pub(crate) fn message(&self) -> &str {
        &self.inner.message
    }

    pub(crate) fn because(mut self, cause: impl Into<BoxError>) -> Self {
        self.inner.cause = Some(Arc::from(cause.into()));
        self
    }

    pub(crate) fn with_message(mut self, message: String) -> Self {
        self.inner.message = message;
        self
    }

    pub(crate) fn in_stage(mut self, stage: Stage) -> Self {
        self.inner.stage = Some(stage);
        self
    }

    pub(crate) fn delivered(mut self, delivery: Delivery) -> Self {
        self.inner.delivery = delivery;
        self
    }

    /// Names the endpoint, in the field and at the head of the message. The first to name it wins.
    pub(crate) fn at(mut self, endpoint: &Arc<str>) -> Self {
        if self.inner.endpoint.is_none() {
            self.inner.message = format!("{endpoint}: {}", self.inner.message);
            self.inner.endpoint = Some(Arc::clone(endpoint));
        }
        self
    }

    /// Names the endpoint in the field only.
    pub(crate) fn about(mut self, endpoint: &Arc<str>) -> Self {
        self.inner.endpoint = Some(Arc::clone(endpoint));
        self
    }

    /// Says why the call was not repeated, where that is not plain.
    pub(crate) fn given_up(mut self, why: Option<&str>) -> Self {
        if let Some(why) = why {
            let _ = write!(self.inner.message, "; not retried: {why}");
        }
        self
    }

    /// Says how many attempts were made, in the field and, when there were several, in the message.
    pub(crate) fn after_attempts(mut self, attempts: u32) -> Self {
        self.inner.attempts = attempts;
        if attempts > 1 {
            let _ = write!(self.inner.message, " (after {attempts} attempts)");
        }
        self
    }

    pub(crate) fn with_history(mut self, history: History) -> Self {
        self.inner.history = history;
        self
    }

    fn status(&self) -> &Status {
        self.inner.status.get_or_init(|| {
            let mut status = Status::new(self.inner.code, self.inner.message.as_str());
            if let Some(cause) = &self.inner.cause {
                status.set_source(Arc::clone(cause));
            }
            status
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("code", &self.inner.code)
            .field("message", &self.inner.message)
            .field("endpoint", &self.inner.endpoint)
            .field("stage", &self.inner.stage)
            .field("delivery", &self.inner.delivery)
            .field("attempts", &self.inner.attempts)
            .field("history", &self.history())
            .field("cause", &self.inner.cause)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self.status())
    }
}

/// The one place where an error becomes a status. A generated client gets the same result by itself,
/// because it finds the status in the source chain.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut status = Self::with_details_and_metadata(
            error.status().code(),
            error.status().message(),
            Bytes::copy_from_slice(error.status().details()),
            error.status().metadata().clone(),
        );
        status.set_source(Arc::new(error));
        status
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Handshake => "handshake",
            Self::Pick => "pick",
            Self::Pool => "pool",
            Self::Send => "send",
            Self::Response => "response",
            Self::Body => "body",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Error {
        Error::new(Kind::Disconnected, Code::Unavailable, "connection reset")
            .because(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
            .delivered(Delivery::MaybeProcessed)
            .at(&Arc::from("10.0.0.1:80"))
    }

    #[test]
    fn tonic_finds_the_status_and_the_way_back() {
        for status in [Status::from(lost()), Status::from_error(Box::new(lost()))] {
            assert_eq!(status.code(), Code::Unavailable);
            assert_eq!(status.message(), "10.0.0.1:80: connection reset");
            let error = Error::from_status(&status).expect("our error in the chain");
            assert!(error.maybe_processed() && error.is_disconnected());
            assert_eq!(error.endpoint(), Some("10.0.0.1:80"));
        }
    }

    #[test]
    fn the_source_chain_ends_at_the_cause() {
        let error = lost();
        let mut chain: Vec<&dyn StdError> = vec![&error];
        while let Some(next) = chain.last().copied().and_then(|e| e.source()) {
            chain.push(next);
            assert!(chain.len() < 10, "the chain must end");
        }
        assert!(chain.last().is_some_and(|e| e.is::<std::io::Error>()));
    }

    #[test]
    fn a_request_body_error_goes_back_unchanged() {
        let mut own = Status::new(Code::OutOfRange, "caller's own");
        own.metadata_mut().insert("key", "value".parse().unwrap());
        let status = Status::from_error(Box::new(Error::request_body(own)));
        assert_eq!(
            (status.code(), status.message()),
            (Code::OutOfRange, "caller's own")
        );
        assert_eq!(status.metadata().get("key").unwrap(), "value");
    }

    #[test]
    fn attempts_are_named_once_there_were_several() {
        assert_eq!(
            lost().after_attempts(1).to_string(),
            "10.0.0.1:80: connection reset"
        );
        let error = lost().after_attempts(3);
        assert_eq!(
            error.to_string(),
            "10.0.0.1:80: connection reset (after 3 attempts)"
        );
        assert_eq!(error.attempts(), 3);
    }
}
