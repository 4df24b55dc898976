//! Plugins that run already.

use std::process;
use std::time::Duration;

use trunkline::Connector;
use trunkline::plugin::Reattach;

use crate::client::calls::unary;
use crate::connected::{connected, says};
use crate::support::leak::LeakCheck;
use crate::support::scratch::Scratch;
use crate::support::server::EchoServer;

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
