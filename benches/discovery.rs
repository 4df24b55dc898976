//! How long a change at a Consul agent takes to reach the endpoints that calls are picked from.
//!
//! `cargo bench --bench discovery`: a real agent (`scripts/consul` fetches it), one service of three instances, and a
//! change of one weight every 1.2 s, so that the limit of a query per second is never in the way. The time is from the
//! moment the agent is asked for the change, its own work included.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement, not the crate"
)]

#[path = "../tests/consul/mod.rs"]
mod consul;
#[path = "../tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use consul::agent::Agent;
use consul::registration::Registration;
use support::wait::wait_until;
use trunkline::{Connector, Consul};

const CHANGES: u32 = 50;
const APART: Duration = Duration::from_millis(1200);

#[tokio::main]
async fn main() {
    // `cargo test --benches` only wants to know that it runs.
    let changes = if std::env::args().any(|it| it == "--bench") {
        CHANGES
    } else {
        2
    };
    let agent = Agent::start().await;
    let place = |port| SocketAddr::from(([127, 0, 0, 1], port));
    for (id, port) in [("a", 1001), ("b", 1002), ("c", 1003)] {
        agent
            .api()
            .register(&Registration::new("echo", id, place(port)))
            .await;
    }
    let service = Consul::service("echo").agent(agent.http_addr().to_string());
    let channel = Connector::consul(service).connect_lazy().unwrap();
    let weight = || channel.status().endpoints.first().map(|it| it.weight);
    wait_until(Duration::from_secs(10), || weight() == Some(1)).await;

    let mut times = Vec::new();
    for nth in 0..changes {
        tokio::time::sleep(APART).await;
        let began = Instant::now();
        let changed = Registration::new("echo", "a", place(1001)).weights(nth + 2, 1);
        agent.api().register(&changed).await;
        while weight() != Some(nth + 2) {
            tokio::task::yield_now().await;
        }
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{} changes: p50 {:?}, p95 {:?}, max {:?}",
        times.len(),
        at(0.5),
        at(0.95),
        at(1.0)
    );
}
