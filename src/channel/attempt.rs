//! One try of a call: the request as this endpoint gets it, sent on a leased slot.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, USER_AGENT};
use http::uri::{PathAndQuery, Scheme};
use http::{Extensions, HeaderMap, Method, Request, Response, Uri, Version, request};
use http_body::Body;
use tonic::Status;

use crate::balance::PickRequest;
use crate::classify::Outcome;
use crate::deadline::format_timeout;
use crate::endpoint::Subchannel;
use crate::error::{Error, Kind};
use crate::pool::Lease;
use crate::task::Tasks;
use crate::time::Instant;
use crate::transport::connection::Incoming;

use super::options::TimeLimit;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
const USER_AGENT_VALUE: HeaderValue =
    HeaderValue::from_static(concat!("trunkline/", env!("CARGO_PKG_VERSION")));

/// A request without its body, to make each attempt's request from.
#[derive(Debug)]
pub(super) struct Head {
    method: Method,
    path: PathAndQuery,
    headers: HeaderMap,
    is_grpc: bool,
}

impl Head {
    pub(super) fn new(parts: request::Parts) -> Self {
        let mut headers = parts.headers;
        let is_grpc = headers
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        headers.entry(USER_AGENT).or_insert(USER_AGENT_VALUE);
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

    /// The request for one endpoint, with the time that is left, after so many attempts (gRFC A6).
    fn to_request(
        &self,
        subchannel: &Subchannel,
        limit: Option<&TimeLimit>,
        previous_attempts: u32,
    ) -> Result<Request<()>, Error> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
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
        if let Some(limit) = limit.filter(|_| self.is_grpc) {
            request
                .headers_mut()
                .insert(GRPC_TIMEOUT, limit.remaining_header());
        }
        if previous_attempts > 0 && self.is_grpc {
            let attempts = HeaderValue::from(previous_attempts);
            request.headers_mut().insert(PREVIOUS_ATTEMPTS, attempts);
        }
        Ok(request)
    }

    /// What a picker may look at.
    pub(super) fn pick_request<'a>(&'a self, extensions: &'a Extensions) -> PickRequest<'a> {
        PickRequest::new(self.path(), &self.headers, extensions)
    }

    pub(super) async fn send<B>(
        &self,
        body: B,
        subchannel: &Subchannel,
        lease: &Lease,
        limit: Option<&TimeLimit>,
        previous_attempts: u32,
        tasks: &Tasks,
    ) -> Result<Response<Incoming>, Error>
    where
        B: Body<Data = Bytes, Error = Status> + Send + Unpin + 'static,
    {
        let request = self.to_request(subchannel, limit, previous_attempts)?;
        let exchanged = lease.connection().exchange(request, body, tasks).await;
        exchanged.map_err(|error| error.at(&subchannel.name))
    }
}

/// The status, if the response is nothing else: such a response is not a commitment (gRFC A6).
pub(super) fn trailers_only(response: &Response<Incoming>) -> Option<Outcome> {
    http_body::Body::is_end_stream(response.body())
        .then(|| Outcome::of_headers(response.headers()))
        .flatten()
}

impl TimeLimit {
    /// The time that is left, as a header. The original one while it is at most 1/1000 off.
    fn remaining_header(&self) -> HeaderValue {
        let left = self.deadline.remaining(Instant::now());
        match &self.header {
            Some(header) if self.timeout.saturating_sub(left) < self.timeout / 1000 => {
                header.clone()
            }
            _ => HeaderValue::try_from(format_timeout(left))
                .unwrap_or(HeaderValue::from_static("1n")),
        }
    }
}
