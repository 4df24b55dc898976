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

use std::env;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use consul::agent::Agent;
use consul::registration::Registration;
use serde_json::json;
use support::cutter::{Cut, Cutter};
use support::leak::LeakCheck;
use support::scratch::Scratch;
use support::server::EchoServer;
use support::wait::{wait_equal, wait_until};
use tls::authority::Authority;
use tls::lease::Lease;
use tls::log::Log;
use tls::mute::MuteServer;
use tls::server::TlsServer;
use trunkline::{Connector, Consul, Tls};

const LIMIT: Duration = Duration::from_secs(10);
const EXPIRES: &str = "a certificate of this side is about to expire";

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

/// The same with an instance of the service `echo`.
async fn with_echo(
    folder: &Scratch,
    authority: &Authority,
    mutual: bool,
) -> (EchoServer, Agent, u16) {
    let server = EchoServer::start_tcp("a");
    let (agent, port) = agent(folder, authority, mutual).await;
    agent
        .api()
        .register(&Registration::of("echo", &server))
        .await;
    (server, agent, port)
}

#[tokio::test]
async fn an_agent_is_asked_over_tls() {
    let leaks = LeakCheck::start().await;
    let (folder, authority) = (Scratch::new(), Authority::new("root"));
    let (server, agent, port) = with_echo(&folder, &authority, false).await;
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
    let (server, agent, port) = with_echo(&folder, &authority, true).await;
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

/// Neither a query nor the token goes to who does not speak TLS, or has no right to be the agent.
#[tokio::test]
async fn nobody_hears_the_token_in_plaintext() {
    let leaks = LeakCheck::start().await;
    let (authority, other) = (Authority::new("root"), Authority::new("other"));
    let plaintext = MuteServer::saying(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
    let false_agent = TlsServer::tcp("a", &other.issue().loopback().finish());
    let cases = [
        (plaintext.addr(), "the server does not speak TLS"),
        (false_agent.addr(), "nobody who is trusted has signed it"),
    ];
    for (addr, why) in cases {
        let service = Consul::service("echo")
            .agent(addr.to_string())
            .token("secret")
            .tls(Tls::new().ca_pem(authority.pem()));
        let connector = Connector::consul(service).ready_timeout(Duration::from_secs(1));
        let error = connector.connect().await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    for seen in [plaintext.seen(), false_agent.seen()] {
        assert!(seen.accepted() > 0 && seen.records() > 0);
        assert_eq!((seen.plaintext(), seen.handshakes()), (0, Vec::new()));
    }
    drop((plaintext, false_agent));
    leaks.finish().await;
}

/// A certificate that is replaced is shown to the agent at the next query, without a restart of either side.
#[tokio::test]
async fn an_agent_sees_the_new_certificate() {
    let log = Log::start();
    let leaks = LeakCheck::start().await;
    let folder = Scratch::new();
    let authority = Authority::new("root");
    let (server, agent, port) = with_echo(&folder, &authority, true).await;
    let dialled = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&dialled);
    let relay = Cutter::start(SocketAddr::from(([127, 0, 0, 1], port)), move || {
        counted.fetch_add(1, SeqCst);
        Cut::Never
    });
    let dialled = || dialled.load(SeqCst);
    let long = || authority.issue().for_clients().subject("first");
    let (chain, key) = long().finish().write(&folder.path(""), "client");
    let tls = Tls::new()
        .ca_pem(authority.pem())
        .identity_files(chain, key);
    let service = Consul::service("echo")
        .agent(format!("https://{}", relay.addr()))
        .tls(tls.clone())
        .wait(Duration::from_secs(1));
    let channel = Connector::consul(service).connect().await.unwrap();
    assert_eq!(dialled(), 1);
    assert_eq!(log.count(EXPIRES), 0);

    let soon = authority.issue().for_clients().subject("second");
    let soon = soon.valid_for_days(20).since_days_ago(345).finish();
    soon.write(&folder.path(""), "client");
    wait_equal(LIMIT, 2, dialled).await;
    wait_until(LIMIT, || log.count(EXPIRES) > 0).await;
    // Whoever follows sees what happens then.
    let weighted = Registration::of("echo", &server).weights(9, 1);
    agent.api().register(&weighted).await;
    wait_until(LIMIT, || channel.status().endpoints[0].weight == 9).await;

    // What can't be used changes nothing.
    std::fs::write(folder.path("client.key"), "hello").unwrap();
    wait_until(LIMIT, || log.count("it has no private key in PEM") > 0).await;
    let weighted = Registration::of("echo", &server).weights(8, 1);
    agent.api().register(&weighted).await;
    wait_until(LIMIT, || channel.status().endpoints[0].weight == 8).await;
    assert_eq!(dialled(), 2);
    assert_eq!(log.count(EXPIRES), 1);
    assert_eq!(log.count("it has no private key in PEM"), 1);
    let told = channel.status().discovery_error.unwrap();
    assert!(told.contains("it has no private key in PEM"), "{told}");
    soon.write(&folder.path(""), "client");
    wait_until(LIMIT, || channel.status().discovery_error.is_none()).await;
    drop(channel);
    relay.stop().await;
    drop((agent, server, folder));
    leaks.finish().await;
}

/// A disk that is gone keeps nothing from the agent.
#[tokio::test]
async fn an_agent_is_asked_while_files_hang() {
    let leaks = LeakCheck::start().await;
    let (folder, authority) = (Scratch::new(), Authority::new("root"));
    let (server, agent, port) = with_echo(&folder, &authority, false).await;
    let service = Consul::service("echo")
        .agent(format!("https://127.0.0.1:{port}"))
        .tls(Tls::new().ca_file(folder.path("ca.pem")))
        .wait(Duration::from_secs(1));
    let channel = Connector::consul(service).connect().await.unwrap();
    let Some(lease) = Lease::on(&folder.path("ca.pem")) else {
        drop((channel, agent, server, folder));
        return leaks.finish().await;
    };
    for weight in [9_u32, 8] {
        let weighted = Registration::of("echo", &server).weights(weight, 1);
        agent.api().register(&weighted).await;
        let seen = || channel.status().endpoints[0].weight == weight;
        wait_until(3 * LIMIT, seen).await;
    }
    // And that is all that there is to tell.
    let told = channel.status().discovery_error.unwrap();
    assert!(told.contains("reading the files takes more"), "{told}");
    drop((lease, channel, agent, server, folder));
    leaks.finish().await;
}

/// What the other process is to ask for.
const TARGET: &str = "TRUNKLINE_CONSUL_TARGET";

/// The variables are everybody's, so they are set for processes of their own.
#[tokio::test]
async fn the_variables_of_consuls_tools_are_enough() {
    let leaks = LeakCheck::start().await;
    let (folder, authority) = (Scratch::new(), Authority::new("root"));
    let (server, agent, port) = with_echo(&folder, &authority, true).await;
    let own = authority.issue().for_clients().finish();
    let (chain, key) = own.write(&folder.path(""), "client");
    let text = |path: &Path| path.display().to_string();
    let place = format!("127.0.0.1:{port}");
    let ca = ("CONSUL_CACERT", text(&folder.path("ca.pem")));
    let identity = [
        ("CONSUL_CLIENT_CERT", text(&chain)),
        ("CONSUL_CLIENT_KEY", text(&key)),
    ];
    let addr = ("CONSUL_HTTP_ADDR", place.clone());
    let ssl = ("CONSUL_HTTP_SSL", "true".to_owned());
    let name = |name: &str| ("CONSUL_TLS_SERVER_NAME", name.to_owned());
    let known = [&[ca.clone()][..], &identity].concat();
    let with = |more: &[(&'static str, String)]| [&known[..], more].concat();
    let by_tls = format!("consul://{place}/echo?tls=true");
    let found = "found a";
    let cases = [
        (by_tls.clone(), known.clone(), found),
        (
            "consul:///echo".to_owned(),
            with(&[addr.clone(), ssl.clone()]),
            found,
        ),
        (
            "consul:///echo".to_owned(),
            with(&[("CONSUL_HTTP_ADDR", format!("https://{place}"))]),
            found,
        ),
        (by_tls.clone(), with(&[name("localhost")]), found),
        (
            by_tls.clone(),
            with(&[name("elsewhere")]),
            "it is not for elsewhere",
        ),
        (
            by_tls.clone(),
            identity.to_vec(),
            "nobody who is trusted has signed it",
        ),
        (by_tls.clone(), vec![ca], "certificate"),
        // In no way is it taken for somebody else than it is.
        (
            by_tls.clone(),
            with(&[("CONSUL_HTTP_SSL_VERIFY", "false".to_owned())]),
            "consul.tls: CONSUL_HTTP_SSL_VERIFY=false would take anybody for the agent",
        ),
        // It is plaintext that is asked for then, and a port for TLS that is asked.
        ("consul:///echo".to_owned(), with(&[addr]), "the agent"),
    ];
    for (target, variables, expected) in cases {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "one_query", "--ignored", "--nocapture"])
            .env(TARGET, &target)
            .envs(variables.clone())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let line = said.lines().find(|line| line.starts_with(TARGET));
        let line = line.unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains(expected), "{target}, {variables:?}: {line}");
        assert_eq!(line.contains(found), expected == found);
    }
    drop((agent, server, folder));
    leaks.finish().await;
}

#[tokio::test]
#[ignore = "a part of the test above, which runs it in another process"]
async fn one_query() {
    let Ok(target) = env::var(TARGET) else { return };
    let connector = Connector::target(target).ready_timeout(Duration::from_secs(2));
    match connector.connect().await {
        Ok(channel) => {
            let found = &channel.status().endpoints[0].metadata["consul.id"];
            println!("\n{TARGET}: found {found}");
        }
        Err(error) => println!("\n{TARGET}: {error}"),
    }
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
