//! grpcio's health service: Python, over gRPC's C core.

use tokio::sync::Mutex;
use trunkline::{Connector, Endpoint, Health, HealthCheck, HealthSource};

use super::rig::{LIMIT, both};
use crate::client::calls::unary;
use crate::client::health::{are, is, said};
use crate::foreign::server::GrpcioServer;
use crate::support::leak::LeakCheck;
use crate::support::scratch::Scratch;

/// `HealthCheckResponse.ServingStatus`.
const SERVING: u32 = 1;
const NOT_SERVING: u32 = 2;

/// Two servers and the turn to count what they handle: the cases below run at once.
struct Pair {
    servers: [GrpcioServer; 2],
    counts: Mutex<()>,
}

impl Pair {
    /// Asked for the health of `service` like this, servers get calls as they say; one of them is `ill` meanwhile.
    async fn follow(&self, check: HealthCheck, ill: usize, service: &str) {
        let servers = &self.servers;
        let endpoints = servers.each_ref().map(|it| Endpoint::uri(it.uri()));
        let connector = Connector::endpoints(endpoints).ready_timeout(LIMIT);
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
        {
            let _turn = self.counts.lock().await;
            let before = self.handled().await;
            for id in 1..=10 {
                unary(&channel, id).await.unwrap();
            }
            let after = self.handled().await;
            assert_eq!(after[ill], before[ill]);
            assert_eq!(after[well], before[well] + 10);
        }
        servers[ill].say(service, SERVING).await;
        are(&channel, &both_well).await;
    }

    async fn handled(&self) -> [u64; 2] {
        let [a, b] = &self.servers;
        [a.handled().await.calls, b.handled().await.calls]
    }
}

#[tokio::test]
async fn calls_follow_what_servers_say() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let pair = Pair {
        servers: [
            GrpcioServer::tcp(&[]),
            GrpcioServer::unix(&scratch.path("b.sock"), &[]),
        ],
        counts: Mutex::default(),
    };
    for server in &pair.servers {
        server.say("", SERVING).await;
    }
    // Each of the two is ill once, in each way to ask.
    let [watch, check] = both();
    tokio::join!(
        async {
            pair.follow(watch.clone(), 1, "").await;
            pair.follow(check.clone(), 0, "").await;
        },
        pair.follow(watch.clone(), 0, "watched"),
        pair.follow(check.clone(), 1, "checked"),
    );
    // A `Watch` under way does not keep a server from ending.
    let [a, b] = pair.servers;
    let uri = Endpoint::uri(a.uri());
    let connector = Connector::endpoints([uri]).health_check(watch);
    let channel = connector.connect().await.unwrap();
    is(&channel, 0, Health::Healthy).await;
    assert!(a.stop().await.success());
    assert!(b.stop().await.success());
    drop(channel);
    leaks.finish().await;
}
