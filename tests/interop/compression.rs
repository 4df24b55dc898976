//! Compressed messages, both ways, and compressed ones beside others in one stream.

use std::io::Write;

use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio_stream::{StreamExt, once};
use tonic::Code;
use tonic::codec::CompressionEncoding::Gzip;
use trunkline_proto::Message;
use trunkline_proto::foreign::End::Finished;
use trunkline_proto::testing::{
    BoolValue, ResponseParameters, SimpleRequest, StreamingInputCallRequest,
    StreamingInputCallResponse, StreamingOutputCallRequest,
};

use super::payloads::large;
use super::target::{Target, zeros};
use crate::support::response::message;

const YES: Option<BoolValue> = Some(BoolValue { value: true });
const NO: Option<BoolValue> = Some(BoolValue { value: false });

/// A server that sees whether a message came compressed refuses one that did not come as it says it does.
pub async fn client_compressed_unary(target: Target) {
    let expecting = |expect_compressed| SimpleRequest {
        expect_compressed,
        ..large()
    };
    if target.abilities.sees_compression {
        let (mut client, _) = target.client();
        let status = client.unary_call(expecting(YES)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    let target = target.again();

    let (client, tap) = target.client();
    let mut client = client.send_compressed(Gzip);
    let response = client.unary_call(expecting(YES)).await.unwrap();
    assert!(response.into_inner().payload == zeros(314_159));
    assert_eq!(tap.sent.compressed(), [true]);
    assert!(tap.sent.read().messages[0].length < 271_828);

    let (mut client, tap) = target.client();
    let response = client.unary_call(expecting(NO)).await.unwrap();
    assert!(response.into_inner().payload == zeros(314_159));
    assert_eq!(tap.sent.compressed(), [false]);
    target.seen(&[("UnaryCall", Finished); 2]).await;
}

pub async fn server_compressed_unary(target: Target) {
    for compressed in [true, false] {
        let (client, tap) = target.client();
        let mut client = client.accept_compressed(Gzip);
        let request = SimpleRequest {
            response_compressed: Some(BoolValue { value: compressed }),
            ..large()
        };
        let response = client.unary_call(request).await.unwrap();
        assert!(response.into_inner().payload == zeros(314_159));
        assert_eq!(tap.received.compressed(), [compressed]);
    }
    target.seen(&[("UnaryCall", Finished); 2]).await;
}

/// A compressed message and one that is not, in one stream. Tonic's clients compress all or nothing, so this request
/// is made by hand.
pub async fn client_compressed_streaming(target: Target) {
    let expecting = |expect_compressed, size| StreamingInputCallRequest {
        payload: zeros(size),
        expect_compressed,
    };
    if target.abilities.sees_compression {
        let (mut client, _) = target.client();
        let messages = once(expecting(YES, 27_182));
        let status = client.streaming_input_call(messages).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    let target = target.again();

    let first = compressed_message(&expecting(YES, 27_182).encode_to_vec());
    let second = message(&expecting(NO, 45_904).encode_to_vec());
    let path = "/grpc.testing.TestService/StreamingInputCall";
    let response = target.raw(path, Bytes::from([first, second].concat()));
    let response = response.await.unwrap();
    // Behind the five bytes that announce it.
    let response = StreamingInputCallResponse::decode(&response[5..]).unwrap();
    assert_eq!(response.aggregated_payload_size, 73_086);
    target.seen(&[("StreamingInputCall", Finished)]).await;
}

/// Both kinds of messages in one stream, or, where the server compresses all or nothing, in one stream each.
pub async fn server_compressed_streaming(target: Target) {
    let (first, second) = ((true, 31_415), (false, 92_653));
    let streams = match target.abilities.mixes_compression {
        true => vec![vec![first, second]],
        false => vec![vec![first; 2], vec![second; 2]],
    };
    for parts in streams {
        let (client, tap) = target.client();
        let mut client = match parts.iter().any(|it| it.0) {
            true => client.accept_compressed(Gzip),
            false => client,
        };
        let request = StreamingOutputCallRequest {
            response_parameters: parts
                .iter()
                .map(|&(compressed, size)| part(compressed, size))
                .collect(),
            ..StreamingOutputCallRequest::default()
        };
        let responses = client.streaming_output_call(request).await.unwrap();
        let sizes: Vec<_> = responses
            .into_inner()
            .map(|it| it.unwrap().payload.unwrap().body.len() as i32)
            .collect()
            .await;
        assert_eq!(
            tap.received
                .compressed()
                .into_iter()
                .zip(sizes)
                .collect::<Vec<_>>(),
            parts
        );
    }
}

fn part(compressed: bool, size: i32) -> ResponseParameters {
    ResponseParameters {
        size,
        compressed: Some(BoolValue { value: compressed }),
        ..ResponseParameters::default()
    }
}

/// A gRPC message with the flag for "compressed".
fn compressed_message(payload: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(payload).unwrap();
    let payload = encoder.finish().unwrap();
    let mut bytes = BytesMut::new();
    bytes.put_u8(1);
    bytes.put_u32(payload.len() as u32);
    bytes.put_slice(&payload);
    bytes.freeze()
}
