//! Time limits of calls: which one holds, what the server is told of it, and what is left when it has passed.

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

use client::calls::{endpoint, raw, unary};
use client::expected::Expected;
use h2::Reason;
use http_body_util::BodyExt;
use support::calls::request;
use support::frames::code;
use support::h2_server::{H2Conn, H2Peer, H2Request};
use support::leak::LeakCheck;
use support::raw_peer::RawPeer;
use support::reaction::Reaction;
use support::server::EchoServer;
use support::wait::{wait_equal, within};
use tonic::{Code, Status};
use trunkline::{Backoff, CallOptions, Channel, Connector, Error, PoolOptions, Retry, Stage};
use trunkline_proto::EchoRequest;
use trunkline_proto::echo_client::EchoClient;

const LIMIT: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// What the `grpc-timeout` header says.
fn told(request: &H2Request) -> Option<Duration> {
    let header = request.header("grpc-timeout")?;
    let (digits, unit) = header.split_at(header.len() - 1);
    assert!(digits.len() <= 8, "{header}");
    let value: u64 = digits.parse().unwrap();
    Some(match unit {
        "H" => value as u32 * HOUR,
        "M" => value as u32 * MINUTE,
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => panic!("{header}"),
    })
}

struct Call {
    options: CallOptions,
    set_timeout: Option<Duration>,
}

/// Makes the call, answers it, and gives what the server was told.
async fn told_of(channel: &Channel, conn: &mut H2Conn, call: Call) -> Option<Duration> {
    let mut asked = tonic::Request::new(request(1));
    if let Some(timeout) = call.set_timeout {
        asked.set_timeout(timeout);
    }
    asked.extensions_mut().insert(call.options);
    let mut client = EchoClient::new(channel.clone());
    let calling = tokio::spawn(async move { client.unary(asked).await });
    let request = conn.next().await;
    let told = told(&request);
    request.ok(&[]);
    calling.await.unwrap().unwrap();
    told
}

/// Just below, for the time that has passed on the way.
fn is_about(told: Option<Duration>, wanted: Option<Duration>) -> bool {
    match (told, wanted) {
        (Some(told), Some(wanted)) => told <= wanted && told >= wanted.mul_f64(0.9),
        (told, wanted) => told == wanted,
    }
}

#[tokio::test]
async fn the_server_is_told_the_limit_that_holds() {
    let leaks = LeakCheck::start().await;
    let peer = H2Peer::tcp();
    let connector = || Connector::tcp(peer.addr().to_string());
    let channels = [
        (connector(), Some(30 * SECOND)),
        (connector().timeout(MINUTE), Some(MINUTE)),
        (connector().no_timeout(), None),
    ];
    let new = CallOptions::new;
    for (connector, of_channel) in channels {
        let channel = connector.connect_lazy().unwrap();
        let mut conn = peer.accept().await;
        let longest = Duration::from_secs(30 * 365 * 24 * 3600);
        let cases = [
            // The channel's, unless the call has one of its own, longer or shorter.
            (new(), None, of_channel),
            (new(), Some(20 * SECOND), Some(20 * SECOND)),
            (new(), Some(2 * HOUR), Some(2 * HOUR)),
            (new().timeout(20 * SECOND), None, Some(20 * SECOND)),
            (new().timeout(2 * HOUR), None, Some(2 * HOUR)),
            (new().no_timeout(), None, None),
            // Of two of its own the shorter.
            (new().timeout(MINUTE), Some(HOUR), Some(MINUTE)),
            (new().timeout(HOUR), Some(MINUTE), Some(MINUTE)),
            (new().no_timeout(), Some(MINUTE), Some(MINUTE)),
            // Beyond what clocks can tell there is no overflow.
            (new().timeout(Duration::MAX), None, Some(longest)),
        ];
        for (options, set_timeout, wanted) in cases {
            let call = Call {
                options,
                set_timeout,
            };
            let text = format!("{options:?} and {set_timeout:?} on a channel of {of_channel:?}");
            let told = told_of(&channel, &mut conn, call).await;
            assert!(
                is_about(told, wanted),
                "{told:?}, not {wanted:?}, for {text}"
            );
        }
        drop(channel);
        conn.ended().await;
    }
    drop(peer);
    leaks.finish().await;
}

#[tokio::test]
async fn a_retry_is_told_what_is_left() {
    let leaks = LeakCheck::start().await;
    let peer = H2Peer::tcp();
    let pause = Duration::from_millis(300);
    let backoff = Backoff::calls().initial(pause).jitter(0.0);
    let channel = Connector::tcp(peer.addr().to_string())
        .retry(Retry::exponential().backoff(backoff))
        .timeout(10 * SECOND)
        .connect_lazy()
        .unwrap();
    let other = channel.clone();
    let calling = tokio::spawn(async move { unary(&other, 1).await });
    let mut conn = peer.accept().await;
    let first = conn.next().await;
    let told_first = told(&first).unwrap();
    first.fail(Code::Unavailable as i32, "again");
    let second = conn.next().await;
    let told_second = told(&second).unwrap();
    assert!(told_first <= 10 * SECOND);
    assert!(
        told_second <= told_first - pause,
        "{told_first:?}, {told_second:?}"
    );
    second.ok(&[8, 1]);
    calling.await.unwrap().unwrap();
    drop(channel);
    conn.ended().await;
    drop(peer);
    leaks.finish().await;
}

