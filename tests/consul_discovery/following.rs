//! Changes of a service, as the channel learns of them.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use serde_json::json;
use trunkline::{Connector, Consul, UnixOptions};

use crate::client::calls::unary;
use crate::consul::agent::Agent;
use crate::consul::registration::{Health, Registration};
use crate::support::leak::LeakCheck;
use crate::support::server::EchoServer;
use crate::support::wait::wait_until;

use super::seen::{LIMIT, echo, lazy, sees};

fn nowhere(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[tokio::test]
async fn every_kind_of_change_is_followed() {
    let leaks = LeakCheck::start().await;
    let servers = ["a", "b"].map(EchoServer::start_tcp);
    let agent = Agent::start().await;
    let api = agent.api();
    let a = Registration::of("echo", &servers[0]).health(Health::Passing);
    let b = Registration::of("echo", &servers[1])
        .weights(5, 2)
        .health(Health::Passing);
    api.register(&a).await;

    let channel = Connector::consul(echo(&agent)).connect().await.unwrap();
    assert_eq!(unary(&channel, 1).await.unwrap().server, "a");
    let name = format!("consul://{}/echo", agent.http_addr());
    assert_eq!(channel.status().source, name);

    api.register(&b).await;
    sees(&channel, &[("a", 1), ("b", 5)]).await;
    api.set_health("b", Health::Warning).await;
    sees(&channel, &[("a", 1), ("b", 2)]).await;
    api.set_health("b", Health::Critical).await;
    sees(&channel, &[("a", 1)]).await;
    api.set_health("b", Health::Passing).await;
    sees(&channel, &[("a", 1), ("b", 5)]).await;
    api.register(&b.weights(7, 1)).await;
    sees(&channel, &[("a", 1), ("b", 7)]).await;
    api.maintenance("a", true).await;
    sees(&channel, &[("a", 0), ("b", 7)]).await;
    assert_eq!(unary(&channel, 2).await.unwrap().server, "b");
    api.maintenance("a", false).await;
    sees(&channel, &[("a", 1), ("b", 7)]).await;
    api.deregister("a").await;
    sees(&channel, &[("b", 7)]).await;
    assert_eq!(unary(&channel, 3).await.unwrap().server, "b");

    let status = channel.status();
    let index: u64 = status.resolution_revision.unwrap().parse().unwrap();
    assert!(index > 1);
    assert_eq!(status.discovery_error, None);
    drop((channel, agent, servers));
    leaks.finish().await;
}

#[tokio::test]
async fn changes_are_followed_without_calls_and_metadata_with_them() {
    let leaks = LeakCheck::start().await;
    let agent = Agent::start().await;
    let api = agent.api();
    let channel = lazy(echo(&agent));
    let service = Registration::new("echo", "a", nowhere(1001))
        .tags(&["v1", "blue"])
        .meta(&[("zone", "z1")]);
    api.register(&service).await;
    sees(&channel, &[("a", 1)]).await;
    let facts = channel.status().endpoints[0].metadata.clone();
    assert_eq!(
        (facts["zone"].as_str(), facts["consul.tags"].as_str()),
        ("z1", "v1,blue")
    );
    assert_eq!(facts["consul.node"], agent.node_name());
    assert_eq!(facts["consul.datacenter"], agent.datacenter());

    api.register(&service.meta(&[("zone", "z2")])).await;
    wait_until(LIMIT, || {
        channel.status().endpoints[0].metadata["zone"] == "z2"
    })
    .await;
    drop((channel, agent));
    leaks.finish().await;
}

#[tokio::test]
async fn only_what_is_asked_for_is_found() {
    let leaks = LeakCheck::start().await;
    let agent = Agent::start().await;
    let api = agent.api();
    let quoted = r#"it's "so" \ odd"#;
    for (nth, (id, tags, zone)) in [
        ("a", ["v1", "blue"], "z1"),
        ("b", ["v2", "blue"], "z2"),
        ("c", ["v2", quoted], "z1"),
    ]
    .into_iter()
    .enumerate()
    {
        let service = Registration::new("echo", id, nowhere(1001 + nth as u16));
        let service = service.tags(&tags).meta(&[("zone", zone)]);
        let service = service.field(
            "TaggedAddresses",
            json!({"wan": {"Address": "127.0.0.9", "Port": 2000 + nth}}),
        );
        api.register(&service).await;
    }
    api.maintenance("a", true).await;
    let text = |parameters: &str| {
        Consul::target(format!("consul://{}/echo{parameters}", agent.http_addr()))
    };
    let cases: [(Consul, &[(&str, u32)]); 9] = [
        (echo(&agent), &[("a", 0), ("b", 1), ("c", 1)]),
        (echo(&agent).tag("v2"), &[("b", 1), ("c", 1)]),
        (echo(&agent).tag("v2").tag("blue"), &[("b", 1)]),
        (echo(&agent).tag(quoted), &[("c", 1)]),
        (
            echo(&agent).filter(r#"Service.Meta.zone == "z1""#),
            &[("a", 0), ("c", 1)],
        ),
        (
            echo(&agent)
                .tag("v2")
                .filter(r#"Service.Meta.zone == "z1" or Service.Port == 1"#),
            &[("c", 1)],
        ),
        (text("?tag=v2&tag=blue"), &[("b", 1)]),
        (
            text("?filter=Service.Port%20%3D%3D%201003&stale&near=_agent&wait=5s"),
            &[("c", 1)],
        ),
        (
            echo(&agent)
                .datacenter(agent.datacenter())
                .tag("nobody has it"),
            &[],
        ),
    ];
    for (service, expected) in cases {
        let channel = lazy(service);
        wait_until(LIMIT, || channel.status().resolution_age.is_some()).await;
        sees(&channel, expected).await;
    }
    let channel = lazy(echo(&agent).tagged_address("wan").tag("v1"));
    wait_until(LIMIT, || channel.status().endpoints.len() == 1).await;
    assert_eq!(channel.status().endpoints[0].address, "127.0.0.9:2000");
    drop((channel, agent));
    leaks.finish().await;
}

#[tokio::test]
async fn warnings_count_or_not() {
    let leaks = LeakCheck::start().await;
    let agent = Agent::start().await;
    for (id, port, health) in [("a", 1001, Health::Passing), ("b", 1002, Health::Warning)] {
        let service = Registration::new("echo", id, nowhere(port)).weights(10, 3);
        agent.api().register(&service.health(health)).await;
    }
    let all = lazy(echo(&agent));
    let passing = lazy(echo(&agent).passing_only(true));
    sees(&all, &[("a", 10), ("b", 3)]).await;
    sees(&passing, &[("a", 10)]).await;
    drop((all, passing, agent));
    leaks.finish().await;
}

#[tokio::test]
async fn an_entry_of_no_use_drops_only_itself() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("good");
    let agent = Agent::start().await;
    let api = agent.api();
    api.register(&Registration::of("echo", &server)).await;
    api.register(&Registration::new("echo", "no port", nowhere(0)))
        .await;
    // Past the agent, which would refuse these.
    for (id, address) in [("odd", "no/host name"), ("zone", "fe80::1%eth0")] {
        let service = json!({"ID": id, "Service": "echo", "Address": address, "Port": 80});
        let node = json!({"Node": "other", "Address": "127.0.0.1", "Service": service});
        assert_eq!(api.put("/v1/catalog/register", &node).await.status, 200);
    }
    let channel = Connector::consul(echo(&agent)).connect().await.unwrap();
    sees(&channel, &[("good", 1)]).await;
    for id in 1..20 {
        assert_eq!(unary(&channel, id).await.unwrap().server, "good");
    }
    drop((channel, agent, server));
    leaks.finish().await;
}

/// What is wrong with the agent's socket is told, and put right it is asked.
#[tokio::test]
async fn an_agents_socket_is_looked_at_if_it_is_to() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let agent = Agent::builder().unix().start().await;
    agent
        .api()
        .register(&Registration::of("echo", &server))
        .await;
    let path = agent.unix_path();
    let own = fs::metadata(&path).unwrap().uid();
    let asking = |options| {
        let service = Consul::service("echo").agent(format!("unix:{}", path.display()));
        Connector::consul(service.unix_options(options))
    };
    for options in [
        UnixOptions::new().owner(own),
        UnixOptions::new().peer_uid(own),
    ] {
        let channel = asking(options).connect().await.unwrap();
        assert_eq!(unary(&channel, 1).await.unwrap().server, "a");
    }
    let foreign = own + 1;
    for (options, problem) in [
        (UnixOptions::new().owner(foreign), "UnixOptions::owner"),
        (
            UnixOptions::new().peer_uid(foreign),
            "UnixOptions::peer_uid",
        ),
    ] {
        let connector = asking(options).ready_timeout(Duration::from_secs(1));
        let error = connector.connect().await.unwrap_err().to_string();
        let reached = "the agent can't be reached";
        assert!(
            error.contains(reached) && error.contains(problem),
            "{error}"
        );
    }
    // Those of the channel are for its endpoints.
    let service = Consul::service("echo").agent(format!("unix:{}", path.display()));
    let connector = Connector::consul(service).unix_options(UnixOptions::new().owner(foreign));
    connector.connect().await.unwrap();

    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let channel = asking(UnixOptions::new().refuse_world_writable(true))
        .connect_lazy()
        .unwrap();
    let told = || channel.status().discovery_error.is_some();
    wait_until(LIMIT, told).await;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    sees(&channel, &[("a", 1)]).await;
    drop((channel, agent, server));
    leaks.finish().await;
}

#[tokio::test]
async fn an_agent_on_a_unix_socket_is_asked() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let agent = Agent::builder().unix().start().await;
    agent
        .api()
        .register(&Registration::of("echo", &server))
        .await;
    let path = agent.unix_path();
    let named = Consul::service("echo").agent(format!("unix:{}", path.display()));
    let target = Consul::target(format!("consul:///echo?agent=unix:{}", path.display()));
    for service in [named, target] {
        let channel = Connector::consul(service).connect().await.unwrap();
        assert_eq!(unary(&channel, 1).await.unwrap().server, "a");
    }
    drop((agent, server));
    leaks.finish().await;
}
