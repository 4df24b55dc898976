//! A Consul agent over https.
#![cfg(all(feature = "consul", feature = "tls"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod consul;
mod support;
#[path = "tls/mod.rs"]
mod tls;

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use consul::agent::Agent;
use consul::registration::Registration;
use serde_json::json;
use support::leak::LeakCheck;
use support::scratch::Scratch;
use support::server::EchoServer;
use support::wait::wait_until;
use tls::authority::Authority;
use trunkline::{Connector, Consul, Tls};

const LIMIT: Duration = Duration::from_secs(10);

/// An agent with a port for TLS, which asks clients for certificates if it is to.
async fn agent(folder: &Scratch, authority: &Authority, mutual: bool) -> (Agent, u16) {
    let directory = folder.path("agent");
    std::fs::create_dir_all(&directory).unwrap();
    let (chain, key) = authority
        .issue()
        .loopback()
        .finish()
        .write(&directory, "agent");
    let ca = folder.path("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let text = |path: &Path| path.display().to_string();
    // Released just before the agent takes it; whoever comes between makes the test fail, not lie.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let agent = Agent::builder()
        .setting("ports", json!({"https": port}))
        .setting("cert_file", json!(text(&chain)))
        .setting("key_file", json!(text(&key)))
        .setting("ca_file", json!(text(&ca)))
        .setting("verify_incoming_https", json!(mutual))
        .start()
        .await;
    (agent, port)
}

#[tokio::test]
async fn an_agent_is_asked_over_tls() {
    let leaks = LeakCheck::start().await;
    let (folder, authority) = (Scratch::new(), Authority::new("root"));
    let server = EchoServer::start_tcp("a");
    let (agent, port) = agent(&folder, &authority, false).await;
    agent
        .api()
        .register(&Registration::of("echo", &server))
        .await;
    let tls = || Tls::new().ca_file(folder.path("ca.pem"));
    let at = format!("https://127.0.0.1:{port}");
    // A token may go there.
    let service = || Consul::service("echo").agent(&at);
    let channel = Connector::consul(service().tls(tls()))
        .connect()
        .await
        .unwrap();
    assert_eq!(channel.status().endpoints[0].metadata["consul.id"], "a");
    drop(channel);
    let channel = Connector::consul(service().tls(tls().server_name("localhost")))
        .connect()
        .await
        .unwrap();
    agent
        .api()
        .register(&Registration::of("echo", &server).weights(9, 1))
        .await;
    wait_until(LIMIT, || channel.status().endpoints[0].weight == 9).await;

    let other = Authority::new("other");
    let cases = [
        (tls().server_name("elsewhere"), "it is not for elsewhere"),
        (
            Tls::new().ca_pem(other.pem()),
            "nobody who is trusted has signed it",
        ),
    ];
    for (tls, why) in cases {
        let connector = Connector::consul(service().tls(tls)).ready_timeout(Duration::from_secs(1));
        let error = connector.connect().await.unwrap_err().to_string();
        assert!(
            error.contains("the agent can't be talked to") && error.contains(why),
            "{error}"
        );
    }
    let missing = service().tls(Tls::new().ca_file(folder.path("none.pem")));
    let error = Connector::consul(missing).connect_lazy().unwrap_err();
    assert!(
        error.is_config() && error.to_string().contains("none.pem"),
        "{error}"
    );
    drop((channel, agent, server, folder));
    leaks.finish().await;
}

#[tokio::test]
async fn an_agent_may_ask_who_asks() {
    let leaks = LeakCheck::start().await;
    let (folder, authority) = (Scratch::new(), Authority::new("root"));
    let server = EchoServer::start_tcp("a");
    let (agent, port) = agent(&folder, &authority, true).await;
    agent
        .api()
        .register(&Registration::of("echo", &server))
        .await;
    let service = || Consul::service("echo").agent(format!("https://localhost:{port}"));
    let nobody = Tls::new().ca_pem(authority.pem());
    let connector =
        Connector::consul(service().tls(nobody.clone())).ready_timeout(Duration::from_secs(1));
    let error = connector.connect().await.unwrap_err().to_string();
    assert!(error.contains("echo failed"), "{error}");

    let (chain, key) = authority.issue().finish().write(&folder.path(""), "client");
    let somebody = nobody.identity_files(chain, key);
    let channel = Connector::consul(service().tls(somebody))
        .connect()
        .await
        .unwrap();
    assert_eq!(channel.status().endpoints[0].metadata["consul.id"], "a");
    drop((channel, agent, server, folder));
    leaks.finish().await;
}

#[test]
fn a_token_may_go_over_tls_to_any_machine() {
    let authority = Authority::new("root");
    let tls = Tls::new().ca_pem(authority.pem());
    let far = || {
        Consul::service("echo")
            .token("secret")
            .agent("10.0.0.1:8501")
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    assert!(Connector::consul(far()).connect_lazy().is_err());
    assert!(Connector::consul(far().tls(tls)).connect_lazy().is_ok());
}
