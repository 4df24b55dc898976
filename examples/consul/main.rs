//! Three servers registered with a Consul agent, and a client that follows: one server is put into maintenance, another
//! fails its check, and both come back. The client is told nothing but the service's name.
//!
//! It needs an agent. `scripts/consul --with cargo run --example consul` starts one for it; or set `CONSUL_HTTP_ADDR`
//! to one that is running (by default it is looked for at 127.0.0.1:8500).
#![allow(clippy::disallowed_methods)] // The servers' tasks end with the process.

mod agent;
#[path = "../echo/mod.rs"]
mod echo;

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::time::Duration;

use agent::Agent;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use trunkline::{Channel, Connector, Consul};
use trunkline_proto::{EchoRequest, echo_client::EchoClient};

const SERVICE: &str = "trunkline-example";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let agent = Agent::from_environment();
    let weights = [("web-1", 3), ("web-2", 2), ("web-3", 1)];
    for (id, weight) in weights {
        let port = serve(id).await?;
        agent.register(SERVICE, id, port, weight).await?;
    }

    let channel = Connector::consul(Consul::service(SERVICE))
        .connect()
        .await?;
    let shows = |weights| shows(&channel, weights);
    shows([("web-1", 3), ("web-2", 2), ("web-3", 1)].into()).await?;
    call("registered with weights 3, 2 and 1", &channel).await?;

    // What an operator does before an upgrade. Running calls finish; new ones go elsewhere.
    agent.maintenance("web-1", true).await?;
    shows([("web-1", 0), ("web-2", 2), ("web-3", 1)].into()).await?;
    call("web-1 in maintenance", &channel).await?;

    agent.check("web-3", "fail").await?;
    shows([("web-1", 0), ("web-2", 2)].into()).await?;
    call("web-3 critical as well", &channel).await?;

    agent.maintenance("web-1", false).await?;
    agent.check("web-3", "pass").await?;
    shows([("web-1", 3), ("web-2", 2), ("web-3", 1)].into()).await?;
    call("all back", &channel).await?;

    let status = channel.status();
    println!(
        "{} at index {}",
        status.source,
        status.resolution_revision.unwrap_or_default()
    );
    for (id, _) in weights {
        agent.deregister(id).await?;
    }
    Ok(())
}

/// Calls, and prints who answered.
async fn call(when: &str, channel: &Channel) -> Result<(), tonic::Status> {
    let mut client = EchoClient::new(channel.clone());
    let mut served = BTreeMap::<String, u32>::new();
    for _ in 0..600 {
        let reply = client.unary(EchoRequest::default()).await?.into_inner();
        *served.entry(reply.server).or_default() += 1;
    }
    println!("{when}: {served:?}");
    Ok(())
}

/// Waits until the channel has heard of this: the weight of each instance.
async fn shows(channel: &Channel, expected: BTreeMap<&str, u32>) -> Result<(), Box<dyn Error>> {
    let heard = async {
        loop {
            let status = channel.status();
            let weights: BTreeMap<_, _> = status
                .endpoints
                .iter()
                .filter(|it| it.weight == 0 || it.state == trunkline::State::Ready)
                .map(|it| (it.metadata["consul.id"].as_str(), it.weight))
                .collect();
            if weights == expected {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), heard).await?;
    Ok(())
}

async fn serve(name: &str) -> io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let server = Server::builder().add_service(echo::service(name));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Ok(port)
}
