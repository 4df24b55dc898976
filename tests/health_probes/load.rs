//! A question that stays open is no call: what calls, their limits and their balancing see of it.

use std::time::Duration;

use tonic::Code;
use trunkline::{Balance, ConcurrencyLimits, Connector, Health, HealthCheck, PoolOptions};

use super::clinic::{Clinic, Says};
use super::rig::{LIMIT, often};
use crate::client::calls::{endpoint, hang, unary};
use crate::client::health::{about, are, endpoint as standing, is, shares};
use crate::support::frames::{code, setting};
use crate::support::leak::LeakCheck;
use crate::support::raw_peer::RawPeer;
use crate::support::reaction::Reaction;
use crate::support::response;
use crate::support::server::EchoServer;
use crate::support::wait::{wait_equal, wait_until, within};

/// `HealthCheckResponse`: SERVING.
const SERVING: &[u8] = &[8, 1];

/// One of two servers is watched, the other has no health service: calls come to both alike.
#[tokio::test]
async fn an_open_watch_is_no_call_in_flight() {
    let leaks = LeakCheck::start().await;
    let clinics = [Says::Serving, Says::Fails(Code::Unimplemented)].map(Clinic::that);
    let servers = [("a", &clinics[0]), ("b", &clinics[1])].map(|(name, clinic)| {
        let builder = EchoServer::builder(name).max_concurrent_streams(10);
        builder.beside(clinic.routes()).tcp()
    });
    let channel = Connector::endpoints(servers.each_ref().map(endpoint))
        .balance(Balance::least_request())
        .concurrency(ConcurrencyLimits::new().per_endpoint(1))
        .pool(PoolOptions::new().max_connections(1))
        .health_check(often(HealthCheck::grpc()))
        .ready_timeout(LIMIT)
        .connect()
        .await
        .unwrap();
    are(&channel, &[Health::Healthy; 2]).await;
    let seen = || {
        [0, 1]
            .map(|nth| standing(&channel, nth))
            .map(|it| (it.in_flight, it.free_streams))
    };
    let idle = [(0, 9), (0, 10)];
    wait_equal(LIMIT, idle, seen).await;
    assert_eq!(clinics[0].open(), 1);
    about(&shares(&channel, &servers, 20).await, &[10, 10]);
    wait_equal(LIMIT, idle, seen).await;

    // Each has room for one, the watched one too.
    let calls = [1, 2].map(|id| hang(&channel, id));
    wait_equal(LIMIT, [1, 1], || {
        servers.each_ref().map(|it| it.journal().in_flight())
    })
    .await;
    wait_equal(LIMIT, [(1, 8), (1, 9)], seen).await;
    assert_eq!(clinics[0].open(), 1);
    for call in calls {
        call.abort();
    }
    wait_equal(LIMIT, idle, seen).await;
    // It takes leave with the question, not with the channel.
    clinics[0].say_to_watch(Says::Fails(Code::Unimplemented));
    wait_equal(LIMIT, 0, || clinics[0].open()).await;
    wait_equal(LIMIT, [(0, 10), (0, 10)], seen).await;
    drop((channel, servers));
    leaks.finish().await;
}

/// A server may lower its limit at any time. A `Watch` would keep the last stream from calls for good.
#[tokio::test]
async fn a_watch_gives_way_when_streams_become_few() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp().serve(&[(setting::MAX_CONCURRENT_STREAMS, 100)], |request| {
        // A question about the server as a whole is an empty message.
        let is_question = request.message.as_ref().is_some_and(|it| it.is_empty());
        match (is_question, request.nth) {
            (true, 0) => Reaction::Frames(vec![
                response::headers(request.stream),
                response::data(request.stream, SERVING),
            ]),
            (true, _) => Reaction::Answer(SERVING.into()),
            (false, _) => {
                let echo = Reaction::echo(request, "a");
                echo.after_settings(&[(setting::MAX_CONCURRENT_STREAMS, 1)])
            }
        }
    });
    let channel = Connector::tcp(peer.addr().to_string())
        .pool(PoolOptions::new().max_connections(1))
        .health_check(often(HealthCheck::grpc()))
        .connect()
        .await
        .unwrap();
    is(&channel, 0, Health::Healthy).await;
    assert_eq!(peer.seen().requests(), 1, "watched");
    for id in 1..=5 {
        within(LIMIT, "a call", unary(&channel, id)).await.unwrap();
    }
    wait_equal(LIMIT, 1, || peer.seen().resets(code::CANCEL)).await;
    // From then on it is asked.
    let before = peer.seen().requests();
    wait_until(LIMIT, || peer.seen().requests() >= before + 3).await;
    is(&channel, 0, Health::Healthy).await;
    assert_eq!(peer.seen().connections(), 1);
    drop((channel, peer));
    leaks.finish().await;
}

/// Also one that may be closed for want of calls: closed, nobody could be asked on it.
#[tokio::test]
async fn a_health_check_keeps_its_connection_open() {
    let leaks = LeakCheck::start().await;
    let clinic = Clinic::that(Says::Serving);
    let server = |name| EchoServer::builder(name).beside(clinic.routes()).tcp();
    let [watched, plain] = ["a", "b"].map(server);
    let connect = |server: &EchoServer| {
        let pool = PoolOptions::new().min_connections(0);
        let pool = pool.idle_timeout(Duration::from_millis(100));
        Connector::tcp(server.addr().to_string()).pool(pool)
    };
    let checked = connect(&watched).health_check(often(HealthCheck::grpc()));
    let checked = checked.connect().await.unwrap();
    is(&checked, 0, Health::Healthy).await;
    // The other one shows how the time goes: three times over.
    let unchecked = connect(&plain).connect().await.unwrap();
    for id in 1..=3 {
        unary(&unchecked, id).await.unwrap();
        wait_equal(LIMIT, 0, || plain.journal().open()).await;
    }
    assert_eq!(clinic.open(), 1);
    assert_eq!(clinic.times(), 1);
    assert_eq!(
        (watched.journal().accepted(), watched.journal().open()),
        (1, 1)
    );
    clinic.say(Says::NotServing);
    is(&checked, 0, Health::Tolerated).await;
    drop((checked, unchecked, watched, plain));
    leaks.finish().await;
}
