//! Agents that are gone, wiped, frozen or without a leader, and answers that are not believed.

use std::time::Duration;

use serde_json::json;
use trunkline::{Connector, Outage};

use crate::client::calls::unary;
use crate::consul::agent::Agent;
use crate::consul::api::Api;
use crate::consul::registration::Registration;
use crate::support::leak::LeakCheck;
use crate::support::server::EchoServer;
use crate::support::wait::{wait_equal, wait_until};

use super::seen::{LIMIT, echo, lazy, sees, trouble};

/// The grace of these tests is far longer than they are.
fn patient() -> Outage {
    Outage::drain().grace(Duration::from_secs(3600))
}

#[tokio::test]
async fn an_agent_is_killed_and_comes_back_empty() {
    let leaks = LeakCheck::start().await;
    let servers = ["a", "b", "c"].map(EchoServer::start_tcp);
    let mut agent = Agent::start().await;
    for server in &servers {
        agent
            .api()
            .register(&Registration::of("echo", server))
            .await;
    }
    let channel = Connector::consul(echo(&agent).outage(patient()))
        .connect()
        .await
        .unwrap();
    let all = [("a", 1), ("b", 1), ("c", 1)];
    sees(&channel, &all).await;

    agent.kill();
    wait_until(LIMIT, || trouble(&channel).contains("agent")).await;
    sees(&channel, &all).await;
    let age = channel.status().resolution_age.unwrap();
    unary(&channel, 1).await.unwrap();

    agent.restart().await;
    wait_until(LIMIT, || {
        trouble(&channel).contains("the answer had no usable endpoint")
    })
    .await;
    assert!(
        trouble(&channel).contains("stay in use for 3600s and then leave one by one"),
        "{}",
        trouble(&channel)
    );
    let status = channel.status();
    assert!(
        status.resolution_age.unwrap() > age,
        "the age is that of the set in use"
    );
    assert!(
        status
            .endpoints
            .iter()
            .all(|it| !it.listed && it.leaves_in.unwrap() > Duration::from_secs(3000))
    );

    // They register again one by one; those that have not yet are kept.
    for (nth, server) in servers.iter().enumerate() {
        agent
            .api()
            .register(&Registration::of("echo", server))
            .await;
        wait_until(LIMIT, || {
            let status = channel.status();
            status.endpoints.iter().filter(|it| it.listed).count() == nth + 1
        })
        .await;
        sees(&channel, &all).await;
    }
    assert_eq!(channel.status().discovery_error, None);
    for server in &servers {
        assert_eq!(server.journal().accepted(), 1, "no connection was replaced");
    }
    drop((channel, agent, servers));
    leaks.finish().await;
}

/// A node of its own with these instances, which vanish with it.
async fn register_node(api: &Api, servers: &[EchoServer]) {
    for server in servers {
        let service = json!({
            "ID": server.name(), "Service": "echo", "Address": "127.0.0.1", "Port": server.addr().port(),
        });
        let node = json!({"Node": "other", "Address": "127.0.0.1", "Service": service});
        assert_eq!(api.put("/v1/catalog/register", &node).await.status, 200);
    }
}

#[tokio::test]
async fn those_that_vanish_in_a_crowd_stay_while_they_work() {
    let leaks = LeakCheck::start().await;
    let mut servers = ["a", "b", "c", "d"].map(EchoServer::start_tcp);
    let agent = Agent::start().await;
    let api = agent.api();
    let all = [("a", 1), ("b", 1), ("c", 1), ("d", 1)];
    api.register(&Registration::of("echo", &servers[0])).await;
    register_node(&api, &servers[1..]).await;
    let connect = |outage| Connector::consul(echo(&agent).outage(outage)).connect();
    let channel = connect(patient()).await.unwrap();
    let believing = connect(patient().guard(1.0)).await.unwrap();
    for channel in [&channel, &believing] {
        sees(channel, &all).await;
        wait_until(LIMIT, || {
            channel
                .status()
                .endpoints
                .iter()
                .all(|it| it.connections > 0)
        })
        .await;
    }

    let gone = json!({"Node": "other"});
    assert_eq!(api.put("/v1/catalog/deregister", &gone).await.status, 200);
    sees(&believing, &[("a", 1)]).await;
    let doubt = "3 of 4 endpoints were gone at once; those that still work stay in use for 3600s";
    wait_equal(LIMIT, doubt.to_owned(), || trouble(&channel)).await;
    sees(&channel, &all).await;
    servers[3].kill();
    sees(&channel, &[("a", 1), ("b", 1), ("c", 1)]).await;
    for id in 1..20 {
        unary(&channel, id).await.unwrap();
    }
    // Listed again, it is one like all others; and what goes alone is believed.
    register_node(&api, &servers[1..2]).await;
    let listed = || {
        channel
            .status()
            .endpoints
            .iter()
            .filter(|it| it.listed)
            .count()
    };
    wait_equal(LIMIT, 2, listed).await;
    assert_eq!(api.put("/v1/catalog/deregister", &gone).await.status, 200);
    sees(&channel, &[("a", 1), ("c", 1)]).await;
    drop((channel, believing, agent, servers));
    leaks.finish().await;
}

#[tokio::test]
async fn what_an_empty_answer_does_is_a_rule() {
    let leaks = LeakCheck::start().await;
    let servers = ["a", "b"].map(EchoServer::start_tcp);
    let agent = Agent::start().await;
    let api = agent.api();
    register_node(&api, &servers).await;
    let quick = |outage: Outage| {
        outage
            .grace(Duration::ZERO)
            .drain_over(Duration::from_secs(2))
    };
    let connect = |outage| Connector::consul(echo(&agent).outage(outage)).connect();
    let draining = connect(quick(Outage::drain())).await.unwrap();
    let keeping = connect(quick(Outage::keep())).await.unwrap();
    let failing = connect(quick(Outage::fail())).await.unwrap();
    for channel in [&draining, &keeping, &failing] {
        sees(channel, &[("a", 1), ("b", 1)]).await;
    }
    let gone = json!({"Node": "other"});
    assert_eq!(api.put("/v1/catalog/deregister", &gone).await.status, 200);
    sees(&failing, &[]).await;
    let error = unary(&failing, 1).await.unwrap_err();
    assert!(
        error.message().contains("Consul knows no instance"),
        "{error:?}"
    );
    sees(&draining, &[("b", 1)]).await;
    sees(&draining, &[]).await;
    unary(&draining, 2).await.unwrap_err();
    sees(&keeping, &[("a", 1), ("b", 1)]).await;
    unary(&keeping, 3).await.unwrap();
    drop((draining, keeping, failing, agent, servers));
    leaks.finish().await;
}

#[tokio::test]
async fn an_agent_without_leader_is_a_trouble_and_no_answer() {
    let leaks = LeakCheck::start().await;
    let lost = Agent::builder().without_leader().start().await;
    let channel = lazy(echo(&lost));
    wait_until(LIMIT * 2, || trouble(&channel).contains("500")).await;
    assert!(
        trouble(&channel).contains("No cluster leader"),
        "{}",
        trouble(&channel)
    );
    assert_eq!(channel.status().resolution_age, None);
    drop((channel, lost));
    leaks.finish().await;
}
