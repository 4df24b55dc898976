//! Plugins that run already.

use std::process;
use std::time::Duration;

use trunkline::plugin::Reattach;
use trunkline::{Connector, Endpoint, HealthCheck};

use crate::client::calls::unary;
use crate::connected::{LIMIT, connected, says};
use crate::support::health::{HealthMode, HealthScript};
use crate::support::leak::LeakCheck;
use crate::support::scratch::Scratch;
use crate::support::server::EchoServer;
use crate::support::wait::wait_until;

#[tokio::test]
async fn it_is_found_where_the_record_says() {
    let leaks = LeakCheck::start().await;
    let folder = Scratch::new();
    let path = folder.path("plugin");
    let server = EchoServer::start_unix("plugin", &path);
    let record = Reattach::new("grpc", "unix", path.to_str().unwrap(), process::id())
        .unwrap()
        .protocol_version(6)
        .test(true);
    assert_eq!((record.pid, record.protocol_version), (process::id(), 6));
    assert!(record.test);
    let endpoint = record.endpoint();
    assert_eq!(endpoint.health_service_name(), Some("plugin"));
    let channel = connected(Connector::endpoints([endpoint])).await;
    assert_eq!(unary(&channel, 1).await.unwrap().server, "plugin");
    let status = channel.status().endpoints.remove(0);
    assert_eq!(status.metadata["plugin.pid"], process::id().to_string());
    assert_eq!((status.peer, status.identity), (None, None));
    drop((channel, server));
    leaks.finish().await;
}

/// No process is looked for at the other end of TCP.
#[tokio::test]
async fn over_tcp_its_process_is_for_people_only() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("plugin");
    let address = server.addr().to_string();
    let record = Reattach::new("grpc", "tcp", &address, 1).unwrap();
    let channel = connected(Connector::endpoints([record.endpoint()])).await;
    assert_eq!(unary(&channel, 1).await.unwrap().server, "plugin");
    assert_eq!(channel.status().endpoints[0].metadata["plugin.pid"], "1");
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn health_checks_ask_for_what_go_plugin_serves() {
    let leaks = LeakCheck::start().await;
    let folder = Scratch::new();
    let path = folder.path("plugin");
    let script = HealthScript::new(HealthMode::Serving);
    let server = EchoServer::builder("plugin")
        .health(script.clone())
        .unix(&path);
    let path = path.to_str().unwrap();
    let record = Reattach::new("grpc", "unix", path, process::id()).unwrap();
    let line = format!("1|1|unix|{path}|grpc|\n");
    let started = Endpoint::from_handshake(&line).unwrap();
    for (asked, endpoint) in (1..).zip([record.endpoint(), started]) {
        let connector = Connector::endpoints([endpoint]).health_check(HealthCheck::grpc());
        let channel = connected(connector).await;
        assert_eq!(unary(&channel, 1).await.unwrap().server, "plugin");
        wait_until(LIMIT, || script.requests().len() >= asked).await;
        drop(channel);
    }
    for request in script.requests() {
        assert_eq!(request.service, "plugin");
    }
    drop(server);
    leaks.finish().await;
}

#[tokio::test]
async fn another_process_in_its_place_is_refused() {
    let leaks = LeakCheck::start().await;
    let folder = Scratch::new();
    let path = folder.path("plugin");
    let server = EchoServer::start_unix("another", &path);
    // Process 1 is there, and is not this one.
    let record = Reattach::new("grpc", "unix", path.to_str().unwrap(), 1).unwrap();
    let connecting = Connector::endpoints([record.endpoint()])
        .ready_timeout(Duration::from_millis(500))
        .connect();
    let error = connecting.await.unwrap_err();
    says(
        &error.to_string(),
        &["the process that listens has pid", "not 1"],
    );
    assert_eq!(server.journal().started(), 0);
    drop(server);
    leaks.finish().await;
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        (
            "netrpc",
            "unix",
            "/tmp/a",
            "reattach.protocol: it speaks net/rpc",
        ),
        ("", "unix", "/tmp/a", "reattach.protocol: it speaks net/rpc"),
        (
            "http",
            "unix",
            "/tmp/a",
            "reattach.protocol: \"http\" is unknown",
        ),
        (
            "grpc",
            "udp",
            "a:1",
            "reattach.network: \"udp\" is unknown; it must be unix or tcp",
        ),
        ("grpc", "unix", "a", "reattach.address: "),
        ("grpc", "tcp", "a", "reattach.address: "),
    ];
    for (protocol, network, address, words) in cases {
        let error = Reattach::new(protocol, network, address, 1).unwrap_err();
        assert!(error.is_config());
        says(&error.to_string(), &[words]);
    }
    let unknown = Reattach::new("grpc", "tcp", "127.0.0.1:1", 0).unwrap();
    assert!(!format!("{:?}", unknown.endpoint()).contains("plugin.pid"));
}
