//! How many connections there are, when they come and when they go, and who gets their streams.

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

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::calls::{endpoint, hang, slow, unary};
use client::first::First;
use support::frames::setting;
use support::leak::LeakCheck;
use support::raw_peer::RawPeer;
use support::reaction::Reaction;
use support::server::EchoServer;
use support::wait::{holds_within, wait_equal, wait_until, within};
use tokio::task::JoinHandle;
use tonic::Status;
use trunkline::{Balance, Channel, Connector, EndpointStatus, Error, PoolOptions, State};
use trunkline_proto::EchoReply;

const LIMIT: Duration = Duration::from_secs(5);
const MILLI: Duration = Duration::from_millis(1);

/// A server that takes so many calls per connection.
fn server(streams: u32) -> EchoServer {
    EchoServer::builder("a")
        .max_concurrent_streams(streams)
        .tcp()
}

async fn connect(server: &EchoServer, pool: PoolOptions) -> Channel {
    let connector = Connector::endpoints([endpoint(server)]).pool(pool);
    connector.connect().await.unwrap()
}

fn status(channel: &Channel) -> EndpointStatus {
    channel.status().endpoints.swap_remove(0)
}

type Call = JoinHandle<Result<EchoReply, Status>>;

/// So many more calls that stay open, once the server has them.
async fn more(channel: &Channel, server: &EchoServer, calls: u64) -> Vec<Call> {
    let wanted = server.journal().in_flight() + calls;
    let calls = (0..calls).map(|id| hang(channel, id)).collect();
    wait_equal(LIMIT, wanted, || server.journal().in_flight()).await;
    calls
}

async fn end(calls: impl IntoIterator<Item = Call>, server: &EchoServer) {
    for call in calls {
        call.abort();
        let _ = call.await;
    }
    wait_equal(LIMIT, 0, || server.journal().in_flight()).await;
}

/// A call that no queue has room for was never sent: it goes elsewhere, and fails only when all are full.
#[tokio::test]
async fn a_full_queue_sends_calls_to_the_next_endpoint() {
    let leaks = LeakCheck::start().await;
    let servers = [server(1), server(1)];
    let first = First::default();
    let channel = Connector::endpoints(servers.each_ref().map(endpoint))
        .balance(Balance::custom(first.clone()))
        .pool(PoolOptions::new().max_connections(1).max_waiting(1))
        .connect()
        .await
        .unwrap();
    wait_equal(LIMIT, 2, || first.candidates()).await;
    let mut calls = Vec::new();
    // A call waits only once no stream is free anywhere.
    for server in &servers {
        calls.extend(more(&channel, server, 1).await);
    }
    for queues in [[1, 0], [1, 1]] {
        calls.push(hang(&channel, 10));
        let waiting = || {
            let all = channel.status().endpoints;
            [all[0].waiting, all[1].waiting]
        };
        wait_equal(LIMIT, queues, waiting).await;
    }
    let full = unary(&channel, 20).await.unwrap_err();
    let error = Error::from_status(&full).unwrap();
    assert!(
        error.is_pool_wait() && !error.maybe_processed(),
        "{error:?}"
    );
    for call in calls {
        call.abort();
        let _ = call.await;
    }
    drop((channel, servers));
    leaks.finish().await;
}

