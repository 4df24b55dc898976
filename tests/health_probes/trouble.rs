//! Health services that are missing, stuck, dying, forbidden or restless. None of it may cost calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tokio::time::{Instant, interval};
use tonic::Code;
use trunkline::{Connector, Credentials, Health, HealthCheck, HealthSource};

use super::clinic::{Clinic, Says};
use super::log::Log;
use super::rig::{LIMIT, Rig, TICK, both, each, endpoints, often, servers};
use crate::client::calls::{endpoint, unary};
use crate::client::health::{Flips, about, are, is, said, shares, status};
use crate::support::leak::LeakCheck;
use crate::support::scratch::Scratch;
use crate::support::server::EchoServer;
use crate::support::wait::wait_until;

/// Asks as often as may be, and is quick to give up.
fn hasty(check: HealthCheck) -> HealthCheck {
    often(check).timeout(TICK)
}

/// The most questions that an endpoint gets within that time, at one per interval.
fn most(began: Instant) -> usize {
    // Intervals are shortened by a tenth at most.
    let intervals = began.elapsed().as_secs_f64() / (TICK.as_secs_f64() * 0.9);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small count"
    )]
    let intervals = intervals as usize;
    // The first one, and a `Watch` before the first `Check`.
    intervals + 2
}

/// Makes calls until the second server was asked so many times more: the time in which it is asked so often has passed
/// for the first, too. Says how many there were.
async fn call_meanwhile(rig: &Rig, clinic: &Clinic, questions: usize) -> u64 {
    let wanted = clinic.times() + questions;
    let mut calls = 0;
    while clinic.times() < wanted {
        calls += 1;
        unary(&rig.channel, calls).await.expect("an answer");
        tokio::task::yield_now().await;
    }
    calls
}

#[tokio::test]
async fn a_server_without_a_health_service_is_well_and_is_left_alone() {
    for check in both() {
        let leaks = LeakCheck::start().await;
        let log = Log::start();
        let plain = EchoServer::start_tcp("plain");
        let connector = Connector::tcp(plain.addr().to_string()).health_check(check.clone());
        let channel = connector.connect().await.unwrap();
        is(&channel, 0, Health::Healthy).await;
        about(&shares(&channel, [&plain], 5).await, &[5]);
        assert_eq!(log.count("no health service"), 1);
        assert_eq!(log.count("WARN"), 1);
        drop((channel, plain));
        log.end();

        // The same, from a server that counts. Another one shows how the time goes.
        let log = Log::start();
        let says = [Says::Fails(Code::Unimplemented), Says::Serving];
        let rig = Rig::start(&says, check).await;
        rig.clinics[1].say_to_watch(Says::Fails(Code::Unimplemented));
        are(&rig.channel, &[Health::Healthy; 2]).await;
        let asked = rig.clinics[0].times();
        assert!(asked <= 2, "{:?}", rig.clinics[0].asked());
        call_meanwhile(&rig, &rig.clinics[1], 5).await;
        assert_eq!(rig.clinics[0].times(), asked, "asked no more");
        assert_eq!(log.count("WARN"), 1);
        // It is the endpoint that is known to have none, not the connection.
        drop(rig);
        log.end();
        leaks.finish().await;
    }
}

/// Behind a proxy a server can be replaced by one that has a health service, and the connection stays. It is found out
/// some thirty intervals later.
#[tokio::test]
async fn a_server_that_gains_a_health_service_is_asked_again() {
    let leaks = LeakCheck::start().await;
    let log = Log::start();
    each(both(), async |check| {
        let rig = Rig::start(&[Says::Fails(Code::Unimplemented); 2], check).await;
        are(&rig.channel, &[Health::Healthy; 2]).await;
        rig.clinics[0].say(Says::NotServing);
        are(&rig.channel, &[Health::Ejected, Health::Healthy]).await;
        about(&shares(&rig.channel, &rig.servers, 10).await, &[0, 10]);
        for nth in [0, 1] {
            assert_eq!(rig.servers[nth].journal().accepted(), 1);
            assert_eq!(log.warnings(&rig.address(nth)), 1, "said once");
        }
    })
    .await;
    log.end();
    leaks.finish().await;
}

/// The first call waits for the health service no longer than that may take.
#[tokio::test]
async fn a_health_service_that_never_answers_delays_the_first_call_only() {
    let leaks = LeakCheck::start().await;
    let log = Log::start();
    let ways = [HealthCheck::grpc(), HealthCheck::grpc_check()].map(hasty);
    each(ways, async |check| {
        let rig = Rig::start(&[Says::Nothing], check).await;
        assert_eq!(rig.clinics[0].times(), 1, "it was asked first");
        let began = Instant::now();
        // Stuck for good, and calls are answered all the time.
        while rig.clinics[0].times() < 8 {
            about(&shares(&rig.channel, &rig.servers, 10).await, &[10]);
            assert_eq!(status(&rig.channel, 0).health, Health::Healthy);
            tokio::task::yield_now().await;
        }
        assert!(rig.clinics[0].times() <= most(began));
        assert!(log.warnings(&rig.address(0)) <= 1);
    })
    .await;
    assert!(log.count("WARN") <= 2, "one for each channel");
    log.end();
    leaks.finish().await;
}

