//! One call with a nonce, checked.

use tonic::{Request, Status};
use trunkline::Channel;
use trunkline_proto::echo_client::EchoClient;
use trunkline_proto::{EchoReply, EchoRequest};

use crate::support::report::wrong;

/// The size of a call's payload.
const SIZE: usize = 1024;

/// A request whose payload no other id has.
pub fn request(id: u64) -> EchoRequest {
    // Knuth's multiplicative hash spreads neighbouring ids over all bytes.
    let word = id.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    EchoRequest {
        id,
        payload: word.into_iter().cycle().take(SIZE).collect(),
        ..EchoRequest::default()
    }
}

/// A unary call; an answer to another one counts as wrong.
pub async fn call(channel: Channel, id: u64) -> Result<(), Status> {
    call_with(channel, request(id)).await.map(drop)
}

/// The same with a request of your own.
pub async fn call_with(channel: Channel, request: EchoRequest) -> Result<EchoReply, Status> {
    let (id, payload) = (request.id, request.payload.clone());
    let response = EchoClient::new(channel).unary(Request::new(request)).await;
    let reply = response?.into_inner();
    if reply.id != id {
        return Err(wrong("the reply to another id"));
    }
    if reply.payload != payload {
        return Err(wrong("another payload"));
    }
    Ok(reply)
}
