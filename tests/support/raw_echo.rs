//! The echo service, answered by hand on a raw connection.

use trunkline_proto::{EchoReply, EchoRequest, Message};

use super::raw_conn::RawConn;

impl RawConn {
    /// Waits for the next request and the end of its body. Gives its stream and id.
    pub async fn next_echo_request(&mut self) -> (u32, u64) {
        let stream = self.next_request().await;
        let message = self.messages(stream).await.remove(0);
        let request = EchoRequest::decode(message).expect("a request of the echo service");
        (stream, request.id)
    }

    /// Answers the request with this id, without a payload.
    pub async fn answer_echo(&mut self, stream: u32, id: u64) {
        let reply = EchoReply {
            id,
            ..EchoReply::default()
        };
        self.respond_ok(stream, &reply.encode_to_vec()).await;
    }

    /// Waits for the next request and answers it. Gives its id.
    pub async fn echo_next(&mut self) -> u64 {
        let (stream, id) = self.next_echo_request().await;
        self.answer_echo(stream, id).await;
        id
    }
}