/// Servers may end the answer by themselves when the time that they were told is over, in two ways.
#[tokio::test]
async fn a_health_service_that_gets_stuck_is_not_held_against_its_server() {
    let leaks = LeakCheck::start().await;
    let log = Log::start();
    let ways = [
        Says::Nothing,
        Says::RunsOut(Code::Cancelled),
        Says::RunsOut(Code::DeadlineExceeded),
    ];
    each(ways, async |stuck| {
        // Long enough for a call meanwhile, also on a busy machine.
        let check = hasty(HealthCheck::grpc_check()).timeout(3 * TICK);
        let rig = Rig::start(&[Says::Serving; 2], check).await;
        are(&rig.channel, &[Health::Healthy; 2]).await;
        let flips = Flips::follow(&rig.channel, 0);
        rig.clinics[0].say(stuck);
        let before = rig.clinics[0].times();
        let began = Instant::now();
        while rig.clinics[0].times() < before + 6 {
            // Both are called all the time.
            let calls = shares(&rig.channel, &rig.servers, 10).await;
            about(&calls, &[5, 5]);
            tokio::task::yield_now().await;
        }
        assert!(rig.clinics[0].times() - before <= most(began));
        assert_eq!(flips.seen(), []);
        assert!(log.warnings(&rig.address(0)) <= 1);
        assert_eq!(log.warnings(&rig.address(1)), 0);
    })
    .await;
    assert!(log.count("WARN") <= 3, "one for each channel");
    log.end();
    leaks.finish().await;
}

/// Without calls nobody knows that the server works. It is out after three questions without an answer, and back once
/// it answers.
#[tokio::test]
async fn a_server_that_answers_nothing_is_out_when_nobody_calls() {
    let leaks = LeakCheck::start().await;
    let check = hasty(HealthCheck::grpc_check());
    let rig = Rig::start(&[Says::Serving; 2], check).await;
    are(&rig.channel, &[Health::Healthy; 2]).await;
    rig.clinics[0].say(Says::Nothing);
    let status = is(&rig.channel, 0, Health::Ejected).await;
    let (source, reason) = said(&status);
    assert_eq!(source, Some(HealthSource::Probe));
    // The server's clock may be the quicker one.
    let late = ["no answer within 100ms", "Timeout expired"];
    assert!(late.iter().any(|it| reason.ends_with(it)), "{reason}");
    about(&shares(&rig.channel, &rig.servers, 10).await, &[0, 10]);
    rig.clinics[0].say(Says::Serving);
    is(&rig.channel, 0, Health::Healthy).await;
    drop(rig);
    leaks.finish().await;
}

/// It changes its word ten times a second. It is out with the first change, and never well for long enough to be back.
#[tokio::test]
async fn a_restless_server_is_left_alone_and_the_others_share_its_calls() {
    let leaks = LeakCheck::start().await;
    each(both(), async |check| {
        let check = check.min_healthy_time(10 * TICK, 60 * TICK);
        let rig = Rig::start(&[Says::Serving; 3], check).await;
        are(&rig.channel, &[Health::Healthy; 3]).await;
        let flips = Flips::follow(&rig.channel, 0);
        let restless = Arc::clone(&rig.clinics[0]);
        let beats = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&beats);
        let flapping = tokio::spawn(async move {
            let mut beat = interval(TICK);
            loop {
                for says in [Says::NotServing, Says::Serving] {
                    beat.tick().await;
                    restless.say(says);
                    counted.fetch_add(1, SeqCst);
                }
            }
        });
        is(&rig.channel, 0, Health::Ejected).await;
        let mut calls = [0; 3];
        while beats.load(SeqCst) < 18 {
            let round = shares(&rig.channel, &rig.servers, 20).await;
            for (sum, calls) in calls.iter_mut().zip(round) {
                *sum += calls;
            }
            tokio::task::yield_now().await;
        }
        flapping.abort();
        let _ = flapping.await;
        let [restless, b, c] = calls;
        assert!(b.abs_diff(c) <= (b + c) / 20, "{calls:?}");
        assert_eq!(restless, 0, "{calls:?}");
        assert_eq!(flips.seen(), [Health::Ejected], "and never back");
        drop((flips, rig));
    })
    .await;
    leaks.finish().await;
}

