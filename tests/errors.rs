//! What a caller learns from a failed call, through a generated client and through `Channel::send`.

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

use client::calls::{ask, endpoint, hang, raw, unary};
use client::expected::Expected;
use http_body_util::BodyExt;
use support::calls::request;
use support::frames::code;
use support::leak::LeakCheck;
use support::place::HeldPort;
use support::raw_peer::RawPeer;
use support::reaction::Reaction;
use support::response;
use support::server::EchoServer;
use support::wait::{wait_equal, wait_until, within};
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use trunkline::{
    CallOptions, Channel, Connector, Delivery, Endpoint, PoolOptions, Retry, Stage, State,
};
use trunkline_proto::EchoReply;
use trunkline_proto::echo_client::EchoClient;

const LIMIT: Duration = Duration::from_secs(5);
/// Long enough for a call to get where it is to fail.
const SHORT: Duration = Duration::from_millis(200);

/// A channel with one connection for one call, which is taken until the call's task is aborted.
async fn taken(
    server: &EchoServer,
    pool: PoolOptions,
) -> (Channel, JoinHandle<Result<EchoReply, Status>>) {
    let connector = Connector::endpoints([endpoint(server)]).pool(pool.max_connections(1));
    let channel = connector.connect().await.unwrap();
    let hanging = hang(&channel, 0);
    wait_equal(LIMIT, 1, || server.journal().in_flight()).await;
    (channel, hanging)
}

#[tokio::test]
async fn connections_refused_everywhere() {
    let leaks = LeakCheck::start().await;
    let ports = [HeldPort::new(), HeldPort::new(), HeldPort::new()];
    let endpoints = || {
        ports
            .iter()
            .map(|port| Endpoint::tcp(port.addr().to_string()))
    };
    let connector = || Connector::endpoints(endpoints()).ready_timeout(SHORT);
    let reasons: Vec<_> = ports
        .iter()
        .map(|port| {
            let refused = "Connection refused (os error 111) (* attempt*, next in *.* s)";
            format!("{}: {refused}", port.addr())
        })
        .collect();
    let all = format!("all 3 endpoints failed: {}", reasons.join("; "));

    let channel = connector().connect_lazy().unwrap();
    let expected = Expected {
        attempts: 3,
        ..Expected::new(
            "no_endpoint",
            Stage::Pick,
            &format!("{all} (after 3 attempts)"),
        )
    };
    expected.check_calls(&channel, CallOptions::new()).await;
    drop(channel);
    let channel = connector().retry(Retry::none()).connect_lazy().unwrap();
    let expected = Expected::new("no_endpoint", Stage::Pick, &all);
    expected.check_calls(&channel, CallOptions::new()).await;
    drop(channel);

    let error = connector().connect().await.unwrap_err();
    let message = format!("no endpoint was ready within {SHORT:?}: {all}");
    let expected = Expected {
        attempts: 0,
        ..Expected::new("timeout", Stage::Connect, &message)
    };
    expected.check(&error);

    let one = Connector::tcp(ports[0].addr().to_string()).retry(Retry::none());
    let channel = one.connect_lazy().unwrap();
    let only = format!("the only endpoint failed: {}", reasons[0]);
    let expected = Expected::new("no_endpoint", Stage::Pick, &only);
    expected.check_calls(&channel, CallOptions::new()).await;
    drop(channel);
    drop(ports);
    leaks.finish().await;
}

#[tokio::test]
async fn the_deadline_passes_while_no_endpoint_is_ready() {
    let leaks = LeakCheck::start().await;
    let port = HeldPort::new();
    let channel = Connector::tcp(port.addr().to_string())
        .connect_lazy()
        .unwrap();
    let waiting = CallOptions::new().wait_for_ready(true).timeout(SHORT);
    let expected = Expected {
        code: Code::DeadlineExceeded,
        ..Expected::new(
            "timeout",
            Stage::Pick,
            "the deadline of 200ms passed while waiting for an endpoint to be ready; \
             before that: the only endpoint failed: *: Connection refused *",
        )
    };
    expected.check_calls(&channel, waiting).await;
    drop((channel, port));
    leaks.finish().await;
}

