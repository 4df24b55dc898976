//! Calls of the echo service that are made at once, through any client.

use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::StdError;
use trunkline_proto::EchoReply;
use trunkline_proto::echo_client::EchoClient;

use super::calls::request;
use super::wait::within;

/// How long a burst may take.
const LIMIT: Duration = Duration::from_secs(15);

/// Unary calls under way, each in a task of its own. Dropping it cancels them.
pub type Calls = JoinSet<(u64, Result<EchoReply, Status>)>;

/// Starts a unary call for each id.
pub fn burst<S>(client: &EchoClient<S>, ids: impl IntoIterator<Item = u64>) -> Calls
where
    S: GrpcService<Body> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<StdError>,
    S::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <S::ResponseBody as http_body::Body>::Error: Into<StdError> + Send,
{
    let mut calls = JoinSet::new();
    for id in ids {
        let mut client = client.clone();
        calls.spawn(async move {
            let reply = client.unary(request(id)).await;
            (id, reply.map(tonic::Response::into_inner))
        });
    }
    calls
}

/// Waits for all of them. Panics when they take more than 15 s.
pub async fn ended(calls: Calls) -> Vec<(u64, Result<EchoReply, Status>)> {
    within(LIMIT, "a burst of calls", calls.join_all()).await
}

/// Waits for all of them, and panics unless each got the answer to its own request.
pub async fn all_ok(calls: Calls) {
    for (id, result) in ended(calls).await {
        match result {
            Ok(reply) => assert_eq!(reply.id, id, "the answer to another call"),
            Err(status) => panic!("call {id}: {status:?}"),
        }
    }
}
