//! What goes beside the messages: metadata before and after them, and the status.

use bytes::Bytes;
use http::HeaderMap;
use tokio_stream::iter;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, IntoStreamingRequest, Request, Status};
use trunkline::Error;
use trunkline_proto::foreign::End::Finished;
use trunkline_proto::testing::{EchoStatus, SimpleRequest, StreamingOutputCallRequest};

use super::payloads::{large, part};
use super::tap::{Log, Tap};
use super::target::{Target, zeros};
use crate::support::response::message;

const INITIAL: &str = "x-grpc-test-echo-initial";
const TRAILING: &str = "x-grpc-test-echo-trailing-bin";

/// Text comes back before the messages, bytes after them.
pub async fn custom_metadata(target: Target) {
    let (mut client, tap) = target.client();
    let response = client.unary_call(with_metadata(large())).await.unwrap();
    assert!(response.into_inner().payload == zeros(314_159));
    check_metadata(&tap);

    let (mut client, tap) = target.client();
    let messages = with_metadata(iter([part(271_828, 314_159)])).into_streaming_request();
    let mut responses = client
        .full_duplex_call(messages)
        .await
        .unwrap()
        .into_inner();
    let response = responses.message().await.unwrap().unwrap();
    assert!(response.payload == zeros(314_159));
    assert!(responses.message().await.unwrap().is_none());
    check_metadata(&tap);
    target
        .seen(&[("UnaryCall", Finished), ("FullDuplexCall", Finished)])
        .await;
}

/// A status that a server answers with comes through as it is, and is not taken for the channel's own error.
pub async fn status_code_and_message(target: Target) {
    check_status(&target, "test status message").await;
}

/// What is not printable ASCII comes through too.
pub async fn special_status_message(target: Target) {
    let message = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
    check_status(&target, message).await;
}

pub async fn unimplemented_method(target: Target) {
    let path = "/grpc.testing.TestService/UnimplementedCall";
    let status = target.raw(path, message(&[])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
}

pub async fn unimplemented_service(target: Target) {
    let path = "/grpc.testing.UnimplementedService/UnimplementedCall";
    let status = target.raw(path, Bytes::new()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
}

async fn check_status(target: &Target, text: &str) {
    let response_status = Some(EchoStatus {
        code: Code::Unknown.into(),
        message: text.to_owned(),
    });
    let check = |status: &Status| {
        assert_eq!((status.code(), status.message()), (Code::Unknown, text));
        assert!(Error::from_status(status).is_none(), "{status:?}");
    };

    let (mut client, _) = target.client();
    let request = SimpleRequest {
        response_status: response_status.clone(),
        ..SimpleRequest::default()
    };
    check(&client.unary_call(request).await.unwrap_err());

    let request = StreamingOutputCallRequest {
        response_status,
        ..StreamingOutputCallRequest::default()
    };
    let status = match client.full_duplex_call(iter([request])).await {
        Ok(responses) => responses.into_inner().message().await.unwrap_err(),
        // It may come in place of response headers.
        Err(status) => status,
    };
    check(&status);
    target
        .seen(&[("UnaryCall", Finished), ("FullDuplexCall", Finished)])
        .await;
}

fn with_metadata<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    let text = MetadataValue::from_static("test_initial_metadata_value");
    metadata.insert(INITIAL, text);
    metadata.insert_bin(TRAILING, MetadataValue::from_bytes(&[0xab; 3]));
    request
}

/// Each in its own place, and there only.
fn check_metadata(tap: &Tap) {
    let read = |part: fn(&Log) -> HeaderMap| MetadataMap::from_headers(part(&tap.received));
    let headers = read(|log| log.read().headers.clone());
    let trailers = read(|log| log.read().trailers.clone());
    assert_eq!(headers.get(INITIAL).unwrap(), "test_initial_metadata_value");
    let bytes = trailers.get_bin(TRAILING).unwrap().to_bytes().unwrap();
    assert_eq!(bytes, [0xab; 3].as_slice());
    assert!(!headers.contains_key(TRAILING) && !trailers.contains_key(INITIAL));
}
