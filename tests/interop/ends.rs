//! Calls that end before their answer: by the caller, or by the clock.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};
use trunkline_proto::foreign::End::{Cancelled, Open};
use trunkline_proto::testing::{StreamingInputCallRequest, StreamingOutputCallRequest};

use super::payloads::part;
use super::target::{Target, zeros};

/// The server has the headers and no message. In Rust the caller cancels by letting go of the call, so the one to ask
/// what became of it is the server.
pub async fn cancel_after_begin(target: Target) {
    let (mut client, tap) = target.client();
    let (send, messages) = mpsc::channel::<StreamingInputCallRequest>(1);
    let messages = ReceiverStream::new(messages);
    let call = tokio::spawn(async move { client.streaming_input_call(messages).await });
    target.seen(&[("StreamingInputCall", Open)]).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    target.seen(&[("StreamingInputCall", Cancelled)]).await;
    assert!(tap.sent.read().messages.is_empty());
    // Until here the request was open.
    drop(send);
}

pub async fn cancel_after_first_response(target: Target) {
    let (mut client, _) = target.client();
    let (send, messages) = mpsc::channel(1);
    send.send(part(27_182, 31_415)).await.unwrap();
    let responses = client.full_duplex_call(ReceiverStream::new(messages));
    let mut responses = responses.await.unwrap().into_inner();
    let response = responses.message().await.unwrap().unwrap();
    assert!(response.payload == zeros(31_415));
    target.seen(&[("FullDuplexCall", Open)]).await;
    drop(responses);
    target.seen(&[("FullDuplexCall", Cancelled)]).await;
    drop(send);
}

/// One millisecond may pass before the request leaves. One second is enough for the server to hear of it, to be told
/// the deadline, and to see the call's end.
pub async fn timeout_on_sleeping_server(target: Target) {
    let status = never_answered(&target, Duration::from_millis(1)).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");

    // The first call may still arrive, or not.
    let target = target.again();
    let timeout = Duration::from_secs(1);
    let status = never_answered(&target, timeout).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let seen = target.seen(&[("FullDuplexCall", Cancelled)]).await;
    let told = Duration::from_millis(seen[0].remaining_ms);
    assert!(told > Duration::ZERO && told <= timeout, "{told:?}");
}

/// A call whose request stays open and asks for nothing.
async fn never_answered(target: &Target, timeout: Duration) -> Status {
    let (mut client, _) = target.client();
    let message = StreamingOutputCallRequest {
        payload: zeros(27_182),
        ..StreamingOutputCallRequest::default()
    };
    let messages = tokio_stream::once(message).chain(tokio_stream::pending());
    let mut request = Request::new(messages);
    request.set_timeout(timeout);
    match client.full_duplex_call(request).await {
        Ok(responses) => responses.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    }
}
