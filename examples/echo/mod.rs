//! The server side of the examples: plain tonic, with nothing of Trunkline in it.

use std::time::Duration;

use tonic::{Request, Response, Status, Streaming, async_trait};
use trunkline_proto::echo_server::EchoServer;
use trunkline_proto::{EchoReply, EchoRequest, echo_server};

/// An echo service whose replies carry `name`, so that callers see who served them.
pub(crate) fn service(name: &str) -> EchoServer<Echo> {
    EchoServer::new(Echo { name: name.into() })
}

pub(crate) struct Echo {
    name: String,
}

/// The examples make unary calls only.
type NoReplies = tokio_stream::Empty<Result<EchoReply, Status>>;

#[async_trait]
impl echo_server::Echo for Echo {
    type ServerStreamStream = NoReplies;
    type BidiStreamStream = NoReplies;

    async fn unary(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        let request = request.into_inner();
        tokio::time::sleep(Duration::from_millis(request.delay_ms.into())).await;
        if request.fail_code != 0 {
            let code = i32::try_from(request.fail_code).unwrap_or_default().into();
            return Err(Status::new(code, "as requested"));
        }
        Ok(Response::new(EchoReply {
            id: request.id,
            payload: request.payload,
            server: self.name.clone(),
            sequence: 0,
        }))
    }

    async fn server_stream(&self, _: Request<EchoRequest>) -> Result<Response<NoReplies>, Status> {
        Err(Status::unimplemented("server_stream"))
    }

    async fn client_stream(
        &self,
        _: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<EchoReply>, Status> {
        Err(Status::unimplemented("client_stream"))
    }

    async fn bidi_stream(
        &self,
        _: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<NoReplies>, Status> {
        Err(Status::unimplemented("bidi_stream"))
    }
}
