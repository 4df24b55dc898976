//! How often endpoints are asked, how many answers it takes, and by how many tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::runtime::Handle;
use trunkline::{Connector, Endpoint, Health, HealthCheck, Probe, ProbeFuture, ProbeTarget};

use super::clinic::Says;
use super::rig::{LIMIT, Rig, TICK, each, often};
use crate::client::calls::endpoint;
use crate::client::health::{are, is};
use crate::support::leak::LeakCheck;
use crate::support::server::EchoServer;
use crate::support::wait::{wait_equal, wait_until};

/// Never, as far as a test is concerned.
const NEVER: Duration = Duration::from_secs(3600);

/// An endpoint that is ill is asked at the interval for that, until it is well.
#[tokio::test]
async fn an_ill_endpoint_is_asked_at_an_interval_of_its_own() {
    let leaks = LeakCheck::start().await;
    let check = HealthCheck::grpc_check().timeout(LIMIT).interval(NEVER);
    let says = [Says::NotServing, Says::Serving];
    let rig = Rig::start(&says, check.unhealthy_interval(TICK)).await;
    are(&rig.channel, &[Health::Ejected, Health::Healthy]).await;
    wait_until(LIMIT, || rig.clinics[0].times() >= 5).await;
    assert_eq!(rig.clinics[1].times(), 1, "it is well");
    rig.clinics[0].say(Says::Serving);
    are(&rig.channel, &[Health::Healthy; 2]).await;
    // The pause that had begun before is the last short one. Another channel shows how the time goes.
    let clock = Rig::start(&[Says::Serving], often(HealthCheck::grpc_check())).await;
    let passes = async |intervals| {
        let wanted = clock.clinics[0].times() + intervals;
        wait_until(LIMIT, || clock.clinics[0].times() >= wanted).await;
    };
    passes(3).await;
    let asked = rig.clinics[0].times();
    passes(5).await;
    assert_eq!(rig.clinics[0].times(), asked, "now it is well, too");
    drop((rig, clock));
    leaks.finish().await;
}

/// Counts its answers since the last change.
#[derive(Clone, Debug, Default)]
struct Counted {
    fails: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
}

impl Counted {
    fn turn(&self, fails: bool) {
        self.fails.store(fails, SeqCst);
        self.answers.store(0, SeqCst);
    }

    fn answers(&self) -> u64 {
        self.answers.load(SeqCst)
    }
}

impl Probe for Counted {
    fn probe<'a>(&'a self, target: &'a ProbeTarget) -> ProbeFuture<'a> {
        Box::pin(async {
            // The other endpoint is always well.
            if target.metadata("patient").is_none() {
                return Ok(());
            }
            self.answers.fetch_add(1, SeqCst);
            match self.fails.load(SeqCst) {
                true => Err("asked to fail".into()),
                false => Ok(()),
            }
        })
    }
}

/// As many answers as are asked for change its standing, and not one less.
#[tokio::test]
async fn answers_count_from_the_thresholds_on() {
    let leaks = LeakCheck::start().await;
    each([(1, 1), (2, 15), (6, 2)], async |(bad, good)| {
        let servers = ["a", "b"].map(EchoServer::start_tcp);
        let own = Counted::default();
        let check = often(HealthCheck::custom(own.clone()));
        let check = check.unhealthy_threshold(bad).healthy_threshold(good);
        let check = check.min_healthy_time(Duration::ZERO, Duration::ZERO);
        let endpoints = [
            endpoint(&servers[0]).metadata("patient", "yes"),
            endpoint(&servers[1]),
        ];
        let channel = Connector::endpoints(endpoints).health_check(check);
        let channel = channel.connect().await.unwrap();
        are(&channel, &[Health::Healthy; 2]).await;
        own.turn(true);
        is(&channel, 0, Health::Ejected).await;
        // Whoever waits looks every millisecond: a hundred times between two answers.
        assert_eq!(own.answers(), u64::from(bad));
        own.turn(false);
        is(&channel, 0, Health::Healthy).await;
        assert_eq!(own.answers(), u64::from(good));
    })
    .await;
    leaks.finish().await;
}

/// However many endpoints there are, one task asks all of them.
#[tokio::test]
async fn one_task_asks_all_endpoints() {
    const SERVERS: usize = 12;
    let leaks = LeakCheck::start().await;
    let servers: Vec<_> = (0..SERVERS).map(|_| EchoServer::start_tcp("a")).collect();
    let endpoints = || -> Vec<Endpoint> { servers.iter().map(endpoint).collect() };
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let mut counts = Vec::new();
    for check in [
        None,
        Some(often(HealthCheck::grpc())),
        Some(often(HealthCheck::tcp())),
        Some(often(HealthCheck::custom(Counted::default()))),
    ] {
        let before = tasks();
        let connector = Connector::endpoints(endpoints()).ready_timeout(LIMIT);
        let connector = match check {
            Some(check) => connector.health_check(check),
            None => connector,
        };
        let channel = connector.connect().await.unwrap();
        are(&channel, &[Health::Healthy; SERVERS]).await;
        let mut fewest = usize::MAX;
        // Dialling has tasks that end.
        wait_until(LIMIT, || {
            fewest = fewest.min(tasks() - before);
            fewest <= counts.first().map_or(SERVERS + 2, |without| without + 1)
        })
        .await;
        counts.push(fewest);
        drop(channel);
        wait_equal(LIMIT, before, tasks).await;
    }
    drop(servers);
    leaks.finish().await;
}
