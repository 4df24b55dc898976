//! Connections after their certificates have changed: replaced one for one, and never taken out again.

use std::fs;
use std::time::Duration;

use trunkline::{Channel, Connector, Endpoint, Http2Options, PoolOptions, Retry, Tls};

use crate::client::calls::{slow, unary};
use crate::client::told::Told;
use crate::support::leak::LeakCheck;
use crate::support::scratch::Scratch;
use crate::support::wait::{wait_equal, wait_until};
use crate::tls::authority::Authority;
use crate::tls::server::TlsServer;

use super::connected::{LIMIT, connected};

const SOON: Duration = Duration::from_millis(50);

/// Looked after every 50 ms.
fn pool() -> PoolOptions {
    PoolOptions::new().idle_timeout(Duration::from_millis(400))
}

fn connections(channel: &Channel) -> usize {
    channel.status().endpoints[0].connections
}

/// A busy pool keeps its room: each connection goes when there is another one.
#[tokio::test]
async fn a_pool_is_renewed_one_for_one() {
    let leaks = LeakCheck::start().await;
    let (root, folder) = (Authority::new("root"), Scratch::new());
    let server = TlsServer::tcp("a", &root.issue().loopback().finish());
    let ca = folder.path("ca.pem");
    fs::write(&ca, root.pem()).unwrap();
    let connector = Connector::target(server.uri())
        .tls(Tls::new().ca_file(&ca).reload_interval(SOON))
        .pool(pool().min_connections(4).max_connections(4));
    let channel = connected(connector).await;
    wait_equal(LIMIT, 4, || connections(&channel)).await;
    let before = server.seen().handshakes().len();
    fs::write(&ca, root.pem() + "\n").unwrap();
    let mut fewest = usize::MAX;
    wait_until(LIMIT, || {
        fewest = fewest.min(connections(&channel));
        server.seen().handshakes().len() >= before + 4
    })
    .await;
    assert!(fewest >= 4, "there were only {fewest}");
    wait_equal(LIMIT, 4, || connections(&channel)).await;
    drop((channel, server, folder));
    leaks.finish().await;
}

/// What went home under old certificates does not come out again.
#[tokio::test]
async fn connections_at_home_are_not_used_after_a_change() {
    let leaks = LeakCheck::start().await;
    let (root, folder) = (Authority::new("root"), Scratch::new());
    let server = TlsServer::tcp("a", &root.issue().loopback().finish());
    let ca = folder.path("ca.pem");
    fs::write(&ca, root.pem()).unwrap();
    let connector = Connector::target(server.uri())
        .tls(Tls::new().ca_file(&ca).reload_interval(SOON))
        .retry(Retry::none())
        .pool(PoolOptions::new().idle_timeout(Duration::from_secs(8)))
        .http2(Http2Options::new().max_streams(1));
    let channel = connected(connector).await;
    let calls: Vec<_> = (0..4).map(|id| slow(&channel, id, 2000)).collect();
    wait_equal(LIMIT, 4, || connections(&channel)).await;
    for call in calls {
        call.await.unwrap().unwrap();
    }
    wait_equal(LIMIT, 3, || channel.status().endpoints[0].idle_connections).await;
    let before = server.seen().handshakes().len();
    fs::write(&ca, root.pem() + "\n").unwrap();
    // The connection that was in use is replaced, which shows that the change was seen.
    wait_until(LIMIT, || {
        let endpoint = channel.status().endpoints.remove(0);
        let replaced = endpoint.connection_attempts_succeeded > 4;
        replaced && (endpoint.connections, endpoint.draining_connections) == (1, 0)
    })
    .await;
    let calls: Vec<_> = (4..8).map(|id| slow(&channel, id, 2000)).collect();
    wait_equal(LIMIT, 4, || connections(&channel)).await;
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert!(
        server.seen().handshakes().len() >= before + 4,
        "old connections were used"
    );
    drop((channel, server, folder));
    leaks.finish().await;
}

/// An endpoint that is found while its files are being written is not broken for good.
#[tokio::test]
async fn an_endpoint_found_at_the_wrong_moment_heals() {
    let leaks = LeakCheck::start().await;
    let (root, folder) = (Authority::new("root"), Scratch::new());
    let server = TlsServer::builder("a", &root.issue().loopback().finish()).tcp();
    let (old, new) = (
        root.issue().for_clients().finish(),
        root.issue().for_clients().finish(),
    );
    let (chain, key) = old.write(&folder.path(""), "own");
    fs::write(&chain, new.chain_pem()).unwrap();
    let tls = Tls::new()
        .ca_pem(root.pem())
        .identity_files(&chain, &key)
        .reload_interval(SOON);
    let (teller, told) = Told::saying(Ok(vec![Endpoint::uri(server.uri()).tls(tls)]));
    let channel = Connector::discover(told)
        .pool(pool())
        .connect_lazy()
        .unwrap();
    let error = || {
        channel
            .status()
            .endpoints
            .first()
            .and_then(|it| it.last_error.clone())
    };
    wait_until(LIMIT, || {
        error().is_some_and(|it| it.contains("the key does not belong to the certificate"))
    })
    .await;
    new.write(&folder.path(""), "own");
    wait_until(LIMIT, || connections(&channel) == 1).await;
    unary(&channel, 1).await.unwrap();
    drop((channel, teller, server, folder));
    leaks.finish().await;
}
