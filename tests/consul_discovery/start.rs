//! What `connect` says when there is nothing to connect to, and what a lazy channel does then.

use std::net::TcpListener;
use std::time::Duration;

use trunkline::{CallOptions, Connector, Consul, Error, Retry};

use crate::client::calls::{ask, unary};
use crate::consul::agent::Agent;
use crate::consul::registration::{Health, Registration};
use crate::support::calls::request;
use crate::support::leak::LeakCheck;
use crate::support::server::EchoServer;
use crate::support::wait::wait_until;

use super::seen::{LIMIT, echo, lazy};

async fn refused(service: Consul) -> String {
    let connector = Connector::consul(service).ready_timeout(Duration::from_secs(1));
    let error: Error = connector.connect().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    error.to_string()
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[tokio::test]
async fn without_an_agent_the_error_names_it() {
    let leaks = LeakCheck::start().await;
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = refused(Consul::service("echo").agent(closed.to_string())).await;
    says(
        &error,
        &[
            &format!("consul://{closed}/echo failed"),
            "the agent can't be reached",
            "refused",
        ],
    );
    let error = refused(Consul::service("echo").agent("unix:/nowhere/consul.sock")).await;
    says(
        &error,
        &[
            "consul://unix:/nowhere/consul.sock/echo failed",
            "there is no such file",
        ],
    );
    leaks.finish().await;
}

#[tokio::test]
async fn what_is_left_out_is_counted() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let agent = Agent::start().await;
    let api = agent.api();
    let error = refused(echo(&agent)).await;
    says(
        &error,
        &[
            "Consul knows no instance of the service",
            "the token may lack service:read or node:read",
        ],
    );

    let channel = lazy(echo(&agent).passing_only(true));
    let retry = Retry::none();
    let failing = Connector::consul(echo(&agent))
        .retry(retry)
        .connect_lazy()
        .unwrap();
    let critical = Registration::of("echo", &server).health(Health::Critical);
    api.register(&critical).await;
    let warning = Registration::new("echo", "b", server.addr()).health(Health::Warning);
    api.register(&warning.field("Port", 0)).await;
    let error = refused(echo(&agent).passing_only(true)).await;
    says(
        &error,
        &["Consul knows 2 instances: 1 critical, 1 with a warning"],
    );
    let error = refused(echo(&agent)).await;
    says(
        &error,
        &["Consul knows 2 instances: 1 critical, 1 without a usable address or weight"],
    );
    let call = || ask(&failing, request(1), CallOptions::new());
    wait_until(LIMIT, || failing.status().resolution_age.is_some()).await;
    says(
        call().await.unwrap_err().message(),
        &["has no endpoint: Consul knows 2 instances: 1 critical"],
    );

    // It comes, and is served from at once.
    api.set_health("a", Health::Passing).await;
    let waits = CallOptions::new().wait_for_ready(true);
    assert_eq!(ask(&channel, request(2), waits).await.unwrap().server, "a");

    api.maintenance("a", true).await;
    wait_until(LIMIT, || channel.status().endpoints[0].weight == 0).await;
    let error = refused(echo(&agent).passing_only(true)).await;
    says(&error, &["drained (weight 0)"]);
    drop((channel, failing, agent, server));
    leaks.finish().await;
}

#[tokio::test]
async fn a_lazy_channel_finds_an_agent_that_comes_late() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let mut agent = Agent::start().await;
    agent.kill();
    let channel = lazy(echo(&agent));
    wait_until(LIMIT, || channel.status().discovery_error.is_some()).await;
    assert!(unary(&channel, 1).await.is_err());
    agent.restart().await;
    agent
        .api()
        .register(&Registration::of("echo", &server))
        .await;
    let waits = CallOptions::new().wait_for_ready(true);
    assert_eq!(ask(&channel, request(2), waits).await.unwrap().server, "a");
    drop((channel, agent, server));
    leaks.finish().await;
}

#[tokio::test]
async fn settings_are_checked_by_name() {
    let bad = |service: Consul| Connector::consul(service).connect_lazy().unwrap_err();
    let ok = || Consul::service("echo");
    let long = Duration::from_secs(601);
    let cases = [
        (Consul::service(""), "consul.service: "),
        (Consul::service("a/b"), "consul.service: "),
        (ok().agent("ftp://x"), "consul.agent: "),
        (ok().agent(""), "consul.agent: "),
        (ok().token("a\nb"), "consul.token: "),
        (ok().token(""), "consul.token: "),
        (
            ok().token("secret").agent("10.0.0.1:8500"),
            "consul.token: it (or CONSUL_HTTP_TOKEN) would go in plaintext",
        ),
        (
            ok().token_file("/x").agent("consul.internal:8500"),
            "consul.token: it (or CONSUL_HTTP_TOKEN) would go in plaintext",
        ),
        (ok().tag(""), "consul.tag: "),
        (ok().tag("`\""), "consul.tag: "),
        (ok().datacenter("a").datacenter("a"), "consul.datacenter: "),
        (ok().datacenter("../x"), "consul.datacenter: "),
        (ok().filter("x".repeat(70_000)), "consul.filter: "),
        (ok().cache(""), "consul.cache: "),
        (ok().token_file(""), "consul.token_file: "),
        (ok().near(" "), "consul.near: "),
        (ok().filter(""), "consul.filter: "),
        (ok().namespace(""), "consul.namespace: "),
        (ok().tagged_address(""), "consul.tagged_address: "),
        (ok().wait(Duration::ZERO), "consul.wait: "),
        (ok().wait(long), "consul.wait: "),
        (ok().max_answer_bytes(0), "consul.max_answer_bytes: "),
        (ok().cache_max_age(Duration::ZERO), "consul.cache_max_age: "),
        (
            ok().outage(trunkline::Outage::drain().guard(f64::NAN)),
            "consul.outage.guard: ",
        ),
        (
            ok().outage(trunkline::Outage::drain().grace(Duration::MAX)),
            "consul.outage.grace: ",
        ),
    ];
    for (service, expected) in cases {
        let error = bad(service);
        assert!(error.is_config(), "{error:?}");
        says(&error.to_string(), &[expected]);
        assert!(!format!("{error:?}").contains("secret"));
    }
    let allowed = ok()
        .token("secret")
        .agent("10.0.0.1:8500")
        .allow_plaintext_token(true);
    drop(lazy(allowed));
    drop(lazy(ok().token("secret").agent("localhost:1")));
}
