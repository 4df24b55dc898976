//! Two plugins on Unix sockets: calls take turns, and a session keeps its calls on one connection.
#![allow(clippy::disallowed_methods)] // The servers' tasks end with the process.

mod echo;

use std::{error::Error, fs, io, path::Path, time::Duration};

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use trunkline::{Connector, Endpoint};
use trunkline_proto::{EchoRequest, echo_client::EchoClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("trunkline-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let (left, right) = (folder.join("left.sock"), folder.join("right.sock"));
    serve("left", &left)?;
    serve("right", &right)?;

    // It returns as soon as one of them is ready; the other joins in when it is. For a single socket,
    // `Connector::unix(path)` is all it takes.
    let channel = Connector::endpoints([Endpoint::unix(&left), Endpoint::unix(&right)])
        .connect()
        .await?;
    let mut client = EchoClient::new(channel.clone());
    for call in 1..=4 {
        let reply = client.unary(EchoRequest::default()).await?.into_inner();
        println!("call {call}: {}", reply.server);
    }

    // For calls that belong together, because the plugin keeps state for each connection. They run one
    // after the other, and are never repeated: on another connection they would be out of context.
    let session = channel.acquire().await?;
    println!("session with {}", session.endpoint());
    let mut client = EchoClient::new(session);
    for call in 1..=4 {
        let reply = client.unary(EchoRequest::default()).await?.into_inner();
        println!("call {call} of the session: {}", reply.server);
    }
    drop(client); // Gives the connection back to the pool.

    channel.close(Duration::from_secs(1)).await;
    fs::remove_dir_all(&folder)?;
    Ok(())
}

fn serve(name: &str, path: &Path) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    let server = Server::builder().add_service(echo::service(name));
    tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
    Ok(())
}
