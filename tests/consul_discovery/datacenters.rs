//! Several datacenters, in order.

use trunkline::Connector;

use crate::client::calls::unary;
use crate::consul::agent::Agent;
use crate::consul::registration::{Health, Registration};
use crate::support::leak::LeakCheck;
use crate::support::server::EchoServer;
use crate::support::wait::wait_until;

use super::seen::{LIMIT, echo, lazy, sees, trouble};

#[tokio::test]
async fn the_second_is_used_while_nothing_passes_in_the_first() {
    let leaks = LeakCheck::start().await;
    let servers = ["near", "far"].map(EchoServer::start_tcp);
    let near = Agent::builder().datacenter("dc1").start().await;
    let far = Agent::builder()
        .datacenter("dc2")
        .joined_to(&near)
        .start()
        .await;
    near.api()
        .register(&Registration::of("echo", &servers[0]).health(Health::Passing))
        .await;
    far.api()
        .register(&Registration::of("echo", &servers[1]))
        .await;

    let service = echo(&near).datacenter("dc1").datacenter("dc2");
    let channel = Connector::consul(service).connect().await.unwrap();
    sees(&channel, &[("near", 1)]).await;
    near.api().set_health("near", Health::Critical).await;
    sees(&channel, &[("far", 1)]).await;
    assert_eq!(
        channel.status().endpoints[0].metadata["consul.datacenter"],
        "dc2"
    );
    assert_eq!(unary(&channel, 1).await.unwrap().server, "far");
    near.api().set_health("near", Health::Passing).await;
    sees(&channel, &[("near", 1)]).await;
    assert_eq!(unary(&channel, 2).await.unwrap().server, "near");

    // Only the other one, by name; and one that there is not.
    let other = lazy(echo(&near).datacenter("dc2"));
    sees(&other, &[("far", 1)]).await;
    let unknown = lazy(echo(&near).datacenter("dc9"));
    wait_until(LIMIT, || trouble(&unknown).contains("dc9")).await;
    assert!(trouble(&unknown).contains("500"), "{}", trouble(&unknown));
    // An order that begins with it works all the same.
    let rest = lazy(echo(&near).datacenter("dc9").datacenter("dc2"));
    sees(&rest, &[("far", 1)]).await;
    drop((channel, other, unknown, rest, near, far, servers));
    leaks.finish().await;
}
