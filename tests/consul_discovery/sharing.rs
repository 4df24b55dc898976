//! One watch for all channels that ask the same.

use std::fs;
use std::time::Duration;

use trunkline::{Channel, Connector};

use crate::client::calls::unary;
use crate::consul::agent::Agent;
use crate::consul::registration::Registration;
use crate::support::leak::LeakCheck;
use crate::support::server::EchoServer;
use crate::support::wait::{wait_equal, within};

use super::seen::{LIMIT, echo, lazy, sees};

/// Connections from this process to the agent.
fn queries(agent: &Agent) -> usize {
    let wanted = format!("0100007F:{:04X}", agent.http_addr().port());
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    // Local address, remote address, state: 01 is established. The client's side has the agent as its remote.
    let established = table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(2);
        Some((fields.next()?, fields.next()?))
    });
    established
        .filter(|(remote, state)| *remote == wanted && *state == "01")
        .count()
}

#[tokio::test]
async fn channels_share_a_watch_and_inherit_it() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let agent = Agent::start().await;
    let api = agent.api();
    let first = lazy(echo(&agent));
    wait_equal(LIMIT, 1, || queries(&agent)).await;
    let mut others: Vec<Channel> = (0..9).map(|_| lazy(echo(&agent))).collect();
    api.register(&Registration::of("echo", &server)).await;
    for channel in others.iter().chain([&first]) {
        sees(channel, &[("a", 1)]).await;
        assert_eq!(unary(channel, 1).await.unwrap().server, "a");
    }
    wait_equal(LIMIT, 1, || queries(&agent)).await;

    // The one that asked closes: its query ends at once, and another channel goes on.
    within(LIMIT, "closing", first.close(Duration::from_secs(1))).await;
    wait_equal(LIMIT, 1, || queries(&agent)).await;
    api.register(&Registration::new("echo", "b", server.addr()).field("Port", 1001))
        .await;
    for channel in &others {
        sees(channel, &[("a", 1), ("b", 1)]).await;
    }
    // One that comes later gets what is known already.
    let late = Connector::consul(echo(&agent)).connect().await.unwrap();
    wait_equal(LIMIT, 1, || queries(&agent)).await;
    // Another question is another query.
    let other = lazy(echo(&agent).tag("v2"));
    wait_equal(LIMIT, 2, || queries(&agent)).await;

    others.clear();
    drop((first, late, other));
    wait_equal(LIMIT, 0, || queries(&agent)).await;
    drop((agent, server));
    leaks.finish().await;
}

/// The watch goes on when the runtime of the channel that led it is gone.
#[tokio::test]
async fn a_watch_outlives_the_runtime_that_led_it() {
    let leaks = LeakCheck::start().await;
    let agent = Agent::start().await;
    let leader = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let service = echo(&agent);
    let first = {
        let service = service.clone();
        leader.spawn(async move { lazy(service) }).await.unwrap()
    };
    wait_equal(LIMIT, 1, || queries(&agent)).await;
    let second = lazy(service);
    leader.shutdown_background();
    agent
        .api()
        .register(&Registration::new("echo", "a", agent.http_addr()))
        .await;
    sees(&second, &[("a", 1)]).await;
    wait_equal(LIMIT, 1, || queries(&agent)).await;
    drop((first, second, agent));
    leaks.finish().await;
}
