//! What discovery says about an endpoint changes neither the name that its certificate must have, nor the authority of
//! its requests: else whoever can write to the catalogue chooses whom calls believe.
#![cfg(all(unix, feature = "tls"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod client;
#[cfg(feature = "consul")]
mod consul;
#[path = "rows/source.rs"]
#[expect(unreachable_pub, reason = "made for other tests, too")]
mod source;
mod support;
#[path = "tls/mod.rs"]
mod tls;

use std::time::Duration;

use client::calls::unary;
use source::TestSource;
use support::leak::LeakCheck;
use support::server::EchoServer;
use support::wait::within;
use tls::authority::Authority;
use tls::server::TlsServer;
use trunkline::{Channel, Connector, Endpoint, Tls};

const LIMIT: Duration = Duration::from_secs(10);

/// Names that other clients, or a later hand, might give a meaning.
const NAMES: &[&str] = &[
    "server_name",
    "server-name",
    "tls_server_name",
    "tls.server_name",
    "sni",
    "authority",
    ":authority",
    "grpc.authority",
    "grpc.server_name",
    "grpc.default_authority",
    "grpc.ssl_target_name_override",
    "host",
    "Host",
    ":scheme",
    "scheme",
    "tls",
    "address",
    "ca",
];

const EVIL: &str = "evil.test";

fn named_evil(address: String) -> Endpoint {
    let endpoint = Endpoint::tcp(address);
    NAMES
        .iter()
        .fold(endpoint, |it, name| it.metadata(*name, EVIL))
}

/// A server that only `localhost` can be, and the options to find that out.
fn server() -> (TlsServer, Tls) {
    let authority = Authority::new("root");
    let server = TlsServer::tcp("a", &authority.issue().dns("localhost").finish());
    (server, Tls::new().ca_pem(authority.pem()))
}

async fn check(channel: &Channel, server: &TlsServer) {
    assert_eq!(unary(channel, 1).await.unwrap().server, "a");
    let endpoint = channel.status().endpoints.remove(0);
    // It did come, for policies and people to see.
    for name in NAMES {
        assert_eq!(endpoint.metadata.get(*name).map(String::as_str), Some(EVIL));
    }
    let seen = server.seen();
    let handshakes = seen.handshakes();
    assert!(!handshakes.is_empty());
    for handshake in handshakes {
        assert_eq!(handshake.server_name.as_deref(), Some("localhost"));
    }
    assert_eq!(seen.targets(), [("https".to_owned(), server.named())]);
    assert_eq!((seen.plaintext(), seen.failed()), (0, vec![]));
}

#[tokio::test]
async fn a_source_of_ones_own_names_nobody() {
    let leaks = LeakCheck::start().await;
    let (server, tls) = server();
    let (answers, source) = TestSource::new();
    answers.send([named_evil(server.named())]).await;
    let connecting = Connector::discover(source).tls(tls).connect();
    let channel = within(LIMIT, "connecting", connecting).await.unwrap();
    check(&channel, &server).await;
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn without_tls_the_authority_stays_as_well() {
    let leaks = LeakCheck::start().await;
    let peer = support::h2_server::H2Peer::tcp();
    let (answers, source) = TestSource::new();
    answers.send([named_evil(peer.addr().to_string())]).await;
    let connecting = Connector::discover(source).connect();
    let (channel, mut conn) = tokio::join!(connecting, peer.accept());
    let channel = channel.unwrap();
    let answering = async {
        let request = conn.next().await;
        let uri = request.parts.uri.clone();
        let shown = format!("{:?}", request.parts);
        request.fail(5, "");
        (uri, shown)
    };
    let (_, (uri, shown)) = tokio::join!(unary(&channel, 1), answering);
    assert_eq!(uri.scheme_str(), Some("http"));
    assert_eq!(uri.authority().unwrap().as_str(), peer.addr().to_string());
    // No header has it either.
    assert!(!shown.contains(EVIL), "{shown}");
    drop((channel, conn, peer));
    leaks.finish().await;
}

#[cfg(feature = "consul")]
#[tokio::test]
async fn consuls_catalogue_names_nobody() {
    use consul::fake::{Fake, entry, knows};
    use serde_json::{Value, json};
    use trunkline::Consul;

    let leaks = LeakCheck::start().await;
    let (server, tls) = server();
    let mut listed = entry("a", server.addr());
    listed["Service"]["Address"] = json!("localhost");
    listed["Service"]["Meta"] = NAMES.iter().map(|it| (*it, json!(EVIL))).collect();
    listed["Service"]["Tags"] = json!(["authority=evil.test", "sni:evil.test", "http", "no-tls"]);
    listed["Node"]["Meta"] = listed["Service"]["Meta"].clone();
    let fake = Fake::start(knows(7, Value::from_iter([listed]).to_string()));
    let service = Consul::service("web").agent(fake.agent());
    let connecting = Connector::consul(service).tls(tls).connect();
    let channel = within(LIMIT, "connecting", connecting).await.unwrap();
    check(&channel, &server).await;
    drop((channel, fake, server));
    leaks.finish().await;
}

/// The other way about: where the name is wrong, no metadata makes it right.
#[tokio::test]
async fn metadata_does_not_help_the_wrong_server() {
    let leaks = LeakCheck::start().await;
    let authority = Authority::new("root");
    let server = TlsServer::tcp("a", &authority.issue().dns(EVIL).finish());
    let plain = EchoServer::start_tcp("b");
    let tls = Tls::new().ca_pem(authority.pem());
    let endpoints = [
        named_evil(server.named()),
        named_evil(plain.addr().to_string()),
    ];
    let connector = Connector::endpoints(endpoints).tls(tls);
    let error = connector
        .ready_timeout(Duration::from_millis(500))
        .connect();
    let error = error.await.unwrap_err().to_string();
    assert!(error.contains("it is not for localhost"), "{error}");
    assert_eq!(server.journal().started() + plain.journal().started(), 0);
    drop((server, plain));
    leaks.finish().await;
}
