//! The server that a case runs against, and the channel under test.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use trunkline::Channel;
use trunkline_proto::foreign::{Call, End};
use trunkline_proto::testing::Payload;
use trunkline_proto::testing::test_service_client::TestServiceClient;

use super::tap::Tap;
use crate::foreign::server::calls;

/// How long a server may take to see what the client did.
const LIMIT: Duration = Duration::from_secs(10);

/// What a kind of server can do beyond the protocol.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// Its services see whether a message came compressed.
    pub sees_compression: bool,
    /// Its services choose for each message of a stream whether it is compressed.
    pub mixes_compression: bool,
}

/// What a case gets.
#[derive(Clone, Debug)]
pub struct Target {
    pub channel: Channel,
    pub abilities: Abilities,
    uri: String,
    /// Marks the calls of this case.
    number: String,
}

impl Target {
    pub fn new(channel: Channel, uri: &str, abilities: Abilities) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            channel,
            abilities,
            uri: uri.to_owned(),
            number: NEXT.fetch_add(1, SeqCst).to_string(),
        }
    }

    /// The same, as if the case began now.
    pub fn again(self) -> Self {
        Self::new(self.channel, &self.uri, self.abilities)
    }

    /// A generated client on the channel, and the tap between them.
    pub fn client(&self) -> (TestServiceClient<Tap>, Tap) {
        let tap = Tap::new(self.channel.clone(), &self.number);
        (TestServiceClient::new(tap.clone()), tap)
    }

    /// Waits until the server has seen exactly these calls of this case, each with its end. Gives what it noted.
    pub async fn seen(&self, wanted: &[(&str, End)]) -> Vec<Call> {
        let mut seen = Vec::new();
        let waiting = async {
            loop {
                seen = calls(&self.uri).await;
                seen.retain(|call| call.case == self.number);
                let found = seen.iter().map(|it| (it.method.as_str(), it.end()));
                if found.eq(wanted.iter().copied()) {
                    break;
                }
            }
        };
        let in_time = timeout(LIMIT, waiting).await;
        assert!(
            in_time.is_ok(),
            "wanted {wanted:?}, the server saw {seen:?}"
        );
        seen
    }

    /// A call that nothing generated: `body` is what follows the headers. Gives the response's bytes.
    pub async fn raw(&self, path: &str, body: Bytes) -> Result<Bytes, Status> {
        let request = Request::post(format!("http://ignored{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-encoding", "gzip")
            .header("x-case", &self.number)
            .body(Body::new(Full::new(body)))
            .unwrap();
        let response = self.channel.send(request).await?;
        if let Some(status) = Status::from_header_map(response.headers()) {
            return Err(status);
        }
        let response = response.into_body().collect().await?;
        let trailers = response.trailers().expect("there is a status");
        let status = Status::from_header_map(trailers).expect("trailers have a status");
        match status.code() {
            tonic::Code::Ok => Ok(response.to_bytes()),
            _ => Err(status),
        }
    }
}

/// So many zeros.
pub fn zeros(size: usize) -> Option<Payload> {
    let body = vec![0; size];
    Some(Payload { body })
}
