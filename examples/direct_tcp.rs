//! Two TCP servers under one client: calls shared by weight, repeated when that helps, ended in time.
#![allow(clippy::disallowed_methods)] // The servers' tasks end with the process.

mod echo;
use std::{collections::BTreeMap, error::Error, io, time::Duration};

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, transport::Server};
use trunkline::{Connector, Endpoint, Retry};
use trunkline_proto::{EchoRequest, echo_client::EchoClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let channel = Connector::endpoints([
        Endpoint::tcp(serve("large").await?).weight(3),
        Endpoint::tcp(serve("small").await?).weight(1),
    ])
    // At most three attempts, on UNAVAILABLE only, each at an endpoint not tried yet while there is one.
    .retry(Retry::exponential().attempts(3))
    // From the start of a call to the end of its response, all attempts and waits included.
    .timeout(Duration::from_secs(2))
    .connect()
    .await?;
    let mut client = EchoClient::new(channel.clone());

    let mut served = BTreeMap::<String, u32>::new();
    for _ in 0..400 {
        let reply = client.unary(EchoRequest::default()).await?.into_inner();
        *served.entry(reply.server).or_default() += 1;
    }
    println!("served by weight: {served:?}");

    let failing = EchoRequest {
        fail_code: Code::Unavailable as u32, // What the service answers, each time.
        ..Default::default()
    };
    if let Err(status) = client.unary(failing).await {
        let retries = channel.stats().retries;
        println!("failed after {retries} retries: {:?}", status.code());
    }

    let mut slow = Request::new(EchoRequest {
        delay_ms: 10_000,
        ..Default::default()
    });
    slow.set_timeout(Duration::from_millis(100)); // For this call only; the shorter limit holds.
    if let Err(status) = client.unary(slow).await {
        println!("{:?}: {}", status.code(), status.message());
    }
    Ok(())
}

async fn serve(name: &str) -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let server = Server::builder().add_service(echo::service(name));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Ok(address)
}
