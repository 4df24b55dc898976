//! Calls of the echo service through the crate.

use http::Request;
use http_body_util::Full;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::body::Body;
use trunkline::{CallOptions, Channel, Endpoint};
use trunkline_proto::echo_client::EchoClient;
use trunkline_proto::{EchoReply, EchoRequest, Message};

use crate::support::calls::request;
use crate::support::response;
use crate::support::server::EchoServer;

/// The server as an endpoint.
pub fn endpoint(server: &EchoServer) -> Endpoint {
    Endpoint::uri(server.uri())
}

/// A unary call that is answered at once.
pub async fn unary(channel: &Channel, id: u64) -> Result<EchoReply, Status> {
    ask(channel, request(id), CallOptions::new()).await
}

/// A unary call.
pub async fn ask(
    channel: &Channel,
    request: EchoRequest,
    options: CallOptions,
) -> Result<EchoReply, Status> {
    let mut request = tonic::Request::new(request);
    request.extensions_mut().insert(options);
    let reply = EchoClient::new(channel.clone()).unary(request).await?;
    Ok(reply.into_inner())
}

/// A unary call from a task of its own that the server never answers, unless it is told to.
pub fn hang(channel: &Channel, id: u64) -> JoinHandle<Result<EchoReply, Status>> {
    slow(channel, id, u32::MAX)
}

/// A unary call from a task of its own that the server answers after so many milliseconds.
pub fn slow(channel: &Channel, id: u64, delay_ms: u32) -> JoinHandle<Result<EchoReply, Status>> {
    let channel = channel.clone();
    let request = EchoRequest {
        delay_ms,
        ..request(id)
    };
    tokio::spawn(async move { ask(&channel, request, CallOptions::new().no_timeout()).await })
}

/// The request of a unary call as a gateway would forward it.
pub fn raw(id: u64, options: CallOptions) -> Request<Body> {
    let message = response::message(&request(id).encode_to_vec());
    Request::post("http://ignored/trunkline.echo.v1.Echo/Unary")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .extension(options)
        .body(Body::new(Full::from(message)))
        .unwrap()
}
