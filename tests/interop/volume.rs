//! More bytes than the windows of both sides hold. These cases are not gRPC's own.

use std::time::Duration;

use tokio_stream::{StreamExt, iter};
use tonic::Streaming;
use trunkline_proto::foreign::End::{Cancelled, Finished, Open};
use trunkline_proto::testing::{
    Empty, ResponseParameters, SimpleRequest, StreamingInputCallRequest,
    StreamingOutputCallRequest, StreamingOutputCallResponse,
};

use super::target::{Target, zeros};
use crate::support::wait::within;

/// Larger than all windows, in one message or in many.
const LARGE: usize = 8 << 20;
const CHUNK: usize = 64 << 10;

/// What servers must be told to take.
pub const LARGEST: usize = 2 * LARGE;

/// How long calls may take beside a stream that nobody reads.
const LIMIT: Duration = Duration::from_secs(10);

pub async fn a_message_beyond_the_windows(target: Target) {
    let (client, _) = target.client();
    let mut client = client
        .max_encoding_message_size(LARGEST)
        .max_decoding_message_size(LARGEST);
    let request = SimpleRequest {
        response_size: LARGE as i32,
        payload: zeros(LARGE),
        ..SimpleRequest::default()
    };
    let response = client.unary_call(request).await.unwrap().into_inner();
    assert!(response.payload == zeros(LARGE));
    target.seen(&[("UnaryCall", Finished)]).await;
}

pub async fn streams_beyond_the_windows(target: Target) {
    let (mut client, _) = target.client();
    let messages = (0..LARGE / CHUNK).map(|_| StreamingInputCallRequest {
        payload: zeros(CHUNK),
        ..StreamingInputCallRequest::default()
    });
    let response = client.streaming_input_call(iter(messages)).await.unwrap();
    let total = response.into_inner().aggregated_payload_size;
    assert_eq!(total as usize, LARGE);

    let responses = client.streaming_output_call(bulk()).await.unwrap();
    assert_eq!(sizes(responses.into_inner()).await, [CHUNK; LARGE / CHUNK]);
    target
        .seen(&[
            ("StreamingInputCall", Finished),
            ("StreamingOutputCall", Finished),
        ])
        .await;
}

/// A stream that nobody reads holds back itself and nothing else: small calls pass. It goes on when it is read, and ends
/// when it is given up.
pub async fn an_unread_stream_is_in_nobodys_way(target: Target) {
    let (mut client, _) = target.client();
    let read = client.streaming_output_call(bulk()).await.unwrap();
    let unread = client.streaming_output_call(bulk()).await.unwrap();
    let others = target.clone().again();
    let small = async {
        let (mut client, _) = others.client();
        for _ in 0..50 {
            client.empty_call(Empty {}).await.unwrap();
        }
    };
    within(LIMIT, "the small calls", small).await;
    target.seen(&[("StreamingOutputCall", Open); 2]).await;

    assert_eq!(sizes(read.into_inner()).await, [CHUNK; LARGE / CHUNK]);
    let (first, second) = (
        ("StreamingOutputCall", Finished),
        ("StreamingOutputCall", Open),
    );
    target.seen(&[first, second]).await;
    drop(unread);
    let second = ("StreamingOutputCall", Cancelled);
    target.seen(&[first, second]).await;
}

async fn sizes(responses: Streaming<StreamingOutputCallResponse>) -> Vec<usize> {
    let sizes = responses.map(|it| it.unwrap().payload.unwrap().body.len());
    sizes.collect().await
}

/// The request of a stream of many chunks.
fn bulk() -> StreamingOutputCallRequest {
    let chunk = ResponseParameters {
        size: CHUNK as i32,
        ..ResponseParameters::default()
    };
    StreamingOutputCallRequest {
        response_parameters: vec![chunk; LARGE / CHUNK],
        ..StreamingOutputCallRequest::default()
    }
}
