//! Mutual TLS, and certificates that are replaced under load: `cargo run --example mtls`.
//!
//! An authority is made in a temporary directory; it signs a certificate for a server and one for its client. The client
//! calls, and while it does, both certificates are replaced three times: the server takes its new one for each
//! connection that comes, the client finds the new files by itself. No call fails.
#![allow(clippy::disallowed_methods)] // The server's tasks end with the process.

mod authority;
#[path = "../echo/mod.rs"]
mod echo;
mod server;

use std::error::Error;
use std::path::Path;
use std::time::Duration;
use std::{env, fs, process};

use authority::Authority;
use server::Server;
use tokio::time::{Instant, sleep, timeout};
use trunkline::{Channel, Connector, PoolOptions, Tls};
use trunkline_proto::{EchoRequest, echo_client::EchoClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::temp_dir().join(format!("trunkline-mtls-{}", process::id()));
    fs::create_dir_all(&folder)?;
    let result = run(&folder).await;
    fs::remove_dir_all(&folder)?;
    result
}

async fn run(folder: &Path) -> Result<(), Box<dyn Error>> {
    let authority = Authority::new()?;
    fs::write(folder.join("ca.pem"), authority.pem())?;
    authority.issue("client", 1)?.write(folder, "client")?;
    let server = Server::start(&authority, authority.issue("localhost", 1)?).await?;
    let target = format!("https://localhost:{}", server.port());

    // Without a certificate of its own, the client is refused, and told why.
    let nobody = Tls::new().ca_file(folder.join("ca.pem"));
    if let Err(error) = Connector::target(&target).tls(nobody).connect().await {
        println!("without a client certificate: {error}");
    }

    let tls = Tls::production()
        .ca_file(folder.join("ca.pem"))
        .identity_files(folder.join("client.pem"), folder.join("client.key"))
        .reload_interval(Duration::from_millis(100));
    let channel = Connector::target(&target)
        .tls(tls)
        // Connections are looked after every eighth of this: sooner than by default, so that the example is short.
        .pool(PoolOptions::new().idle_timeout(Duration::from_secs(1)))
        .connect()
        .await?;
    let mut calls = 0;
    for generation in 1..=4_u64 {
        if generation > 1 {
            server.present(&authority, authority.issue("localhost", generation)?)?;
            authority
                .issue("client", generation)?
                .write(folder, "client")?;
        }
        calls += call_until_both_are(&channel, generation).await?;
        let endpoint = &channel.status().endpoints[0];
        let (peer, own) = (endpoint.peer.as_ref(), endpoint.identity.as_ref());
        let (peer, own) = peer.zip(own).ok_or("the connection is not encrypted")?;
        println!(
            "{} (serial {}) knows {} (serial {}), {calls} calls so far, 0 failed",
            peer, peer.serial, own, own.serial
        );
    }
    Ok(())
}

/// Calls without a pause until client and server have certificates with this serial. The first failure ends it.
async fn call_until_both_are(channel: &Channel, serial: u64) -> Result<u64, Box<dyn Error>> {
    let mut client = EchoClient::new(channel.clone());
    let began = Instant::now();
    let mut calls = 0;
    let wanted = format!("{serial:02x}");
    let calling = async {
        loop {
            client.unary(EchoRequest::default()).await?;
            calls += 1;
            let endpoint = &channel.status().endpoints[0];
            let both = [&endpoint.peer, &endpoint.identity];
            let arrived = both
                .iter()
                .all(|it| it.as_ref().is_some_and(|it| it.serial == wanted));
            if arrived && began.elapsed() > Duration::from_millis(500) {
                return Ok::<_, tonic::Status>(());
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(20), calling).await??;
    Ok(calls)
}
