//! The main job, in one short test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use support::server::EchoServer;
use trunkline::{Connector, Endpoint};
use trunkline_proto::EchoRequest;
use trunkline_proto::echo_client::EchoClient;

#[tokio::test]
async fn three_endpoints_share_the_calls() {
    let servers = [
        EchoServer::start_tcp("a"),
        EchoServer::start_tcp("b"),
        EchoServer::start_tcp("c"),
    ];
    let endpoints = servers.iter().map(|server| Endpoint::uri(server.uri()));
    let channel = Connector::endpoints(endpoints).connect().await.unwrap();
    let mut client = EchoClient::new(channel.clone());
    for id in 0..300 {
        let reply = client
            .unary(EchoRequest {
                id,
                ..Default::default()
            })
            .await
            .unwrap();
        assert_eq!(reply.into_inner().id, id);
    }
    println!("{:#?} {:?}", channel.status(), channel.stats());
    for server in &servers {
        assert!(server.journal().finished() >= 99);
    }
}
