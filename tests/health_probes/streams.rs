//! What a health check costs, and how it ends.

use std::time::Duration;

use tonic::Code;
use trunkline::{CallOptions, Channel, Connector, Health, HealthCheck, Keepalive, PoolOptions};

use super::clinic::{Clinic, Says};
use super::rig::{LIMIT, Rig, TICK, both, each, endpoints, often, servers};
use crate::client::calls::{ask, hang, unary};
use crate::client::health::{about, endpoint, is, shares};
use crate::support::calls::request;
use crate::support::chaos::{Chaos, Flow, Toxics};
use crate::support::leak::LeakCheck;
use crate::support::server::EchoServer;
use crate::support::wait::{wait_equal, wait_until, within};

/// Never, as far as a test is concerned.
const NEVER: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_health_check_takes_one_stream_of_an_endpoint() {
    for check in both() {
        let leaks = LeakCheck::start().await;
        let rig = Rig::adjusted(&[Says::Serving; 2], check, |connector| {
            connector.pool(PoolOptions::new().min_connections(3).max_connections(3))
        })
        .await;
        for (nth, server) in rig.servers.iter().enumerate() {
            wait_equal(LIMIT, 3, || server.journal().open()).await;
            is(&rig.channel, nth, Health::Healthy).await;
        }
        wait_until(LIMIT, || rig.clinics.iter().all(|it| it.times() >= 1)).await;
        about(&shares(&rig.channel, &rig.servers, 40).await, &[20, 20]);
        for clinic in &rig.clinics {
            assert_eq!(clinic.peak(), 1);
        }
        drop(rig);
        leaks.finish().await;
    }
}

/// A `Watch` would take the only stream.
#[tokio::test]
async fn a_connection_with_one_stream_keeps_it_for_calls() {
    let leaks = LeakCheck::start().await;
    let clinic = Clinic::that(Says::Serving);
    let builder = EchoServer::builder("a").max_concurrent_streams(1);
    let server = builder.beside(clinic.routes()).tcp();
    let connector = Connector::tcp(server.addr().to_string())
        .pool(PoolOptions::new().max_connections(1))
        .health_check(often(HealthCheck::grpc()));
    let channel = connector.connect().await.unwrap();
    is(&channel, 0, Health::Healthy).await;
    about(&shares(&channel, [&server], 50).await, &[50]);
    wait_until(LIMIT, || clinic.times_by("Check") >= 3).await;
    assert_eq!(clinic.times_by("Watch"), 0);
    // With the stream taken for good nobody can ask. That says nothing against the server.
    let call = hang(&channel, 1);
    wait_equal(LIMIT, 1, || server.journal().in_flight()).await;
    // Another endpoint shows how the time goes: four questions would have failed.
    let clock = Rig::start(&[Says::Serving], often(HealthCheck::grpc_check())).await;
    wait_until(LIMIT, || clock.clinics[0].times() >= 5).await;
    is(&channel, 0, Health::Healthy).await;
    call.abort();
    unary(&channel, 2).await.unwrap();
    // And it is asked again.
    let before = clinic.times();
    wait_until(LIMIT, || clinic.times() > before).await;
    clinic.say(Says::NotServing);
    is(&channel, 0, Health::Tolerated).await;
    drop((channel, server, clock));
    leaks.finish().await;
}

/// A `Watch` that is answered with a code other than UNIMPLEMENTED is asked again; with that, `Check` is.
#[tokio::test]
async fn a_server_that_only_checks_is_checked() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::start(
        &[Says::Fails(Code::Unimplemented)],
        often(HealthCheck::grpc()),
    );
    let rig = {
        let rig = rig.await;
        // Missing as a whole, so it is not asked any more.
        drop(rig.channel);
        rig.clinics[0].say_to_check(Says::NotServing);
        let connector = Connector::endpoints(endpoints(&rig.servers));
        let connector = connector.health_check(often(HealthCheck::grpc()));
        Rig {
            channel: connector.connect().await.unwrap(),
            ..rig
        }
    };
    is(&rig.channel, 0, Health::Tolerated).await;
    let watches = rig.clinics[0].times_by("Watch");
    let checks = rig.clinics[0].times_by("Check");
    wait_until(LIMIT, || rig.clinics[0].times_by("Check") >= checks + 3).await;
    assert_eq!(rig.clinics[0].times_by("Watch"), watches, "asked once");
    rig.clinics[0].say_to_check(Says::Serving);
    is(&rig.channel, 0, Health::Healthy).await;
    drop(rig);
    leaks.finish().await;
}

