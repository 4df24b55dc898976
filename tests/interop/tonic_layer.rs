//! What the interoperability server does around tonic's services: it keeps the journal of the calls, and sends back the
//! metadata that it is asked to send back. Tonic's services can't add trailers to a good answer.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderName, Request, Response};
use tonic::body::Body;
use tonic::{Status, async_trait};
use tower::Service;
use trunkline_proto::foreign::journal_server::Journal;
use trunkline_proto::foreign::{Call, CallsReply, CallsRequest, End as CallEnd};

use super::tap::{End, Log, Mark, Tapped};

const PREFIX: &str = "/grpc.testing.TestService/";
const INITIAL: HeaderName = HeaderName::from_static("x-grpc-test-echo-initial");
const TRAILING: HeaderName = HeaderName::from_static("x-grpc-test-echo-trailing-bin");

/// The calls of the test service, each with its response.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<Mutex<Vec<(Call, Log)>>>);

impl Calls {
    fn begin(&self, method: &str, headers: &HeaderMap) -> Mark {
        let call = Call {
            method: method.to_owned(),
            remaining_ms: headers.get("grpc-timeout").map_or(0, |header| {
                let timeout = timeout(header.to_str().unwrap());
                (timeout.as_millis() as u64).max(1)
            }),
            end: CallEnd::Open.into(),
            case: headers
                .get("x-case")
                .map_or_else(String::new, |header| header.to_str().unwrap().to_owned()),
        };
        let log = Log::default();
        self.0.lock().unwrap().push((call, log.clone()));
        Mark(log)
    }
}

#[async_trait]
impl Journal for Calls {
    async fn calls(
        &self,
        _: tonic::Request<CallsRequest>,
    ) -> Result<tonic::Response<CallsReply>, Status> {
        let calls = self.0.lock().unwrap();
        let calls = calls.iter().map(|(call, log)| {
            let end = match log.read().end {
                End::Open => CallEnd::Open,
                End::Complete => CallEnd::Finished,
                End::Dropped => CallEnd::Cancelled,
            };
            Call {
                end: end.into(),
                ..call.clone()
            }
        });
        Ok(tonic::Response::new(CallsReply {
            calls: calls.collect(),
        }))
    }
}

/// The layer's service.
#[derive(Clone, Debug)]
pub struct Watch<S> {
    routes: S,
    calls: Calls,
}

impl<S> Watch<S> {
    pub fn new(routes: S, calls: Calls) -> Self {
        Self { routes, calls }
    }
}

impl<S> Service<Request<Body>> for Watch<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.routes.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Some(method) = request.uri().path().strip_prefix(PREFIX) else {
            return Box::pin(self.routes.call(request));
        };
        let mark = self.calls.begin(method, request.headers());
        let asked = |name: HeaderName| {
            let value = request.headers().get(&name).cloned();
            HeaderMap::from_iter(value.map(|value| (name, value)))
        };
        let (initial, trailing) = (asked(INITIAL), asked(TRAILING));
        let log = Log::default();
        request.extensions_mut().insert(log.clone());
        let answering = self
            .routes
            .call(request.map(|body| Body::new(Tapped::new(body, Mark(log)))));
        Box::pin(async move {
            let mut response = answering.await?;
            response.headers_mut().extend(initial);
            Ok(response.map(|body| Body::new(Tapped::new(body, mark).with_trailers(trailing))))
        })
    }
}

/// What a `grpc-timeout` header says.
fn timeout(header: &str) -> Duration {
    let (digits, unit) = header.split_at(header.len() - 1);
    let number: u64 = digits.parse().unwrap();
    match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => panic!("{header}"),
    }
}
