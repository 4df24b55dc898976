//! When calls and `connect` wait for an endpoint, and what the channel says of its state.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod client;
mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::calls::{ask, endpoint, hang, unary};
use client::expected::Expected;
use support::calls::request;
use support::leak::LeakCheck;
use support::raw_peer::RawPeer;
use support::server::EchoServer;
use support::wait::{holds_within, wait_equal, wait_until, within};
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use trunkline::{
    Backoff, CallOptions, Channel, Connector, Endpoint, PoolOptions, Retry, Stage, State,
};
use trunkline_proto::EchoReply;

const LIMIT: Duration = Duration::from_secs(5);

/// A server that is down. It keeps its address.
fn down(name: &str) -> EchoServer {
    let mut server = EchoServer::start_tcp(name);
    server.kill();
    server
}

/// Dials again soon, so that tests are quick.
fn eager() -> PoolOptions {
    let backoff = Backoff::dialling().initial(Duration::from_millis(5));
    PoolOptions::new().dial_backoff(backoff.max(Duration::from_millis(20)))
}

fn connector(servers: &[&EchoServer]) -> Connector {
    Connector::endpoints(servers.iter().map(|server| endpoint(server))).pool(eager())
}

fn waiting(channel: &Channel, id: u64) -> JoinHandle<Result<EchoReply, Status>> {
    let channel = channel.clone();
    let waits = CallOptions::new().wait_for_ready(true);
    tokio::spawn(async move { ask(&channel, request(id), waits).await })
}

/// Waits until every endpoint was dialled in vain.
async fn all_failed(channel: &Channel) {
    wait_equal(LIMIT, State::TransientFailure, || channel.status().state).await;
}

#[tokio::test]
async fn connect_waits_for_the_first_ready_endpoint() {
    let leaks = LeakCheck::start().await;
    let (mut a, b) = (down("a"), down("b"));
    let connecting = tokio::spawn(connector(&[&a, &b]).connect());
    // It is not there after many failures.
    assert!(!holds_within(Duration::from_millis(100), || connecting.is_finished()).await);
    a.restart();
    let channel = within(LIMIT, "connecting", connecting).await.unwrap();
    let channel = channel.unwrap();
    assert_eq!(channel.status().state, State::Ready);
    assert_eq!(unary(&channel, 1).await.unwrap().server, "a");
    drop((channel, a, b));
    leaks.finish().await;
}

#[tokio::test]
async fn connect_gives_up_at_its_limit_and_closes_what_it_opened() {
    let leaks = LeakCheck::start().await;
    // It takes connections, and never says a word.
    let silent = RawPeer::tcp();
    let connector = |connect_ms: u64, ready_ms: u64| {
        Connector::tcp(silent.addr().to_string())
            .pool(eager().connect_timeout(Duration::from_millis(connect_ms)))
            .ready_timeout(Duration::from_millis(ready_ms))
    };
    let error = connector(1000, 100).connect().await.unwrap_err();
    let address = silent.addr();
    let message = format!("the only endpoint is not ready: {address}: connecting");
    let expected = Expected {
        attempts: 0,
        ..Expected::new(
            "timeout",
            Stage::Connect,
            &format!("no endpoint was ready within 100ms: {message}"),
        )
    };
    expected.check(&error);
    let error = connector(50, 300).connect().await.unwrap_err();
    let message = "connected, but no HTTP/2 SETTINGS came within 50ms (* attempt*";
    let expected = Expected {
        message: format!(
            "no endpoint was ready within 300ms: the only endpoint failed: {address}: {message}"
        ),
        stage: Some(Stage::Handshake),
        ..expected
    };
    expected.check(&error);

    let connecting = tokio::spawn(connector(1000, 5000).connect());
    let mut opened = silent.accept().await;
    opened.read_preface().await;
    connecting.abort();
    opened.closed().await;
    drop(silent);
    leaks.finish().await;
}