#[tokio::test]
async fn a_request_that_is_not_grpc_has_a_limit_too() {
    let leaks = LeakCheck::start().await;
    let peer = H2Peer::tcp();
    let channel = Connector::tcp(peer.addr().to_string())
        .connect_lazy()
        .unwrap();
    let short = CallOptions::new().timeout(Duration::from_millis(100));
    let mut plain = raw(1, short);
    plain.headers_mut().remove("content-type");
    let sent = {
        let channel = channel.clone();
        tokio::spawn(async move { channel.send(plain).await })
    };
    let mut conn = peer.accept().await;
    let mut asked = conn.next().await;
    assert_eq!(told(&asked), None, "a header that only gRPC has");
    assert_eq!(asked.was_reset().await, Reason::CANCEL);
    let error = sent.await.unwrap().unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    drop(channel);
    conn.ended().await;
    drop(peer);
    leaks.finish().await;
}

/// Whether these ended by their deadline, with `set_timeout` the first and with the channel's the second.
async fn ended_by_deadline(channel: &Channel, stage: Stage) {
    let ended = |status: Status| {
        let error = Error::from_status(&status).expect("this crate's");
        assert!(error.is_timeout(), "{error:?}");
        assert_eq!(
            (status.code(), error.stage()),
            (Code::DeadlineExceeded, Some(stage))
        );
    };
    let mut asked = tonic::Request::new(request(1));
    asked.set_timeout(Duration::from_millis(100));
    let mut client = EchoClient::new(channel.clone());
    let call = within(LIMIT, "the call", client.unary(asked)).await;
    ended(call.unwrap_err());
    let call = within(LIMIT, "the call", client.unary(request(2))).await;
    ended(call.unwrap_err());
}

#[tokio::test]
async fn at_the_deadline_the_stream_is_reset_and_its_slot_is_free() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp().serve(&[], |request| match request.nth {
        0 | 1 => Reaction::Silence,
        _ => Reaction::echo(request, "raw"),
    });
    let channel = Connector::tcp(peer.addr().to_string())
        .timeout(Duration::from_millis(200))
        .pool(PoolOptions::new().max_connections(1))
        .http2(trunkline::Http2Options::new().max_streams(1))
        .connect()
        .await
        .unwrap();
    ended_by_deadline(&channel, Stage::Response).await;
    wait_equal(LIMIT, 2, || peer.seen().resets(code::CANCEL)).await;
    assert_eq!(unary(&channel, 3).await.unwrap().id, 3);
    assert_eq!(channel.status().endpoints[0].in_flight, 0);
    assert_eq!(channel.status().endpoints[0].free_streams, 1);
    assert_eq!(peer.seen().connections(), 1);
    drop((channel, peer));
    leaks.finish().await;
}

#[tokio::test]
async fn the_deadline_holds_to_the_end_of_the_body() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::builder("a").max_concurrent_streams(1).tcp();
    let connector = Connector::endpoints([endpoint(&server)]);
    let pool = PoolOptions::new().max_connections(1);
    let channel = connector.pool(pool).connect().await.unwrap();
    let mut client = EchoClient::new(channel.clone());
    // A reply each 20 ms: no pause is as long as the limit.
    let mut asked = tonic::Request::new(EchoRequest {
        repeat: u32::MAX,
        delay_ms: 20,
        ..request(1)
    });
    let options = CallOptions::new().timeout(Duration::from_millis(300));
    asked.extensions_mut().insert(options);
    let mut replies = client.server_stream(asked).await.unwrap().into_inner();
    let mut seen = 0;
    let status = loop {
        match within(LIMIT, "a reply or the end", replies.message()).await {
            Ok(reply) => seen += u64::from(reply.is_some()),
            Err(status) => break status,
        }
    };
    assert!(seen > 0);
    assert_eq!(status.code(), Code::DeadlineExceeded);
    // Though `replies` is still there.
    wait_equal(LIMIT, 1, || server.journal().cancelled()).await;
    assert_eq!(unary(&channel, 2).await.unwrap().id, 2);

    // A body that nobody reads is none the wiser, but reading it shows the end.
    let mut endless = raw(3, options);
    *endless.uri_mut() = "/trunkline.echo.v1.Echo/ServerStream".parse().unwrap();
    let response = channel.send(endless).await.unwrap();
    let ended = within(LIMIT, "reading", response.into_body().collect()).await;
    assert!(ended.is_ok(), "one reply, at once: {ended:?}");
    drop((client, replies, channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn no_time_at_all_sends_nothing() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let connector = Connector::endpoints([endpoint(&server)]);
    let channel = connector.connect().await.unwrap();
    let expected = Expected {
        code: Code::DeadlineExceeded,
        attempts: 0,
        ..Expected::new("timeout", Stage::Pick, "the deadline of 0ns passed while *")
    };
    expected
        .check_calls(&channel, CallOptions::new().timeout(Duration::ZERO))
        .await;
    assert_eq!(unary(&channel, 3).await.unwrap().id, 3);
    assert_eq!(server.journal().started(), 1);
    drop((channel, server));
    leaks.finish().await;
}

/// tonic's servers answer CANCELLED when the time that they were told is over. A busy client reads that together with
/// its own timer.
#[tokio::test]
#[allow(
    clippy::disallowed_methods,
    reason = "blocking the client's only thread is the point"
)]
async fn a_server_that_notices_the_deadline_first_does_not_change_the_status() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let connector = Connector::endpoints([endpoint(&server)]);
    let channel = connector.connect().await.unwrap();
    let mut asked = tonic::Request::new(EchoRequest {
        delay_ms: 10_000,
        ..request(1)
    });
    asked.set_timeout(Duration::from_millis(100));
    let mut client = EchoClient::new(channel.clone());
    let call = tokio::spawn(async move { client.unary(asked).await });
    wait_equal(LIMIT, 1, || server.journal().in_flight()).await;
    std::thread::sleep(Duration::from_millis(200));
    let status = within(LIMIT, "the call", call).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    drop((channel, server));
    leaks.finish().await;
}
