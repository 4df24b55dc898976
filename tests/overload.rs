//! Endpoints that refuse calls because they have too much to do get less, and are not ejected.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod client;
mod support;

use std::time::Duration;

use client::calls::endpoint;
use client::health::{said, spread, status};
use support::leak::LeakCheck;
use support::server::EchoServer;
use support::wait::wait_until;
use tonic::Code;
use trunkline::{Channel, Connector, Health, HealthSource, Influence, OutlierDetection, Retry};

const LIMIT: Duration = Duration::from_secs(30);

fn share(channel: &Channel, nth: usize) -> f64 {
    channel.status().endpoints[nth].share
}

/// Half of one server's calls are refused: it gets about half of what the others do, and all of it once it is well.
#[tokio::test]
async fn one_that_refuses_calls_gets_less_until_it_takes_them_again() {
    let leaks = LeakCheck::start().await;
    let servers = ["a", "b", "c"].map(EchoServer::start_tcp);
    let connector = Connector::endpoints(servers.iter().map(endpoint))
        .outlier_detection(OutlierDetection::new().interval(Duration::from_millis(200)))
        .retry(Retry::none());
    let channel = connector.connect().await.unwrap();
    wait_until(LIMIT, || (0..3).all(|nth| share(&channel, nth) == 1.0)).await;
    servers[1].behaviour().fail(0.5, Code::ResourceExhausted);
    let mut rounds = 0;
    while share(&channel, 1) > 0.6 {
        spread(&channel, &servers, 30).await;
        assert_eq!(share(&channel, 0), 1.0);
        rounds += 1;
        assert!(rounds < 10_000);
    }
    let now = status(&channel, 1);
    assert_eq!(now.health, Health::Suspect);
    let (source, reason) = said(&now);
    assert_eq!(source, Some(HealthSource::Overload));
    assert!(
        reason.starts_with("it refuses calls (RESOURCE_EXHAUSTED)"),
        "{reason}"
    );
    let calls = spread(&channel, &servers, 300).await;
    let part = calls[1] as f64 / calls[0] as f64;
    assert!((0.3..0.8).contains(&part), "{calls:?}");

    servers[1].behaviour().heal();
    wait_until(LIMIT, || share(&channel, 1) == 1.0).await;
    assert_eq!(status(&channel, 1).health, Health::Healthy);
    let calls = spread(&channel, &servers, 300).await;
    assert!(calls[1].abs_diff(100) < 20, "{calls:?}");
    drop((channel, servers));
    leaks.finish().await;
}

/// It gets its calls, and the status tells of it.
#[tokio::test]
async fn refusals_may_be_a_hint_or_only_observed() {
    for (influence, least) in [
        (Influence::Hint, 1.0),
        (Influence::Observe, 1.0),
        (Influence::Weight(0.7), 0.7),
    ] {
        let leaks = LeakCheck::start().await;
        let servers = ["a", "b"].map(EchoServer::start_tcp);
        let connector = Connector::endpoints(servers.iter().map(endpoint))
            .overload_influence(influence)
            .retry(Retry::none());
        let channel = connector.connect().await.unwrap();
        wait_until(LIMIT, || (0..2).all(|nth| share(&channel, nth) == 1.0)).await;
        servers[1].behaviour().fail(1.0, Code::ResourceExhausted);
        while status(&channel, 1).health != Health::Suspect || share(&channel, 1) > least {
            spread(&channel, &servers, 10).await;
        }
        let told = status(&channel, 1);
        assert_eq!(said(&told).0, Some(HealthSource::Overload));
        let observed = match influence {
            Influence::Observe => vec![HealthSource::Overload],
            _ => Vec::new(),
        };
        assert_eq!(told.observed, observed);
        assert_eq!(share(&channel, 1), least, "{influence:?}");
        drop((channel, servers));
        leaks.finish().await;
    }
}