#[tokio::test]
async fn the_deadline_passes_while_all_streams_are_taken() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::builder("a").max_concurrent_streams(1).tcp();
    let (channel, hanging) = taken(&server, PoolOptions::new()).await;
    let address = server.addr().to_string();
    let message = "the deadline of 200ms passed while waiting for a free stream of ";
    let expected = Expected {
        code: Code::DeadlineExceeded,
        endpoint: Some(address.clone()),
        ..Expected::new("timeout", Stage::Pool, &format!("{message}{address}"))
    };
    expected
        .check_calls(&channel, CallOptions::new().timeout(SHORT))
        .await;
    assert_eq!(server.journal().started(), 1);
    hanging.abort();
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn the_deadline_passes_before_the_response_and_in_it() {
    let leaks = LeakCheck::start().await;
    // Not a tonic server: that watches the deadline too, and might be first to say so.
    let peer = RawPeer::tcp().serve(&[], |request| match request.nth {
        0 | 1 => Reaction::Silence,
        _ => Reaction::Frames(vec![response::headers(request.stream)]),
    });
    let address = peer.addr().to_string();
    let channel = Connector::tcp(&address).connect().await.unwrap();
    let message = "the deadline of 200ms passed while waiting for the response of ";
    let expected = Expected {
        code: Code::DeadlineExceeded,
        delivery: Delivery::MaybeProcessed,
        endpoint: Some(address.clone()),
        ..Expected::new("timeout", Stage::Response, &format!("{message}{address}"))
    };
    let options = CallOptions::new().timeout(SHORT);
    expected.check_calls(&channel, options).await;

    let message = format!("{address}: the deadline of 200ms passed while the response was read");
    let expected = Expected {
        stage: Some(Stage::Body),
        message,
        ..expected
    };
    let mut streaming = tonic::Request::new(request(3));
    streaming.extensions_mut().insert(options);
    let mut client = EchoClient::new(channel.clone());
    let mut replies = client.server_stream(streaming).await.unwrap().into_inner();
    let ended = within(LIMIT, "the end", replies.message()).await;
    expected.check_status(&ended.unwrap_err());
    let response = channel.send(raw(3, options)).await.unwrap();
    let read = within(LIMIT, "the end", response.into_body().collect()).await;
    expected.check(&read.unwrap_err());
    wait_equal(LIMIT, 4, || peer.seen().resets(code::CANCEL)).await;
    drop((client, channel, peer));
    leaks.finish().await;
}

#[tokio::test]
async fn too_many_calls_wait_for_a_stream_or_wait_too_long() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::builder("a").max_concurrent_streams(1).tcp();
    let address = server.addr().to_string();
    let message = "no stream became free in time (pool.wait_timeout)";
    let expected = Expected {
        endpoint: Some(address.clone()),
        ..Expected::new("pool_wait", Stage::Pool, &format!("{address}: {message}"))
    };
    let (channel, hanging) = taken(&server, PoolOptions::new().wait_timeout(SHORT)).await;
    expected.check_calls(&channel, CallOptions::new()).await;
    hanging.abort();
    drop(channel);
    wait_equal(LIMIT, 0, || server.journal().in_flight()).await;

    let (channel, hanging) = taken(&server, PoolOptions::new().max_waiting(1)).await;
    let other = channel.clone();
    let waiting = tokio::spawn(async move { unary(&other, 1).await });
    wait_until(LIMIT, || channel.status().endpoints[0].waiting == 1).await;
    let message = "too many calls are waiting for a free stream (pool.max_waiting)";
    let expected = Expected {
        message: format!("{address}: {message}"),
        ..expected
    };
    expected.check_calls(&channel, CallOptions::new()).await;
    // The one that waited is served.
    hanging.abort();
    assert_eq!(
        within(LIMIT, "the waiting call", waiting)
            .await
            .unwrap()
            .unwrap()
            .id,
        1
    );
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn the_channel_is_closed() {
    let leaks = LeakCheck::start().await;
    let port = HeldPort::new();
    let channel = Connector::tcp(port.addr().to_string())
        .connect_lazy()
        .unwrap();
    let other = channel.clone();
    let waits = CallOptions::new().wait_for_ready(true);
    let waiting = tokio::spawn(async move { ask(&other, request(1), waits).await });
    wait_equal(LIMIT, State::TransientFailure, || channel.status().state).await;
    channel.close(Duration::ZERO).await;
    let expected = Expected::new("closed", Stage::Pick, "the channel is closed");
    let status = within(LIMIT, "the waiting call", waiting).await.unwrap();
    expected.check_status(&status.unwrap_err());
    expected.check_calls(&channel, CallOptions::new()).await;
    expected.check_calls(&channel, waits).await;
    let error = channel.acquire().await.unwrap_err();
    Expected {
        attempts: 0,
        ..expected
    }
    .check(&error);
    drop(port);
    leaks.finish().await;
}

