//! One decision: the request it is for, who takes it, and the four ways it can end.

use std::borrow::Cow;
use std::fmt::Debug;
use std::time::Duration;

use http::{Extensions, HeaderMap};

/// Chooses an endpoint for each attempt, for as long as one set of endpoints lives.
///
/// Built by a [`Policy`](super::Policy), and called by many threads at once.
pub trait Picker: Send + Sync + Debug + 'static {
    /// Chooses the endpoint of one attempt.
    ///
    /// A pick is not always followed by an attempt: before a retry the endpoint is asked for whose answer there has to be time
    /// for, and the retry picks anew.
    ///
    /// Runs on the path of every call: it must not block, and should neither lock nor allocate. An
    /// index outside of the set fails the attempt.
    fn pick(&self, request: &PickRequest<'_>) -> Pick;
}

/// What a [`Picker`] decided. The four kinds are those of gRPC's load-balancing policies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub enum Pick {
    /// Use the endpoint with this index.
    Endpoint(usize),
    /// No endpoint is fit for this request now: ask again when the set changes, until the call's
    /// deadline. A call that does not wait for readiness fails as unavailable.
    Wait,
    /// Fail this attempt for the reason given. The retry rules decide whether another one follows.
    Fail(Cow<'static, str>),
    /// Fail the call for the reason given, without retries, even if it would wait for readiness:
    /// load is being shed.
    Drop(Cow<'static, str>),
}

/// What a picker may know of the attempt it chooses for. Only references: making one costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct PickRequest<'a> {
    path: &'a str,
    headers: &'a HeaderMap,
    extensions: &'a Extensions,
    attempt: u32,
    asked: u32,
    now: Duration,
}

impl<'a> PickRequest<'a> {
    /// The first attempt of a request.
    pub fn new(path: &'a str, headers: &'a HeaderMap, extensions: &'a Extensions) -> Self {
        Self {
            path,
            headers,
            extensions,
            attempt: 1,
            asked: 0,
            now: Duration::ZERO,
        }
    }

    /// The same request in its `attempt`-th try.
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// The same request, for which the picker was asked so often before.
    pub fn with_asked(mut self, asked: u32) -> Self {
        self.asked = asked;
        self
    }

    /// How many answers to this very request were no good, because those endpoints were tried before, or are not ready
    /// after all. Rules that always give the same answer to the same request give the next best one then.
    pub fn asked(&self) -> u32 {
        self.asked
    }

    /// The same request at this time.
    pub fn at(mut self, now: Duration) -> Self {
        self.now = now;
        self
    }

    /// The time: how long ago the channel was made.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The path of the request's URI; in gRPC the method's full name, `/package.Service/Method`.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The request's headers; in gRPC its metadata.
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// The request's extensions: values that the caller attached and that are never sent.
    pub fn extensions(&self) -> &'a Extensions {
        self.extensions
    }

    /// Which try of the call this is; the first one is 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}
