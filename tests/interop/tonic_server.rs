//! The server of gRPC's interoperability tests, on tonic.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::transport::Server;
use tonic::{Code, Extensions, Request, Response, Status, Streaming, async_trait};
use tower::layer::layer_fn;
use trunkline_proto::foreign::journal_server::JournalServer;
use trunkline_proto::testing::test_service_server::{TestService, TestServiceServer};
use trunkline_proto::testing::{
    BoolValue, EchoStatus, Empty, ResponseParameters, SimpleRequest, SimpleResponse,
    StreamingInputCallRequest, StreamingInputCallResponse, StreamingOutputCallRequest,
    StreamingOutputCallResponse,
};

use super::tap::Log;
use super::target::zeros;
use super::tonic_layer::{Calls, Watch};
use super::volume::LARGEST;
use crate::support::incoming::Incoming;
use crate::support::place::Place;
use crate::support::thread::ServerThread;

/// A running server, on a thread of its own. Dropping it kills it.
#[derive(Debug)]
pub struct TonicServer {
    place: Place,
    _thread: ServerThread,
}

impl TonicServer {
    pub fn start(place: Place) -> Self {
        let listener = place.listen();
        let main = || async {
            let incoming = Incoming::new(listener.into_listener(), &Arc::default());
            let calls = Calls::default();
            let journal = JournalServer::new(calls.clone());
            let tests = TestServiceServer::new(Interop)
                .accept_compressed(Gzip)
                .send_compressed(Gzip)
                .max_decoding_message_size(LARGEST);
            Server::builder()
                .layer(layer_fn(move |routes| Watch::new(routes, calls.clone())))
                .add_service(tests)
                .add_service(journal)
                .serve_with_incoming(incoming)
                .await
                .expect("the server serves");
        };
        Self {
            _thread: ServerThread::start("interop", main),
            place,
        }
    }

    pub fn uri(&self) -> String {
        self.place.uri()
    }
}

#[derive(Debug)]
struct Interop;

type Responses = ReceiverStream<Result<StreamingOutputCallResponse, Status>>;

#[async_trait]
impl TestService for Interop {
    type StreamingOutputCallStream = Responses;
    type FullDuplexCallStream = Responses;

    async fn empty_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }

    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let (_, extensions, request) = request.into_parts();
        fail_if_asked(request.response_status)?;
        check_compression(&extensions, 0, request.expect_compressed)?;
        let mut response = Response::new(SimpleResponse {
            payload: zeros(request.response_size as usize),
        });
        if request.response_compressed == Some(BoolValue { value: false }) {
            response.disable_compression();
        }
        Ok(response)
    }

    /// Compressed as a whole if the client takes that: tonic has no choice for each message.
    async fn streaming_output_call(
        &self,
        request: Request<StreamingOutputCallRequest>,
    ) -> Result<Response<Responses>, Status> {
        let parts = request.into_inner().response_parameters;
        let (send, responses) = mpsc::channel(1);
        tokio::spawn(async move { respond(parts, &send).await });
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        let (_, extensions, mut messages) = request.into_parts();
        let mut total = 0;
        let mut nth = 0;
        while let Some(message) = messages.message().await? {
            check_compression(&extensions, nth, message.expect_compressed)?;
            total += message.payload.unwrap_or_default().body.len();
            nth += 1;
        }
        Ok(Response::new(StreamingInputCallResponse {
            aggregated_payload_size: total as i32,
        }))
    }

    async fn full_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let mut messages = request.into_inner();
        let (send, responses) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let asked = message.and_then(|it| {
                    fail_if_asked(it.response_status)?;
                    Ok(it.response_parameters)
                });
                match asked {
                    Ok(parts) => respond(parts, &send).await,
                    Err(status) => return drop(send.send(Err(status)).await),
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

/// Sends a response for each part, for as long as somebody takes them.
async fn respond(
    parts: Vec<ResponseParameters>,
    send: &mpsc::Sender<Result<StreamingOutputCallResponse, Status>>,
) {
    for part in parts {
        sleep(Duration::from_micros(part.interval_us as u64)).await;
        let payload = zeros(part.size as usize);
        let response = StreamingOutputCallResponse { payload };
        if send.send(Ok(response)).await.is_err() {
            return;
        }
    }
}

fn fail_if_asked(status: Option<EchoStatus>) -> Result<(), Status> {
    match status {
        Some(status) => Err(Status::new(Code::from(status.code), status.message)),
        None => Ok(()),
    }
}

/// Whether the request's message with this number came as it says it does.
fn check_compression(
    extensions: &Extensions,
    nth: usize,
    expected: Option<BoolValue>,
) -> Result<(), Status> {
    let log: &Log = extensions.get().expect("the layer put it there");
    match expected {
        Some(expected) if expected.value != log.compressed()[nth] => Err(Status::invalid_argument(
            format!("message {nth}: compressed should be {}", expected.value),
        )),
        _ => Ok(()),
    }
}