/// A question under way is no call: nobody waits for it.
#[tokio::test]
async fn closing_does_not_wait_for_questions() {
    for (says, check) in [
        (Says::Serving, HealthCheck::grpc()),
        (Says::NotServing, HealthCheck::grpc()),
        (Says::Nothing, HealthCheck::grpc()),
        (Says::Nothing, HealthCheck::grpc_check()),
    ] {
        let leaks = LeakCheck::start().await;
        let clinic = Clinic::that(says);
        let servers = servers(std::slice::from_ref(&clinic));
        let connect = || {
            let connector = Connector::endpoints(endpoints(&servers));
            let check = check.clone().timeout(NEVER);
            connector.health_check(check).connect_lazy().unwrap()
        };
        let channel = connect();
        wait_equal(LIMIT, 1, || clinic.open()).await;
        within(LIMIT, "closing", channel.close(NEVER)).await;
        wait_equal(LIMIT, 0, || clinic.open()).await;
        wait_equal(LIMIT, 0, || servers[0].journal().open()).await;
        drop(channel);
        // Nor does anything stay when it is only dropped.
        let channel = connect();
        wait_equal(LIMIT, 1, || clinic.open()).await;
        drop(channel);
        wait_equal(LIMIT, 0, || clinic.open()).await;
        wait_equal(LIMIT, 0, || servers[0].journal().open()).await;
        drop(servers);
        leaks.finish().await;
    }
}

/// The server says goodbye and waits for its streams to end. A `Watch` never would by itself.
#[tokio::test]
async fn a_server_that_shuts_down_does_not_wait_for_a_watch() {
    let leaks = LeakCheck::start().await;
    // With an interval that is longer than the server's patience.
    let check = HealthCheck::grpc().interval(NEVER);
    let mut rig = Rig::start(&[Says::Serving; 2], check).await;
    is(&rig.channel, 0, Health::Healthy).await;
    rig.servers[0].shutdown().await;
    assert_eq!(rig.clinics[0].open(), 0);
    about(&shares(&rig.channel, &rig.servers, 10).await, &[0, 10]);
    rig.servers[0].restart();
    is(&rig.channel, 0, Health::Healthy).await;
    wait_equal(LIMIT, 2, || rig.clinics[0].times()).await;
    rig.clinics[0].say(Says::NotServing);
    is(&rig.channel, 0, Health::Ejected).await;
    drop(rig);
    leaks.finish().await;
}

/// Connections end while others of the endpoint go on: the question moves, and the old connection closes.
#[tokio::test]
async fn a_watch_moves_when_the_server_ends_its_connection() {
    let leaks = LeakCheck::start().await;
    let clinic = Clinic::that(Says::Serving);
    let server = EchoServer::builder("a")
        .max_connection_age(Duration::from_millis(300))
        .beside(clinic.routes())
        .tcp();
    let connector = Connector::tcp(server.addr().to_string())
        .pool(PoolOptions::new().min_connections(2).max_connections(2))
        .health_check(HealthCheck::grpc().interval(NEVER));
    let channel = connector.connect().await.unwrap();
    moves(&channel, &clinic, &server).await;
    drop((channel, server));
    leaks.finish().await;
}

