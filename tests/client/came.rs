//! What a raw call came to, with all that is told of its attempts.

use http::Request;
use http_body_util::BodyExt;
use tonic::Code;
use tonic::body::Body;
use trunkline::{Channel, Error, History};

/// The end of a call.
#[derive(Debug)]
pub enum Came {
    /// A response and its status, with the attempts that failed before it.
    Answer(Code, History),
    /// No response, or not all of it.
    Error(Error),
}

/// Makes a call, and reads its response to the end.
pub async fn come(channel: &Channel, request: Request<Body>) -> Came {
    let response = match channel.send(request).await {
        Ok(response) => response,
        Err(error) => return Came::Error(error),
    };
    let (parts, body) = response.into_parts();
    let trailers = match body.collect().await {
        Ok(body) => body.trailers().cloned().unwrap_or_default(),
        Err(error) => return Came::Error(error),
    };
    let status = parts.headers.get("grpc-status");
    let status = status.or_else(|| trailers.get("grpc-status"));
    let code = Code::from_bytes(status.expect("a gRPC response").as_bytes());
    let history = parts.extensions.get::<History>().cloned();
    Came::Answer(code, history.unwrap_or_default())
}