/// It says that it serves, then its answer ends with an error, each time.
#[tokio::test]
async fn a_health_service_that_dies_after_each_word_is_believed() {
    let leaks = LeakCheck::start().await;
    let log = Log::start();
    let check = often(HealthCheck::grpc());
    let rig = Rig::start(&[Says::ServesAndDies, Says::Serving], check).await;
    are(&rig.channel, &[Health::Healthy; 2]).await;
    let flips = Flips::follow(&rig.channel, 0);
    let began = Instant::now();
    while rig.clinics[0].times() < 10 {
        about(&shares(&rig.channel, &rig.servers, 10).await, &[5, 5]);
        tokio::task::yield_now().await;
    }
    assert!(rig.clinics[0].times() <= most(began));
    assert_eq!(flips.seen(), []);
    assert!(log.count("WARN") <= 1);
    drop((flips, rig));
    log.end();
    leaks.finish().await;
}

/// It fails each time that it is asked: out after three times, when others are there for the calls.
#[tokio::test]
async fn a_health_service_that_fails_is_believed_after_three_times() {
    let leaks = LeakCheck::start().await;
    let log = Log::start();
    each(both(), async |check| {
        let rig = Rig::start(&[Says::Fails(Code::Internal), Says::Serving], check.clone()).await;
        let status = is(&rig.channel, 0, Health::Ejected).await;
        let (source, reason) = said(&status);
        assert_eq!(source, Some(HealthSource::Probe));
        assert_eq!(
            reason,
            "the health service answered Internal: asked to fail"
        );
        assert!(rig.clinics[0].times() >= 3);
        about(&shares(&rig.channel, &rig.servers, 10).await, &[0, 10]);
        rig.clinics[0].say(Says::Serving);
        is(&rig.channel, 0, Health::Healthy).await;
        assert!(log.warnings(&rig.address(0)) <= 1);
        drop(rig);
        // On its own, it keeps its calls.
        let rig = Rig::start(&[Says::Fails(Code::Internal)], check).await;
        is(&rig.channel, 0, Health::Tolerated).await;
        about(&shares(&rig.channel, &rig.servers, 10).await, &[10]);
    })
    .await;
    assert!(log.count("WARN") <= 2, "one for each way to ask");
    log.end();
    leaks.finish().await;
}

#[tokio::test]
async fn one_that_may_not_ask_takes_the_server_for_well() {
    let leaks = LeakCheck::start().await;
    let log = Log::start();
    each(both(), async |check| {
        let clinics = [Clinic::private(Says::NotServing, "secret")];
        let servers = servers(&clinics);
        let connector = Connector::endpoints(endpoints(&servers)).health_check(check);
        let channel = connector.connect().await.unwrap();
        is(&channel, 0, Health::Healthy).await;
        // It may be let in later.
        wait_until(LIMIT, || clinics[0].times() >= 4).await;
        is(&channel, 0, Health::Healthy).await;
        about(&shares(&channel, &servers, 5).await, &[5]);
        assert_eq!(log.warnings(&servers[0].addr().to_string()), 1);
    })
    .await;
    assert_eq!(log.count("can't be asked"), 2, "once for each endpoint");
    assert_eq!(log.count("WARN"), 2);
    log.end();
    leaks.finish().await;
}

#[tokio::test]
async fn probes_carry_the_token_where_nobody_reads_along() {
    for check in both() {
        let leaks = LeakCheck::start().await;
        let scratch = Scratch::new();
        let clinic = Clinic::private(Says::NotServing, "secret");
        let routes = || clinic.routes();
        let private = EchoServer::builder("a").beside(routes());
        let private = private.unix(scratch.path("a.sock"));
        let connect = |server: &EchoServer, credentials: Credentials| {
            let connector = Connector::endpoints([endpoint(server)]);
            let connector = connector.health_check(check.clone());
            connector.credentials(credentials).connect()
        };
        let secret = || Credentials::token("secret");
        let bearer = || Some("Bearer secret".to_owned());
        let channel = connect(&private, secret()).await.unwrap();
        is(&channel, 0, Health::Tolerated).await;
        drop(channel);
        assert!(clinic.asked().iter().all(|it| it.authorization == bearer()));

        let before = clinic.times();
        let public = EchoServer::builder("b").beside(routes()).tcp();
        let channel = connect(&public, secret()).await.unwrap();
        is(&channel, 0, Health::Healthy).await;
        drop(channel);
        let asked = clinic.asked().split_off(before);
        assert!(!asked.is_empty());
        assert!(
            asked.iter().all(|it| it.authorization.is_none()),
            "in the open"
        );

        let before = clinic.times();
        let channel = connect(&public, secret().allow_plaintext(true));
        let channel = channel.await.unwrap();
        is(&channel, 0, Health::Tolerated).await;
        drop(channel);
        let asked = clinic.asked().split_off(before);
        assert!(asked.iter().all(|it| it.authorization == bearer()));
        drop((private, public));
        leaks.finish().await;
    }
}