#[tokio::test]
async fn connections_are_added_when_all_streams_are_taken_up_to_the_maximum() {
    let leaks = LeakCheck::start().await;
    let server = server(2);
    let channel = connect(&server, PoolOptions::new().max_connections(3)).await;
    for id in 0..20 {
        unary(&channel, id).await.unwrap();
    }
    assert_eq!(
        server.journal().accepted(),
        1,
        "one call at a time needs one stream"
    );
    let mut open = Vec::new();
    for connections in 1..=3 {
        for _ in 0..2 {
            open.extend(more(&channel, &server, 1).await);
            assert_eq!(server.journal().accepted(), connections);
        }
    }
    let waiting = [slow(&channel, 6, 0), slow(&channel, 7, 0)];
    wait_equal(LIMIT, 2, || status(&channel).waiting).await;
    let more_opened = || server.journal().accepted() > 3;
    assert!(!holds_within(100 * MILLI, more_opened).await);
    let now = status(&channel);
    assert_eq!(
        (now.connections, now.in_flight, now.free_streams),
        (3, 6, 0)
    );
    open.pop().unwrap().abort();
    for call in waiting {
        within(LIMIT, "a waiting call", call)
            .await
            .unwrap()
            .unwrap();
    }
    end(open, &server).await;
    assert_eq!(server.journal().peak_in_flight(), 6);
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn a_burst_dials_no_more_than_it_needs() {
    let leaks = LeakCheck::start().await;
    let server = server(10);
    let connector = Connector::endpoints([endpoint(&server)]);
    let pool = PoolOptions::new().max_connections(16);
    let channel = connector.pool(pool).connect_lazy().unwrap();
    let calls = more(&channel, &server, 40).await;
    assert_eq!(status(&channel).connections, 4);
    end(calls, &server).await;
    assert_eq!(server.journal().accepted(), 4);
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn the_minimum_is_opened_at_once_and_kept() {
    let leaks = LeakCheck::start().await;
    let mut server = server(2);
    let pool = PoolOptions::new().min_connections(3).max_connections(4);
    let channel = connect(&server, pool.idle_timeout(20 * MILLI)).await;
    wait_equal(LIMIT, 3, || status(&channel).connections).await;
    // One more when it is needed, and for no longer.
    let calls = more(&channel, &server, 7).await;
    assert_eq!(status(&channel).connections, 4);
    end(calls, &server).await;
    wait_equal(LIMIT, 3, || server.journal().open()).await;
    assert!(!holds_within(200 * MILLI, || server.journal().open() != 3).await);
    assert_eq!(server.journal().accepted(), 4);
    // What is lost comes back without a call.
    server.restart();
    wait_equal(LIMIT, 3, || server.journal().open()).await;
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn a_surplus_is_kept_in_reserve_for_its_idle_time() {
    let leaks = LeakCheck::start().await;
    let server = server(1);
    let channel = connect(&server, PoolOptions::new().idle_timeout(2000 * MILLI)).await;
    let numbers = || {
        let status = status(&channel);
        (status.connections, status.idle_connections)
    };
    for _ in 0..2 {
        let calls = more(&channel, &server, 4).await;
        assert_eq!(numbers(), (4, 0));
        end(calls, &server).await;
        wait_equal(LIMIT, (1, 3), numbers).await;
        // The second round takes the connections that the first one left.
        assert_eq!(
            (server.journal().accepted(), server.journal().open()),
            (4, 4)
        );
    }
    wait_equal(2 * LIMIT, (1, 0), numbers).await;
    wait_equal(LIMIT, 1, || server.journal().open()).await;
    unary(&channel, 1).await.unwrap();
    assert_eq!(server.journal().accepted(), 4);
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_minimum_an_endpoint_falls_idle_and_a_call_wakes_it() {
    let leaks = LeakCheck::start().await;
    let server = server(10);
    let pool = PoolOptions::new().min_connections(0);
    // Long enough for several calls to find the same connection.
    let channel = connect(&server, pool.idle_timeout(300 * MILLI)).await;
    let mut states = channel.watch_state();
    for connections in 1..=3 {
        unary(&channel, connections).await.unwrap();
        assert_eq!(server.journal().accepted(), connections);
        let idle = states.wait_for(|state| *state == State::Idle);
        within(LIMIT, "falling idle", idle).await.unwrap();
        wait_equal(LIMIT, 0, || server.journal().open()).await;
        let now = status(&channel);
        assert_eq!(
            (now.state, now.connections, now.idle_connections),
            (State::Idle, 0, 0)
        );
    }
    // Many that find it idle share one dial.
    let calls: Vec<_> = (0..5).map(|id| slow(&channel, id, 0)).collect();
    for call in calls {
        within(LIMIT, "a call", call).await.unwrap().unwrap();
    }
    assert_eq!(server.journal().accepted(), 4);
    // A call in progress is use.
    let long = slow(&channel, 9, 900);
    within(LIMIT, "a long call", long).await.unwrap().unwrap();
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_connection_is_replaced_before_it_goes() {
    let leaks = LeakCheck::start().await;
    let server = server(10);
    let pool = PoolOptions::new()
        .max_connections(1)
        .connect_timeout(100 * MILLI)
        .unix_connect_timeout(100 * MILLI)
        .max_connection_age(150 * MILLI);
    let channel = connect(&server, pool).await;
    let mut states = channel.watch_state();
    states.mark_unchanged();
    // Older than any connection gets before it retires.
    let long = slow(&channel, 1, 700);
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|id| {
            let (channel, stop) = (channel.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    assert_eq!(status(&channel).connections, 1);
                    unary(&channel, id).await.unwrap();
                }
            })
        })
        .collect();
    wait_until(LIMIT, || server.journal().accepted() >= 8).await;
    stop.store(true, SeqCst);
    for caller in callers {
        caller.await.expect("no call failed");
    }
    assert_eq!(
        within(LIMIT, "the long call", long)
            .await
            .unwrap()
            .unwrap()
            .id,
        1
    );
    // Without calls too.
    let accepted = server.journal().accepted();
    wait_until(LIMIT, || server.journal().accepted() >= accepted + 3).await;
    assert!(!states.has_changed().unwrap(), "it was ready all the time");
    assert_eq!(server.journal().cancelled(), 0);
    wait_until(LIMIT, || server.journal().open() <= 2).await;
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn waiting_calls_are_served_in_their_order() {
    let leaks = LeakCheck::start().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    let peer = RawPeer::tcp().serve(&[(setting::MAX_CONCURRENT_STREAMS, 1)], move |request| {
        let id = request.echo().unwrap().id;
        seen.lock().unwrap().push(id);
        if id == 0 {
            return Reaction::Silence;
        }
        Reaction::echo(request, "raw")
    });
    let connector = Connector::tcp(peer.addr().to_string());
    let pool = PoolOptions::new().max_connections(1);
    let channel = connector.pool(pool).connect().await.unwrap();
    let first = hang(&channel, 0);
    wait_equal(LIMIT, 1, || peer.seen().streams()).await;
    let mut calls = Vec::new();
    for id in 1..=20 {
        calls.push(slow(&channel, id, 0));
        wait_equal(LIMIT, id as usize, || status(&channel).waiting).await;
    }
    // Who leaves the queue holds up nobody.
    for id in [15, 10, 5] {
        let gone = calls.remove(id - 1);
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
    }
    first.abort();
    for call in calls {
        within(LIMIT, "a call", call).await.unwrap().unwrap();
    }
    let expected: Vec<_> = (0..=20).filter(|id| ![5, 10, 15].contains(id)).collect();
    assert_eq!(*order.lock().unwrap(), expected);
    assert_eq!(status(&channel).free_streams, 1);
    drop((channel, peer));
    leaks.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_starves_under_steady_overlap() {
    let leaks = LeakCheck::start().await;
    let server = server(2);
    server.behaviour().set_delay(MILLI);
    let channel = connect(&server, PoolOptions::new().max_connections(1)).await;
    let total = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..16)
        .map(|id| {
            let (channel, total) = (channel.clone(), Arc::clone(&total));
            tokio::spawn(async move {
                let mut made = 0_u64;
                while total.fetch_add(1, SeqCst) < 800 {
                    unary(&channel, id).await.unwrap();
                    made += 1;
                }
                made
            })
        })
        .collect();
    let mut made = Vec::new();
    for caller in callers {
        made.push(within(2 * LIMIT, "a caller", caller).await.unwrap());
    }
    let (least, most) = (made.iter().min().unwrap(), made.iter().max().unwrap());
    assert!(most - least <= 5, "in turns: {made:?}");
    assert_eq!(server.journal().peak_in_flight(), 2);
    drop((channel, server));
    leaks.finish().await;
}
