//! Calls of the echo service through tonic's own client: the yardstick that is not the crate under test.

use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use trunkline_proto::echo_client::EchoClient;
use trunkline_proto::{EchoReply, EchoRequest};

/// A tonic client that connects with its first call, and again after a loss.
pub fn client(uri: &str) -> EchoClient<Channel> {
    EchoClient::new(
        Endpoint::from_shared(uri.to_owned())
            .unwrap()
            .connect_lazy(),
    )
}

/// A request that is answered at once.
pub fn request(id: u64) -> EchoRequest {
    EchoRequest {
        id,
        payload: b"payload".to_vec(),
        ..EchoRequest::default()
    }
}

/// A unary call from a task of its own.
pub fn call(uri: &str, request: EchoRequest) -> JoinHandle<Result<EchoReply, Status>> {
    let mut client = client(uri);
    tokio::spawn(async move { Ok(client.unary(request).await?.into_inner()) })
}
