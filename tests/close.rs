//! The end of a channel: closed, dropped, or left by its runtime.

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

use std::time::Duration;

use client::calls::{ask, endpoint, hang, slow, unary};
use client::expected::Expected;
use support::calls::request;
use support::leak::LeakCheck;
use support::place::HeldPort;
use support::server::EchoServer;
use support::wait::{wait_equal, wait_until, within};
use tokio::runtime::Builder;
use tonic::Code;
use trunkline::{
    CallOptions, Channel, Connector, Delivery, Error, PoolOptions, Retry, Stage, State,
};
use trunkline_proto::EchoRequest;
use trunkline_proto::echo_client::EchoClient;

const LIMIT: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3600);

async fn connect(server: &EchoServer) -> Channel {
    let connector = Connector::endpoints([endpoint(server)]);
    connector.connect().await.unwrap()
}

fn closed() -> Expected {
    Expected::new("closed", Stage::Pick, "the channel is closed")
}

#[tokio::test]
async fn running_calls_may_finish_and_new_ones_are_refused() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let channel = connect(&server).await;
    let running = [slow(&channel, 1, 1000), slow(&channel, 2, 1100)];
    wait_equal(LIMIT, 2, || server.journal().in_flight()).await;
    let other = channel.clone();
    let closing = tokio::spawn(async move { other.close(HOUR).await });
    wait_equal(LIMIT, State::Shutdown, || channel.status().state).await;
    closed().check_calls(&channel, CallOptions::new()).await;
    assert!(!closing.is_finished(), "calls are running");
    // As soon as they are through, not after the grace.
    within(LIMIT, "closing", closing).await.unwrap();
    for call in running {
        call.await.unwrap().unwrap();
    }
    wait_equal(LIMIT, 0, || server.journal().open()).await;
    assert_eq!(
        (server.journal().started(), server.journal().cancelled()),
        (2, 0)
    );
    // Again, with nothing left to do.
    within(LIMIT, "closing", channel.close(HOUR)).await;
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn after_the_grace_what_still_runs_is_cut() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::builder("a").max_concurrent_streams(2).tcp();
    let pool = PoolOptions::new().max_connections(1);
    let connector = Connector::endpoints([endpoint(&server)]).pool(pool);
    let channel = connector.connect().await.unwrap();
    let unary = hang(&channel, 1);
    let mut streaming = tonic::Request::new(EchoRequest {
        repeat: 2,
        delay_ms: u32::MAX,
        ..request(2)
    });
    streaming
        .extensions_mut()
        .insert(CallOptions::new().no_timeout());
    let mut client = EchoClient::new(channel.clone());
    let mut replies = client.server_stream(streaming).await.unwrap().into_inner();
    wait_equal(LIMIT, 2, || server.journal().in_flight()).await;
    let queued = hang(&channel, 3);
    wait_equal(LIMIT, 1, || channel.status().endpoints[0].waiting).await;

    // Given up half-way, it has closed the channel all the same.
    let grace = Duration::from_millis(100);
    let given_up = tokio::time::timeout(grace, channel.close(HOUR)).await;
    assert!(given_up.is_err() && channel.status().state == State::Shutdown);
    let status = within(LIMIT, "the queued call", queued).await.unwrap();
    closed().check_status(&status.unwrap_err());
    assert_eq!(server.journal().in_flight(), 2);
    within(LIMIT, "closing", channel.close(grace)).await;

    let address = server.addr().to_string();
    let mut expected = Expected {
        endpoint: Some(address),
        delivery: Delivery::MaybeProcessed,
        ..Expected::new(
            "closed",
            Stage::Response,
            "the channel was closed while the call ran",
        )
    };
    let status = within(LIMIT, "the call", unary).await.unwrap();
    expected.check_status(&status.unwrap_err());
    let status = within(LIMIT, "the stream", replies.message()).await;
    expected.stage = Some(Stage::Body);
    expected.check_status(&status.unwrap_err());
    wait_equal(LIMIT, 2, || server.journal().cancelled()).await;
    assert_eq!(server.journal().open(), 0);
    drop((client, replies, channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn a_channel_lives_until_its_last_clone_and_call_are_gone() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let channel = connect(&server).await;
    let clone = channel.clone();
    drop(channel);
    unary(&clone, 1).await.unwrap();
    let calling = slow(&clone, 2, 500);
    wait_equal(LIMIT, 1, || server.journal().in_flight()).await;
    let streaming = EchoRequest {
        repeat: 3,
        delay_ms: 100,
        ..request(3)
    };
    let mut client = EchoClient::new(clone);
    let mut replies = client.server_stream(streaming).await.unwrap().into_inner();
    drop(client);
    calling.await.unwrap().unwrap();
    for sequence in 0..3 {
        let reply = within(LIMIT, "a reply", replies.message()).await.unwrap();
        assert_eq!(reply.unwrap().sequence, sequence);
    }
    assert!(replies.message().await.unwrap().is_none());
    // The stream has ended, whether or not it is still there.
    wait_equal(LIMIT, 0, || server.journal().open()).await;
    assert_eq!(
        (server.journal().accepted(), server.journal().cancelled()),
        (1, 0)
    );
    drop((replies, server));
    leaks.finish().await;
}

#[tokio::test]
async fn a_channel_that_never_connected_can_be_dropped_and_closed() {
    let leaks = LeakCheck::start().await;
    let port = HeldPort::new();
    let connector = || Connector::tcp(port.addr().to_string());
    drop(connector().connect_lazy().unwrap());
    let channel = connector().connect_lazy().unwrap();
    within(LIMIT, "closing", channel.close(HOUR)).await;
    closed().check_calls(&channel, CallOptions::new()).await;
    drop((channel, port));
    leaks.finish().await;
}

/// The channel's tasks stay on the runtime on which it was made.
#[test]
fn calls_may_come_from_another_runtime_and_outlive_the_channels_own() {
    let runtime = || {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().unwrap()
    };
    let server = EchoServer::start_tcp("a");
    let (home, abroad) = (runtime(), runtime());
    let channel = home.block_on(connect(&server));
    abroad.block_on(async {
        for id in 0..10 {
            assert_eq!(unary(&channel, id).await.unwrap().id, id);
        }
        let running = hang(&channel, 10);
        wait_equal(LIMIT, 1, || server.journal().in_flight()).await;
        home.shutdown_background();
        let status = within(LIMIT, "the running call", running).await.unwrap();
        let status = status.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(Error::from_status(&status).is_some_and(Error::maybe_processed));
        // Nothing will ever be ready again.
        wait_equal(LIMIT, State::Shutdown, || channel.status().state).await;
        let waits = CallOptions::new().wait_for_ready(true).no_timeout();
        let refused = within(LIMIT, "a call", ask(&channel, request(11), waits)).await;
        let refused = refused.unwrap_err();
        assert!(Error::from_status(&refused).is_some_and(Error::is_closed));
        within(LIMIT, "closing", channel.close(LIMIT)).await;
    });
    abroad.block_on(wait_until(LIMIT, || server.journal().open() == 0));
}

#[tokio::test]
async fn what_a_call_holds_is_given_back_when_it_is_dropped() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let connector = Connector::endpoints([endpoint(&server)]).retry(Retry::none());
    let channel = connector.connect().await.unwrap();
    let room = channel.status().endpoints[0].free_streams;
    let calls: Vec<_> = (0..20).map(|id| hang(&channel, id)).collect();
    wait_equal(LIMIT, 20, || server.journal().in_flight()).await;
    assert_eq!(channel.status().endpoints[0].free_streams, room - 20);
    for call in calls {
        call.abort();
    }
    wait_equal(LIMIT, 20, || server.journal().cancelled()).await;
    assert_eq!(channel.status().endpoints[0].free_streams, room);
    unary(&channel, 20).await.unwrap();
    assert_eq!(server.journal().accepted(), 1);
    drop((channel, server));
    leaks.finish().await;
}
