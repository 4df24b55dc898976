//! How connections to a grpcio server end when it has its reasons: it shuts down, it finds them idle, it is pinged too
//! often. None of it costs a call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod foreign;
mod rows;
mod support;

use std::time::Duration;

use foreign::server::GrpcioServer;
use rows::calls::{call, call_with, request};
use rows::dials::Dials;
use support::leak::LeakCheck;
use support::load::Load;
use support::report::Failure;
use support::scratch::Scratch;
use support::wait::{wait_until, within};
use tonic::{Code, Status};
use trunkline::{Channel, Connector, Endpoint, Error, Keepalive, Retry, State};
use trunkline_proto::EchoRequest;

const LIMIT: Duration = Duration::from_secs(30);

/// Two servers shut down and come back, one after the other, while calls are under way. One of them is always there.
///
/// grpcio answers CANCELLED to a call that comes after it began to shut down and before its GOAWAY is read. That is its
/// own answer, and for nobody to repeat. Nothing else may fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_replaced_under_load() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let paths = ["a.sock", "b.sock"].map(|name| scratch.path(name));
    let start = |nth: usize| GrpcioServer::unix(&paths[nth], &[]);
    let mut servers = [0, 1].map(|nth| Some(start(nth)));
    let endpoints = paths.each_ref().map(Endpoint::unix);
    let channel = Connector::endpoints(endpoints).connect_lazy().unwrap();
    let ready = |nth: usize| {
        let channel = channel.clone();
        wait_until(LIMIT, move || {
            let endpoints = channel.status().endpoints;
            endpoints
                .get(nth)
                .is_some_and(|it| it.state == State::Ready)
        })
    };
    ready(0).await;
    ready(1).await;

    let calling = channel.clone();
    let load = Load::new(200.0).duration(rows::duration());
    let load = load.start(move |id| slow_call(calling.clone(), id));
    for (nth, server) in servers.iter_mut().enumerate() {
        let sent = load.sent();
        wait_until(LIMIT, || load.sent() >= sent + 100).await;
        assert!(server.take().unwrap().stop().await.success());
        *server = Some(start(nth));
        ready(nth).await;
    }
    let report = load.finish().await;
    assert!(report.wrong.is_empty() && report.lost.is_empty());
    for Failure { status, .. } in &report.failed {
        let answered = Error::from_status(status).is_none();
        assert!(status.code() == Code::Cancelled && answered, "{status:?}");
    }
    // A shutdown can meet no more calls than come within the time that a GOAWAY takes.
    assert!(report.failed.len() <= 10, "{:?}", report.failed);
    for server in servers.into_iter().flatten() {
        assert!(server.handled().await.calls > 0, "nothing since its return");
        assert!(server.stop().await.success());
    }
    drop(channel);
    leaks.finish().await;
}

/// gRPC's C core closes idle connections with INTERNAL_ERROR as the reason. The next call gets a new connection, even if
/// it comes at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_closed_by_the_server() {
    let leaks = LeakCheck::start().await;
    // Old enough not to count as connections that failed.
    let idle = ("grpc.max_connection_idle_ms", 1500);
    let server = GrpcioServer::tcp(&[idle]);
    let channel = Connector::target(server.uri())
        .retry(Retry::none())
        .connect()
        .await
        .unwrap();
    for id in 1..=2 {
        let calling = call(channel.clone(), id);
        within(LIMIT, "a call", calling).await.unwrap();
        wait_until(LIMIT, || channel.status().endpoints[0].connections == 0).await;
    }
    let calling = call(channel.clone(), 3);
    within(LIMIT, "a call", calling).await.unwrap();
    let handled = server.handled().await;
    assert_eq!((handled.calls, handled.ids, handled.peers), (3, 3, 3));
    drop(channel);
    assert!(server.stop().await.success());
    leaks.finish().await;
}

/// With its default settings the server takes two PINGs on an idle connection, and answers the next with GOAWAY and
/// `too_many_pings`. The channel comes back, pings less often, and loses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_pinged_too_often_complains() {
    let leaks = LeakCheck::start().await;
    let server = GrpcioServer::tcp(&[]);
    let dials = Dials::default();
    let keepalive = Keepalive::every(Duration::from_millis(20))
        .allow_frequent()
        .while_idle(true);
    let channel = Connector::target(server.uri())
        .retry(Retry::none())
        .keepalive(keepalive)
        .dialer(dials.clone())
        // Connections that end so soon make the endpoint count as failing.
        .wait_for_ready(true)
        .connect()
        .await
        .unwrap();
    for id in 1..=5 {
        let calling = call(channel.clone(), id);
        within(LIMIT, "a call", calling).await.unwrap();
        wait_until(LIMIT, || dials.count() as u64 > id).await;
    }
    let handled = server.handled().await;
    assert_eq!((handled.calls, handled.ids), (5, 5));
    // Sixteen times as long, were there no other tests on the machine.
    let lasted: Vec<_> = dials.all().iter().filter_map(|it| it.lasted).collect();
    assert!(lasted[4] > 2 * lasted[0], "{lasted:?}");
    drop(channel);
    assert!(server.stop().await.success());
    leaks.finish().await;
}

async fn slow_call(channel: Channel, id: u64) -> Result<(), Status> {
    let request = EchoRequest {
        delay_ms: 20,
        ..request(id)
    };
    call_with(channel, request).await.map(drop)
}