#[tokio::test]
async fn a_lazy_channel_makes_calls_wait_for_its_first_dial_and_no_longer() {
    let leaks = LeakCheck::start().await;
    let mut server = EchoServer::start_tcp("a");
    let none = Retry::none();
    let channel = connector(&[&server]).retry(none).connect_lazy().unwrap();
    assert_eq!(channel.status().state, State::Connecting);
    assert_eq!(unary(&channel, 1).await.unwrap().id, 1);
    drop(channel);

    server.kill();
    let channel = connector(&[&server]).retry(Retry::none());
    let channel = channel.connect_lazy().unwrap();
    let refused = within(LIMIT, "the call", unary(&channel, 2)).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    let patient = waiting(&channel, 3);
    all_failed(&channel).await;
    server.restart();
    let served = within(LIMIT, "the waiting call", patient).await.unwrap();
    assert_eq!(served.unwrap().id, 3);
    assert_eq!(unary(&channel, 4).await.unwrap().id, 4);
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn a_call_chooses_for_itself_whether_it_waits() {
    let leaks = LeakCheck::start().await;
    for channel_waits in [false, true] {
        let mut server = down("a");
        let connector = connector(&[&server]).retry(Retry::none());
        let channel = connector
            .wait_for_ready(channel_waits)
            .connect_lazy()
            .unwrap();
        all_failed(&channel).await;
        let options = [
            (CallOptions::new(), channel_waits),
            (CallOptions::new().wait_for_ready(false), false),
            (CallOptions::new().wait_for_ready(true), true),
        ];
        let calls = options.map(|(options, waits)| {
            let channel = channel.clone();
            let call = async move { ask(&channel, request(1), options).await };
            (tokio::spawn(call), waits)
        });
        let mut patient = Vec::new();
        for (call, waits) in calls {
            if waits {
                patient.push(call);
            } else {
                let failed = within(LIMIT, "a call that does not wait", call).await;
                assert_eq!(failed.unwrap().unwrap_err().code(), Code::Unavailable);
            }
        }
        assert!(patient.iter().all(|call| !call.is_finished()));
        server.restart();
        for call in patient {
            within(LIMIT, "a waiting call", call)
                .await
                .unwrap()
                .unwrap();
        }
        drop((channel, server));
    }
    leaks.finish().await;
}

/// Calls one after the other, from several tasks, until told to stop. Gives how many there were.
fn callers(channel: &Channel, stop: &Arc<Mutex<bool>>) -> Vec<JoinHandle<u64>> {
    let caller = |id| {
        let (channel, stop) = (channel.clone(), Arc::clone(stop));
        tokio::spawn(async move {
            let mut calls = 0;
            while !*stop.lock().unwrap() {
                unary(&channel, id).await.unwrap();
                calls += 1;
            }
            calls
        })
    };
    (0..4).map(caller).collect()
}

async fn total(callers: Vec<JoinHandle<u64>>, stop: &Mutex<bool>) -> u64 {
    *stop.lock().unwrap() = true;
    let mut total = 0;
    for caller in callers {
        let calls = within(LIMIT, "the callers", caller).await;
        total += calls.expect("no call failed");
    }
    total
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_when_the_only_server_says_goodbye_again_and_again() {
    let leaks = LeakCheck::start().await;
    let age = Duration::from_millis(100);
    let server = EchoServer::builder("a").max_connection_age(age).tcp();
    // Not a retry: nothing of it was processed twice.
    let connector = connector(&[&server]).retry(Retry::none());
    let channel = connector.connect().await.unwrap();
    let stop = Arc::default();
    let callers = callers(&channel, &stop);
    wait_until(LIMIT, || server.journal().accepted() >= 8).await;
    let calls = total(callers, &stop).await;
    assert_eq!(server.journal().finished(), calls);
    assert_eq!(server.journal().started(), calls);
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_the_only_server_restarts_if_calls_wait() {
    let leaks = LeakCheck::start().await;
    let mut server = EchoServer::start_tcp("a");
    let connector = connector(&[&server]).retry(Retry::none());
    let channel = connector.wait_for_ready(true).connect().await.unwrap();
    let stop = Arc::default();
    let callers = callers(&channel, &stop);
    let mut before = 0;
    for _ in 0..3 {
        wait_until(LIMIT, || server.journal().finished() > before + 50).await;
        server.shutdown().await;
        all_failed(&channel).await;
        before = server.journal().finished();
        server.restart();
    }
    wait_until(LIMIT, || server.journal().finished() > before + 50).await;
    let calls = total(callers, &stop).await;
    assert_eq!(server.journal().finished(), calls);
    assert_eq!(server.journal().started(), calls);
    assert_eq!(server.journal().accepted(), 4);
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn the_state_can_be_watched() {
    let leaks = LeakCheck::start().await;
    let mut server = down("a");
    let channel = connector(&[&server]).connect_lazy().unwrap();
    let mut watch = channel.watch_state();
    let follow = async |watch: &mut tokio::sync::watch::Receiver<State>, wanted: State| {
        let seen = watch.wait_for(|state| *state == wanted);
        within(LIMIT, "a state", seen).await.unwrap();
    };
    assert_eq!(*watch.borrow(), State::Connecting);
    follow(&mut watch, State::TransientFailure).await;
    server.restart();
    follow(&mut watch, State::Ready).await;
    assert_eq!(channel.status().state, State::Ready);
    // Of two endpoints one is enough.
    let two = connector(&[&server, &down("b")]).connect().await.unwrap();
    assert_eq!(*two.watch_state().borrow(), State::Ready);
    drop(two);

    server.kill();
    follow(&mut watch, State::TransientFailure).await;
    server.restart();
    follow(&mut watch, State::Ready).await;
    channel.close(Duration::ZERO).await;
    follow(&mut watch, State::Shutdown).await;
    assert_eq!(channel.status().state, State::Shutdown);
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn status_and_stats_tell_what_every_endpoint_is_doing() {
    let leaks = LeakCheck::start().await;
    let a = EchoServer::builder("a").max_concurrent_streams(2).tcp();
    let b = down("b");
    let (here, there) = (
        endpoint(&a).weight(3).metadata("zone", "east"),
        endpoint(&b),
    );
    let drained = Endpoint::tcp("127.0.0.1:1").weight(0);
    let pool = PoolOptions::new().max_connections(1);
    let connector = Connector::endpoints([here, there, drained]).pool(pool);
    let channel = connector.connect().await.unwrap();
    wait_until(LIMIT, || channel.status().endpoints[1].failed_dials >= 2).await;
    let status = channel.status();
    assert_eq!(status.state, State::Ready);
    assert_eq!(
        (status.source.as_str(), status.policy.as_str()),
        ("fixed", "default")
    );
    assert!(status.resolution_age.is_some() && status.discovery_error.is_none());
    let [first, second, third] = status.endpoints.try_into().unwrap();
    assert_eq!((first.address, first.weight), (a.addr().to_string(), 3));
    assert_eq!(first.metadata["zone"], "east");
    assert_eq!((first.state, first.connections), (State::Ready, 1));
    assert_eq!(
        (first.in_flight, first.free_streams, first.waiting),
        (0, 2, 0)
    );
    assert_eq!(
        (first.failed_dials, first.next_dial, first.last_error),
        (0, None, None)
    );
    assert_eq!((second.address, second.weight), (b.addr().to_string(), 1));
    assert_eq!(
        (second.state, second.connections),
        (State::TransientFailure, 0)
    );
    assert!(second.last_error.unwrap().contains("Connection refused"));
    assert!(second.next_dial.is_some() && second.for_how_long > Duration::ZERO);
    assert_eq!((third.weight, third.state), (0, State::Shutdown));

    for id in 0..3 {
        unary(&channel, id).await.unwrap();
    }
    let mut refused = request(3);
    refused.fail_code = Code::NotFound as u32;
    ask(&channel, refused, CallOptions::new())
        .await
        .unwrap_err();
    let hanging = [hang(&channel, 4), hang(&channel, 5), hang(&channel, 6)];
    let now = || {
        let first = &channel.status().endpoints[0];
        (first.in_flight, first.free_streams, first.waiting)
    };
    wait_equal(LIMIT, (2, 0, 1), now).await;
    wait_equal(LIMIT, 2, || a.journal().in_flight()).await;
    let counts = || {
        let first = &channel.status().endpoints[0];
        (first.answered, first.failed)
    };
    // A status is an answer.
    assert_eq!(counts(), (4, 0));
    drop(a);
    for call in hanging {
        within(LIMIT, "a call", call).await.unwrap().unwrap_err();
    }
    wait_equal(LIMIT, (0, 0, 0), now).await;
    let (answered, failed) = counts();
    assert!(answered == 4 && (2..=6).contains(&failed), "{failed}");
    assert_eq!(channel.status().endpoints[0].connections, 0);
    let stats = channel.stats();
    assert_eq!((stats.calls, stats.failed), (7, 3));
    drop((channel, b));
    leaks.finish().await;
}
