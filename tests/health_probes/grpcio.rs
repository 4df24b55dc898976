//! grpcio's health service: Python, over gRPC's C core.

use trunkline::{Connector, Endpoint, Health, HealthSource};

use super::rig::{LIMIT, both};
use crate::client::calls::unary;
use crate::client::health::{are, is, said};
use crate::foreign::server::GrpcioServer;
use crate::support::leak::LeakCheck;
use crate::support::scratch::Scratch;

/// `HealthCheckResponse.ServingStatus`.
const SERVING: u32 = 1;
const NOT_SERVING: u32 = 2;

#[tokio::test]
async fn calls_follow_what_servers_say() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let a = GrpcioServer::tcp(&[]);
    let b = GrpcioServer::unix(&scratch.path("b.sock"), &[]);
    let servers = [&a, &b];
    // Each of the two is ill once.
    let [watch, check] = both();
    for (check, ill, service) in [
        (watch.clone(), 1, ""),
        (watch.clone(), 0, "watched"),
        (check.clone(), 0, ""),
        (check, 1, "checked"),
    ] {
        for server in servers {
            server.say("", SERVING).await;
        }
        let connector = Connector::endpoints(servers.map(|it| Endpoint::uri(it.uri())));
        let connector = connector.ready_timeout(LIMIT);
        let check = check.service(service);
        let channel = connector.health_check(check).connect().await.unwrap();
        let both_well = [Health::Healthy; 2];
        let mut one_ill = both_well;
        one_ill[ill] = Health::Ejected;
        let well = 1 - ill;
        if !service.is_empty() {
            // Known to one of them only, and to none at first.
            servers[well].say(service, SERVING).await;
            are(&channel, &one_ill).await;
            let status = is(&channel, ill, Health::Ejected).await;
            let reason = format!("it does not know the service {service:?}");
            assert_eq!(said(&status), (Some(HealthSource::Probe), &*reason));
            servers[ill].say(service, SERVING).await;
        }
        are(&channel, &both_well).await;
        servers[ill].say(service, NOT_SERVING).await;
        are(&channel, &one_ill).await;
        let status = is(&channel, ill, Health::Ejected).await;
        assert_eq!(said(&status), (Some(HealthSource::Probe), "NOT_SERVING"));
        let before = [a.handled().await.calls, b.handled().await.calls];
        for id in 1..=10 {
            unary(&channel, id).await.unwrap();
        }
        let after = [a.handled().await.calls, b.handled().await.calls];
        assert_eq!(after[ill], before[ill]);
        assert_eq!(after[well], before[well] + 10);
        servers[ill].say(service, SERVING).await;
        are(&channel, &both_well).await;
    }
    // A `Watch` under way does not keep a server from ending.
    let uri = Endpoint::uri(a.uri());
    let connector = Connector::endpoints([uri]).health_check(watch);
    let channel = connector.connect().await.unwrap();
    is(&channel, 0, Health::Healthy).await;
    assert!(a.stop().await.success());
    assert!(b.stop().await.success());
    drop(channel);
    leaks.finish().await;
}
