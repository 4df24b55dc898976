//! Health checks of endpoints that change meanwhile: asked for another service, replaced by their like, or idle.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod client;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use client::calls::{endpoint, unary};
use client::health::{Flips, about, are, is, said, shares};
use client::told::Told;
use support::health::{HealthMode, HealthScript};
use support::leak::LeakCheck;
use support::server::EchoServer;
use support::wait::{holds_within, wait_equal, wait_until, within};
use trunkline::{
    Channel, Connector, EndpointStatus, Health, HealthCheck, HealthSource, Influence, Outage,
    PoolOptions, Probe, ProbeFuture, ProbeTarget, State,
};

const LIMIT: Duration = Duration::from_secs(5);

fn first(channel: &Channel) -> EndpointStatus {
    channel.status().endpoints.remove(0)
}

#[tokio::test]
async fn another_name_of_its_service_is_asked_for_at_once() {
    let leaks = LeakCheck::start().await;
    let script = HealthScript::new(HealthMode::Serving);
    let server = EchoServer::builder("a").health(script.clone()).tcp();
    let named = |name: &str| [endpoint(&server).health_service(name)];
    let asked = |name: &str| script.requests().iter().any(|it| it.service == name);
    let (teller, told) = Told::saying(Ok(named("one").into()));
    let connector = Connector::discover(told).health_check(HealthCheck::grpc());
    let channel = connector.connect().await.unwrap();
    wait_until(LIMIT, || asked("one")).await;
    teller.say(named("two"));
    wait_until(LIMIT, || asked("two")).await;
    drop((channel, server));
    leaks.finish().await;
}

/// Says that all is well, and keeps its thread while it is told to.
#[derive(Clone, Debug, Default)]
struct Slow {
    blocks: Arc<AtomicBool>,
    blocked: Arc<AtomicBool>,
}

impl Probe for Slow {
    fn probe<'a>(&'a self, _: &'a ProbeTarget) -> ProbeFuture<'a> {
        Box::pin(async {
            if self.blocks.load(SeqCst) {
                self.blocked.store(true, SeqCst);
                tokio::task::block_in_place(|| {
                    while self.blocks.load(SeqCst) {
                        std::thread::yield_now();
                    }
                });
            }
            Ok(())
        })
    }
}

/// The endpoint is another one then, and has not been asked yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_leaves_and_comes_back_unseen_is_asked_anew() {
    let leaks = LeakCheck::start().await;
    let servers = ["a", "b"].map(EchoServer::start_tcp);
    let both = || servers.iter().map(endpoint).collect::<Vec<_>>();
    let (teller, told) = Told::saying(Ok(both()));
    let slow = Slow::default();
    let check = HealthCheck::custom(slow.clone()).interval(Duration::from_millis(100));
    let connector = Connector::discover(told).health_check(check);
    let channel = connector.connect().await.unwrap();
    let is_healthy = |it: &EndpointStatus| it.health.health == Health::Healthy;
    let all_healthy = || {
        let all = channel.status().endpoints;
        all.len() == 2 && all.iter().all(is_healthy)
    };
    wait_until(LIMIT, all_healthy).await;
    slow.blocks.store(true, SeqCst);
    wait_until(LIMIT, || slow.blocked.load(SeqCst)).await;
    teller.say(both().split_off(1));
    let is_gone = holds_within(LIMIT, || channel.status().endpoints.len() == 1).await;
    teller.say(both());
    let is_back = || {
        let all = channel.status().endpoints;
        all.len() == 2 && all[0].state == State::Ready
    };
    let is_back = holds_within(LIMIT, is_back).await;
    slow.blocks.store(false, SeqCst);
    assert!(is_gone && is_back);
    wait_until(LIMIT, all_healthy).await;
    drop((channel, servers));
    leaks.finish().await;
}

