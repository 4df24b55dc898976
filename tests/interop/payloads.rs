//! Messages of all sizes, in calls of all kinds.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{StreamExt, iter};
use trunkline_proto::foreign::End::Finished;
use trunkline_proto::testing::{
    Empty, ResponseParameters, SimpleRequest, StreamingInputCallRequest, StreamingOutputCallRequest,
};

use super::tap::Framed;
use super::target::{Target, zeros};

/// What is sent, and what is answered.
pub const REQUESTS: [usize; 4] = [27_182, 8, 1828, 45_904];
pub const RESPONSES: [usize; 4] = [31_415, 9, 2653, 58_979];

/// The request of a unary call with the sizes of the large ones.
pub fn large() -> SimpleRequest {
    SimpleRequest {
        response_size: 314_159,
        payload: zeros(271_828),
        ..SimpleRequest::default()
    }
}

/// A request of a streaming call.
pub fn part(request: usize, response: usize) -> StreamingOutputCallRequest {
    StreamingOutputCallRequest {
        response_parameters: vec![size(response)],
        payload: zeros(request),
        ..StreamingOutputCallRequest::default()
    }
}

/// No bytes at all either way. The server is told the default deadline.
pub async fn empty_unary(target: Target) {
    let (mut client, tap) = target.client();
    client.empty_call(Empty {}).await.unwrap();
    let nothing = Framed {
        compressed: false,
        length: 0,
    };
    assert_eq!(tap.sent.read().messages, [nothing]);
    assert_eq!(tap.received.read().messages, [nothing]);
    let seen = target.seen(&[("EmptyCall", Finished)]).await;
    let remaining = Duration::from_millis(seen[0].remaining_ms);
    let default = Duration::from_secs(30);
    assert!(
        remaining > default / 2 && remaining <= default,
        "{remaining:?}"
    );
}

pub async fn large_unary(target: Target) {
    let (mut client, _) = target.client();
    let response = client.unary_call(large()).await.unwrap().into_inner();
    assert!(response.payload == zeros(314_159));
    target.seen(&[("UnaryCall", Finished)]).await;
}

pub async fn client_streaming(target: Target) {
    let (mut client, _) = target.client();
    let messages = REQUESTS.map(|size| StreamingInputCallRequest {
        payload: zeros(size),
        ..StreamingInputCallRequest::default()
    });
    let response = client.streaming_input_call(iter(messages)).await.unwrap();
    assert_eq!(response.into_inner().aggregated_payload_size, 74_922);
    target.seen(&[("StreamingInputCall", Finished)]).await;
}

pub async fn server_streaming(target: Target) {
    let (mut client, _) = target.client();
    let request = StreamingOutputCallRequest {
        response_parameters: RESPONSES.map(size).into(),
        ..StreamingOutputCallRequest::default()
    };
    let responses = client.streaming_output_call(request).await.unwrap();
    let sizes: Vec<_> = responses
        .into_inner()
        .map(|it| it.unwrap().payload.unwrap().body.len())
        .collect()
        .await;
    assert_eq!(sizes, RESPONSES);
    target.seen(&[("StreamingOutputCall", Finished)]).await;
}

/// Each request leaves only after the response before it has come.
pub async fn ping_pong(target: Target) {
    let (mut client, _) = target.client();
    let (send, messages) = mpsc::channel(1);
    let mut sizes = REQUESTS.into_iter().zip(RESPONSES).peekable();
    let (request, response) = *sizes.peek().unwrap();
    send.send(part(request, response)).await.unwrap();
    let responses = client.full_duplex_call(ReceiverStream::new(messages));
    let mut responses = responses.await.unwrap().into_inner();
    while let Some((_, expected)) = sizes.next() {
        let response = responses.message().await.unwrap().unwrap();
        assert_eq!(response.payload.unwrap().body.len(), expected);
        if let Some(&(request, response)) = sizes.peek() {
            send.send(part(request, response)).await.unwrap();
        }
    }
    drop(send);
    assert!(responses.message().await.unwrap().is_none());
    target.seen(&[("FullDuplexCall", Finished)]).await;
}

/// No messages in either direction.
pub async fn empty_stream(target: Target) {
    let (mut client, tap) = target.client();
    let responses = client.full_duplex_call(iter([])).await.unwrap();
    assert!(responses.into_inner().message().await.unwrap().is_none());
    assert!(tap.sent.read().messages.is_empty());
    assert!(tap.received.read().messages.is_empty());
    target.seen(&[("FullDuplexCall", Finished)]).await;
}

fn size(size: usize) -> ResponseParameters {
    ResponseParameters {
        size: size as i32,
        ..ResponseParameters::default()
    }
}
