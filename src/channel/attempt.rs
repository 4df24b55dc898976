//! One try of a call: the request as this endpoint gets it, and what its answer means.

use std::time::Duration;

use http::header::{AUTHORIZATION, Entry, HeaderName, HeaderValue, USER_AGENT};
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, Uri, Version, request};

use crate::balance::PickRequest;
use crate::classify::{Outcome, is_grpc};
use crate::deadline::format_timeout;
use crate::endpoint::Subchannel;
use crate::error::{Error, Kind};
use crate::time::Instant;
use crate::transport::connection::Incoming;

use super::options::{GRPC_TIMEOUT, TimeLimit};

static PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
const USER_AGENT_VALUE: HeaderValue =
    HeaderValue::from_static(concat!("trunkline/", env!("CARGO_PKG_VERSION")));

/// A request without its body, to make each attempt's request from.
#[derive(Clone, Debug)]
pub(super) struct Head {
    method: Method,
    path: PathAndQuery,
    headers: HeaderMap,
    is_grpc: bool,
}

impl Head {
    pub(super) fn new(parts: request::Parts, limit: Option<&TimeLimit>) -> Self {
        let mut headers = parts.headers;
        let is_grpc = headers.get(http::header::CONTENT_TYPE).is_some_and(is_grpc);
        headers.entry(USER_AGENT).or_insert(USER_AGENT_VALUE);
        if let Entry::Occupied(mut own) = headers.entry(AUTHORIZATION) {
            // The caller's own is as secret as the channel's token: no HPACK table is to have it.
            own.iter_mut().for_each(|it| it.set_sensitive(true));
        }
        if let Some(limit) = limit.filter(|_| is_grpc) {
            // Now, because the copy of a header map has no room for more.
            headers.insert(&GRPC_TIMEOUT, limit.whole_header());
        }
        Self {
            method: parts.method,
            path: parts
                .uri
                .into_parts()
                .path_and_query
                .unwrap_or(PathAndQuery::from_static("/")),
            headers,
            is_grpc,
        }
    }

    pub(super) fn path(&self) -> &str {
        self.path.path()
    }

    /// Whether HTTP says so of the request's method. Of gRPC's, POST, it does not.
    pub(super) fn is_idempotent(&self) -> bool {
        self.method.is_idempotent()
    }

    /// The time that is left, as the server is to be told it; `None` while that is next to all of it, as its headers say.
    pub(super) fn rest(&self, limit: Option<&TimeLimit>) -> Option<HeaderValue> {
        limit.filter(|_| self.is_grpc)?.rest_header()
    }

    /// The request for one endpoint, with the time that is left, after so many attempts (gRFC A6).
    pub(super) fn to_request(
        &self,
        subchannel: &Subchannel,
        remaining: Option<HeaderValue>,
        previous_attempts: u32,
        token: Option<&HeaderValue>,
    ) -> Result<Request<()>, Error> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(subchannel.scheme.clone());
        uri.authority = Some(subchannel.authority.clone());
        uri.path_and_query = Some(self.path.clone());
        let mut request = Request::new(());
        *request.uri_mut() = Uri::from_parts(uri).map_err(|problem| {
            let message = format!("the request's path can't be sent: {problem}");
            Error::new(Kind::Request, tonic::Code::Internal, message).because(problem)
        })?;
        *request.method_mut() = self.method.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers.clone();
        if let Some(remaining) = remaining {
            request.headers_mut().insert(&GRPC_TIMEOUT, remaining);
        }
        if previous_attempts > 0 && self.is_grpc {
            let attempts = HeaderValue::from(previous_attempts);
            request.headers_mut().insert(&PREVIOUS_ATTEMPTS, attempts);
        }
        if let Some(token) = token {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        Ok(request)
    }

    /// The caller has seen to it.
    pub(super) fn has_authorization(&self) -> bool {
        self.headers.contains_key(AUTHORIZATION)
    }

    /// What the attempt led to, if the response's head says so: it is a status and nothing else (Trailers-Only), or no gRPC
    /// response to a gRPC request. Neither is a commitment (gRFC A6).
    pub(super) fn ended_by(&self, response: &Response<Incoming>) -> Option<Outcome> {
        let (status, headers) = (response.status(), response.headers());
        if http_body::Body::is_end_stream(response.body())
            && let Some(outcome) = Outcome::of_headers(headers)
        {
            return Some(outcome);
        }
        Outcome::of_go_between(status, headers).filter(|_| self.is_grpc)
    }

    /// What a picker may look at.
    pub(super) fn pick_request<'a>(&'a self, extensions: &'a Extensions) -> PickRequest<'a> {
        PickRequest::new(self.path(), &self.headers, extensions)
    }
}

/// Whether the token of a request that is not gRPC was refused.
pub(super) fn is_unauthorized(response: &Response<Incoming>) -> bool {
    response.status() == StatusCode::UNAUTHORIZED
}

impl TimeLimit {
    /// All of the time, as a header.
    fn whole_header(&self) -> HeaderValue {
        self.header.clone().unwrap_or_else(|| header(self.timeout))
    }

    /// The time that is left, as a header; `None` while that is at most 1/1000 less than all of it.
    fn rest_header(&self) -> Option<HeaderValue> {
        let left = self.deadline.remaining(Instant::now());
        let is_whole = self.timeout.saturating_sub(left) < self.timeout / 1000;
        (!is_whole).then(|| header(left))
    }
}

fn header(timeout: Duration) -> HeaderValue {
    HeaderValue::try_from(format_timeout(timeout)).unwrap_or(HeaderValue::from_static("1n"))
}