/// Without a connection nobody can ask whether it is well again, and without a call it gets none.
#[tokio::test]
async fn one_that_fell_ill_and_then_idle_comes_back() {
    let leaks = LeakCheck::start().await;
    let scripts = [0, 1].map(|_| HealthScript::new(HealthMode::Serving));
    let mut servers = [0, 1].map(|nth| {
        let builder = EchoServer::builder(["a", "b"][nth]);
        builder.health(scripts[nth].clone()).tcp()
    });
    let connector = Connector::endpoints(servers.iter().map(endpoint))
        .pool(PoolOptions::new().min_connections(0))
        .health_check(HealthCheck::grpc());
    let channel = connector.connect().await.unwrap();
    let is = |health| move |it: &EndpointStatus| it.health.health == health;
    let all_healthy = || channel.status().endpoints.iter().all(is(Health::Healthy));
    wait_until(LIMIT, all_healthy).await;
    for id in 0..4 {
        unary(&channel, id).await.unwrap();
    }
    scripts[0].set(HealthMode::NotServing);
    wait_until(LIMIT, || is(Health::Ejected)(&first(&channel))).await;
    servers[0].shutdown().await;
    wait_until(LIMIT, || first(&channel).state != State::Ready).await;
    scripts[0].set(HealthMode::Serving);
    servers[0].restart();
    within(LIMIT, "its return", async {
        while first(&channel).state != State::Ready || !is(Health::Healthy)(&first(&channel)) {
            unary(&channel, 5).await.unwrap();
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop((channel, servers));
    leaks.finish().await;
}

/// Its health check waits for nothing there: nobody could be asked.
#[tokio::test]
async fn one_that_cannot_be_connected_to_is_disconnected_and_not_unknown() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let mut dead = EchoServer::start_tcp("b");
    dead.shutdown().await;
    let channel = Connector::endpoints([&server, &dead].map(endpoint))
        .health_check(HealthCheck::grpc())
        .connect()
        .await
        .unwrap();
    let second = || channel.status().endpoints.remove(1);
    wait_until(LIMIT, || second().failed_dials > 0).await;
    let status = second();
    assert_eq!(status.health.health, Health::Disconnected);
    assert_eq!(status.health.decided_by, Some(HealthSource::Connectivity));
    drop((channel, server, dead));
    leaks.finish().await;
}

/// It gets its calls all the same, but whoever watches is told.
#[tokio::test]
async fn watchers_hear_of_hints_and_of_what_is_only_observed() {
    for influence in [Influence::Hint, Influence::Observe] {
        let leaks = LeakCheck::start().await;
        let script = HealthScript::new(HealthMode::Serving);
        let server = EchoServer::builder("a").health(script.clone()).tcp();
        let channel = Connector::endpoints([endpoint(&server)])
            .health_check(HealthCheck::grpc().influence(influence))
            .connect()
            .await
            .unwrap();
        let is = |health| first(&channel).health.health == health;
        wait_until(LIMIT, || script.requests().len() == 1).await;
        wait_until(LIMIT, || is(Health::Healthy)).await;
        let flips = Flips::follow(&channel, 0);
        script.set(HealthMode::NotServing);
        wait_equal(LIMIT, vec![Health::Suspect], || flips.seen()).await;
        script.set(HealthMode::Serving);
        wait_equal(LIMIT, vec![Health::Suspect, Health::Healthy], || {
            flips.seen()
        })
        .await;
        drop((flips, channel, server));
        leaks.finish().await;
    }
}

/// What becomes of an endpoint that discovery no longer lists while its source is doubted is the connector's to say.
#[tokio::test]
async fn discovery_has_the_say_that_it_was_given() {
    for (influence, health, calls) in [
        (Influence::Veto, Health::Ejected, [40, 0]),
        (Influence::Weight(0.5), Health::Suspect, [27, 13]),
        (Influence::Hint, Health::Suspect, [20, 20]),
        (Influence::Observe, Health::Suspect, [20, 20]),
    ] {
        let leaks = LeakCheck::start().await;
        let servers = ["a", "b"].map(EchoServer::start_tcp);
        let both = servers.each_ref().map(endpoint);
        let (teller, told) = Told::saying(Ok(both.to_vec()));
        let told = told.under(Outage::keep().guard(0.0).grace(Duration::from_secs(3600)));
        let connector = Connector::discover(told).discovery_influence(influence);
        let channel = connector.connect().await.unwrap();
        are(&channel, &[Health::Healthy; 2]).await;
        about(&shares(&channel, &servers, 40).await, &[20, 20]);
        teller.say(both[..1].to_vec());
        let told = is(&channel, 1, health).await;
        assert_eq!(
            said(&told),
            (
                Some(HealthSource::Discovery),
                "discovery no longer lists it"
            )
        );
        let observed = match influence {
            Influence::Observe => vec![HealthSource::Discovery],
            _ => Vec::new(),
        };
        assert_eq!(told.observed, observed);
        about(&shares(&channel, &servers, 40).await, &calls);
        // Listed again, it is well again.
        teller.say(both.to_vec());
        are(&channel, &[Health::Healthy; 2]).await;
        about(&shares(&channel, &servers, 40).await, &[20, 20]);
        drop((channel, servers));
        leaks.finish().await;
    }
}