#[tokio::test]
async fn the_peer_refuses_twice() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp().serve(&[], |_| Reaction::refuse());
    let address = peer.addr().to_string();
    let connector = Connector::tcp(&address).retry(Retry::none());
    let channel = connector.connect().await.unwrap();
    let message = format!("{address}: the peer refused the stream (REFUSED_STREAM)");
    let expected = Expected {
        endpoint: Some(address.clone()),
        delivery: Delivery::Refused,
        ..Expected::new("refused", Stage::Response, &message)
    };
    expected.check_calls(&channel, CallOptions::new()).await;
    // Once, and once more for free.
    assert_eq!(peer.seen().requests(), 4);
    let stats = channel.stats();
    assert_eq!(
        (stats.calls, stats.failed, stats.resends, stats.retries),
        (2, 2, 2, 0)
    );

    // With retries a second refusal is a failure like any other.
    drop(channel);
    let channel = Connector::tcp(&address).connect().await.unwrap();
    let expected = Expected {
        attempts: 3,
        message: format!("{message} (after 3 attempts)"),
        ..expected
    };
    expected.check_calls(&channel, CallOptions::new()).await;
    assert_eq!(peer.seen().requests(), 4 + 2 * 4);
    drop((channel, peer));
    leaks.finish().await;
}

#[tokio::test]
async fn the_peer_resets_the_call_or_the_connection_breaks() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp().serve(&[], |request| match request.nth / 2 {
        0 => Reaction::Reset(code::INTERNAL_ERROR),
        _ => Reaction::Close,
    });
    let address = peer.addr().to_string();
    let connector = Connector::tcp(&address).retry(Retry::none());
    let channel = connector.connect().await.unwrap();
    let expected = Expected {
        code: Code::Internal,
        endpoint: Some(address.clone()),
        delivery: Delivery::MaybeProcessed,
        ..Expected::new(
            "protocol",
            Stage::Response,
            &format!("{address}: the peer reset the stream (INTERNAL_ERROR)"),
        )
    };
    expected.check_calls(&channel, CallOptions::new()).await;
    let expected = Expected {
        is: "disconnected",
        code: Code::Unavailable,
        message: format!("{address}: *connection*"),
        ..expected
    };
    expected
        .check_calls(&channel, CallOptions::new().wait_for_ready(true))
        .await;
    drop((channel, peer));
    leaks.finish().await;
}

#[tokio::test]
async fn a_doubt_about_an_earlier_attempt_stays() {
    let leaks = LeakCheck::start().await;
    let mut server = EchoServer::start_tcp("a");
    let channel = Connector::endpoints([endpoint(&server)])
        .retry(Retry::exponential().idempotent(true))
        .connect()
        .await
        .unwrap();
    let hanging = hang(&channel, 1);
    wait_equal(LIMIT, 1, || server.journal().in_flight()).await;
    server.kill();
    let status = within(LIMIT, "the call", hanging).await.unwrap();
    // The last attempt was never sent, but the first one was.
    let message = "the only endpoint failed: *: Connection refused * (after 3 attempts)";
    let expected = Expected {
        attempts: 3,
        delivery: Delivery::MaybeProcessed,
        ..Expected::new("no_endpoint", Stage::Pick, message)
    };
    expected.check_status(&status.unwrap_err());
    drop((channel, server));
    leaks.finish().await;
}
