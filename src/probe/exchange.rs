//! One request over a pool's own connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, TE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, Uri, Version};
use http_body::{Body, Frame};
use tonic::{Code, Status};

use crate::classify::Outcome;
use crate::endpoint::Subchannel;
use crate::error::Error;
use crate::pool::Lease;
use crate::transport::connection::Incoming;

use super::scheduler::Means;
use super::wire::{self, Responses, Word};

const USER_AGENT_VALUE: HeaderValue =
    HeaderValue::from_static(concat!("trunkline/", env!("CARGO_PKG_VERSION")));
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const CHECK: PathAndQuery = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
const WATCH: PathAndQuery = PathAndQuery::from_static("/grpc.health.v1.Health/Watch");

/// Why there is no answer of the health service.
#[derive(Debug)]
pub(super) enum Silence {
    /// The server has no such method.
    Unimplemented,
    /// It does not let this client ask, or this client has no token to ask with.
    Forbidden(String),
    /// It does not know the service whose health was asked for.
    ServiceUnknown,
    /// The server's own watch over the time that the question had: no answer, told by the server.
    Late,
    /// The answer broke off, or never began.
    Broken(String),
    /// It is another answer than one about health.
    Failed(String),
}

/// What a health service says, as it says it.
#[derive(Debug)]
pub(super) struct Statements {
    body: Incoming,
    responses: Responses,
}

/// Asks once. The caller limits the time: the stream is reset then, which the server sees, too. Told of the limit, it might
/// answer that it is over, which is no answer.
pub(super) async fn check(
    subchannel: &Subchannel,
    means: &Means,
    lease: &Lease,
    service: &str,
) -> Result<Word, Silence> {
    let mut statements = ask(subchannel, means, lease, CHECK, service).await?;
    let answer = statements.next().await?;
    // To the end: the stream is not reset then, and the status has the last word. (grpcio sends a message before
    // NOT_FOUND.)
    while statements.next().await?.is_some() {}
    answer.ok_or_else(|| Silence::Failed("the health service sent no answer".to_owned()))
}

/// Asks to be told.
pub(super) async fn watch(
    subchannel: &Subchannel,
    means: &Means,
    lease: &Lease,
    service: &str,
) -> Result<Statements, Silence> {
    ask(subchannel, means, lease, WATCH, service).await
}

async fn ask(
    subchannel: &Subchannel,
    means: &Means,
    lease: &Lease,
    path: PathAndQuery,
    service: &str,
) -> Result<Statements, Silence> {
    let mut request = head(subchannel, Method::POST, path).map_err(broken)?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert(TE, TRAILERS);
    if let Some(token) = means.token(subchannel).await? {
        headers.insert(AUTHORIZATION, token);
    }
    let body = Once(Some(wire::request(service)));
    let exchange = lease.connection().exchange(request, body, &means.tasks);
    let response = exchange.await.map_err(broken)?;
    let (status, headers) = (response.status(), response.headers());
    if let Some(outcome) = Outcome::of_headers(headers) {
        silence_of(outcome.code, headers)?;
    }
    // As of a call: 404 is `UNIMPLEMENTED`, 401 and 403 forbid to ask.
    if let Some(outcome) = Outcome::of_go_between(status, headers) {
        return Err(match silence_of(outcome.code, headers) {
            Err(Silence::Failed(_)) | Ok(()) => {
                Silence::Failed(format!("the server answered HTTP {status}"))
            }
            Err(silence) => silence,
        });
    }
    Ok(Statements {
        body: response.into_body(),
        responses: Responses::default(),
    })
}

/// Gets a path. The caller limits the time.
pub(super) async fn get(
    subchannel: &Subchannel,
    means: &Means,
    lease: &Lease,
    path: &str,
) -> Result<Response<()>, Error> {
    let path = PathAndQuery::try_from(path).map_err(|wrong| Error::config("path", wrong))?;
    let request = head(subchannel, Method::GET, path)?;
    let connection = lease.connection();
    let response = connection.exchange(request, Once(None), &means.tasks);
    Ok(response.await?.map(drop))
}

fn head(subchannel: &Subchannel, method: Method, path: PathAndQuery) -> Result<Request<()>, Error> {
    let uri = Uri::builder()
        .scheme(subchannel.scheme.clone())
        .authority(subchannel.authority.clone())
        .path_and_query(path)
        .build();
    let mut request = Request::new(());
    *request.uri_mut() = uri.map_err(|wrong| Error::config("path", wrong))?;
    *request.method_mut() = method;
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().insert(USER_AGENT, USER_AGENT_VALUE);
    Ok(request)
}

impl Statements {
    /// The next one; `None` once the server has no more to say.
    ///
    /// Cancel safety: nothing is lost.
    pub(super) async fn next(&mut self) -> Result<Option<Word>, Silence> {
        loop {
            let whole = self.responses.next();
            if let Some(found) = whole.map_err(|why| Silence::Failed(why.to_owned()))? {
                return Ok(Some(found));
            }
            let body = &mut self.body;
            let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
            let frame = match frame {
                None => return Ok(None),
                Some(frame) => frame.map_err(broken)?,
            };
            match frame.into_data() {
                Ok(data) => self.responses.push(&data),
                Err(rest) => {
                    let trailers = rest.into_trailers().unwrap_or_default();
                    if let Some(outcome) = Outcome::of_headers(&trailers) {
                        silence_of(outcome.code, &trailers)?;
                    }
                }
            }
        }
    }
}

/// What it means that the health service ends with this code.
fn silence_of(code: Code, headers: &http::HeaderMap) -> Result<(), Silence> {
    Err(match code {
        Code::Ok => return Ok(()),
        Code::Unimplemented => Silence::Unimplemented,
        Code::NotFound => Silence::ServiceUnknown,
        Code::Unauthenticated | Code::PermissionDenied => Silence::Forbidden(format!("{code:?}")),
        // Tonic's servers say CANCELLED when the time is over.
        Code::DeadlineExceeded | Code::Cancelled => Silence::Late,
        code => {
            let status = Status::from_header_map(headers);
            let message = status.map(|it| it.message().to_owned());
            let message = message.filter(|it| !it.is_empty());
            let why = match message {
                Some(message) => format!("the health service answered {code:?}: {message}"),
                None => format!("the health service answered {code:?}"),
            };
            Silence::Failed(why)
        }
    })
}

fn broken(error: Error) -> Silence {
    Silence::Broken(error.message().to_owned())
}

/// A body of one piece.
struct Once(Option<Bytes>);

impl Body for Once {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

/// What the token holder brings for a probe.
impl Means {
    async fn token(&self, subchannel: &Subchannel) -> Result<Option<HeaderValue>, Silence> {
        let Some(holder) = &self.token else {
            return Ok(None);
        };
        if !subchannel.private && !holder.allows_plaintext() {
            return Ok(None);
        }
        match Arc::clone(holder).get().await {
            Ok(held) => Ok(Some(held.value.clone())),
            Err(error) => Err(Silence::Forbidden(error.message().to_owned())),
        }
    }
}