/// The same when this side ends them.
#[tokio::test]
async fn a_watch_moves_when_the_client_ends_its_connection() {
    let leaks = LeakCheck::start().await;
    let check = HealthCheck::grpc().interval(NEVER);
    let rig = Rig::adjusted(&[Says::Serving], check, |connector| {
        let age = Duration::from_millis(500);
        let pool = PoolOptions::new().max_connection_age(age);
        connector.pool(pool.connect_timeout(age / 2).unix_connect_timeout(age / 2))
    })
    .await;
    moves(&rig.channel, &rig.clinics[0], &rig.servers[0]).await;
    drop(rig);
    leaks.finish().await;
}

/// Makes calls until the server was asked on four connections.
async fn moves(channel: &Channel, clinic: &Clinic, server: &EchoServer) {
    let mut id = 0;
    let moved = async {
        while clinic.times_by("Watch") < 4 {
            id += 1;
            // A connection that ends in its first second, and had no call yet, counts as a failed dial: if that is so of
            // both, there is none for a moment.
            let patient = CallOptions::new().wait_for_ready(true);
            ask(channel, request(id), patient).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    within(LIMIT, "three moves", moved).await;
    assert!(clinic.peak() <= 2, "{} at once", clinic.peak());
    wait_until(LIMIT, || clinic.open() == 1).await;
    // None stays open for a question that nobody listens to.
    wait_until(LIMIT, || server.journal().open() <= 2).await;
    is(channel, 0, Health::Healthy).await;
}

/// The server is killed and comes back: it is asked anew, and what was said before it died holds until then.
#[tokio::test]
async fn a_server_that_comes_back_is_asked_again() {
    let leaks = LeakCheck::start().await;
    let mut rig = Rig::start(&[Says::Serving; 2], often(HealthCheck::grpc())).await;
    is(&rig.channel, 0, Health::Healthy).await;
    rig.clinics[0].say(Says::NotServing);
    is(&rig.channel, 0, Health::Ejected).await;
    rig.servers[0].kill();
    is(&rig.channel, 0, Health::Disconnected).await;
    rig.servers[0].restart();
    is(&rig.channel, 0, Health::Ejected).await;
    rig.clinics[0].say(Says::Serving);
    is(&rig.channel, 0, Health::Healthy).await;
    assert_eq!(endpoint(&rig.channel, 1).failed_dials, 0);
    assert_eq!(
        rig.clinics[1].times(),
        1,
        "the other one is not asked again"
    );
    drop(rig);
    leaks.finish().await;
}

/// Nobody calls. A `Watch` is a stream, so PINGs are sent beside it, and find a server that went silent; it is back once it
/// has answered, and not when it can be connected to.
#[tokio::test]
async fn a_silent_server_is_left_and_not_used_before_it_answers() {
    let leaks = LeakCheck::start().await;
    each(both(), async |check| {
        let clinic = Clinic::that(Says::Serving);
        let server = EchoServer::builder("a").beside(clinic.routes()).tcp();
        let proxy = Chaos::tcp(server.addr(), 1);
        let keepalive = Keepalive::every(TICK).timeout(TICK).allow_frequent();
        let channel = Connector::tcp(proxy.addr().to_string())
            .keepalive(keepalive)
            .pool(PoolOptions::new().connect_timeout(TICK))
            .health_check(check)
            .connect()
            .await
            .unwrap();
        is(&channel, 0, Health::Healthy).await;
        let seen = endpoint(&channel, 0).connection_attempts_succeeded;
        proxy.set(Toxics {
            flow: Flow::Swallow,
            ..Toxics::default()
        });
        is(&channel, 0, Health::Disconnected).await;
        // It can be connected to: the proxy accepts.
        wait_until(LIMIT, || proxy.accepted() >= 4).await;
        let silent = endpoint(&channel, 0);
        assert_eq!(silent.health.health, Health::Disconnected);
        assert_eq!(silent.connection_attempts_succeeded, seen);
        proxy.set(Toxics::default());
        is(&channel, 0, Health::Healthy).await;
        unary(&channel, 1).await.unwrap();
        drop((channel, proxy, server));
    })
    .await;
    leaks.finish().await;
}
