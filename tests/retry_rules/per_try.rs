//! The limit on one attempt: whom it ends, and what it does not touch.

use std::time::Duration;

use tonic::Code;
use trunkline::{CallOptions, Connector, Delivery, Error, History, PoolOptions, Retry, Stage};
use trunkline_proto::EchoRequest;
use trunkline_proto::echo_client::EchoClient;

use super::{LIMIT, send};
use crate::client::calls::{ask, unary};
use crate::client::expected::Expected;
use crate::client::pair::{Pair, echo, quick};
use crate::support::calls::request;
use crate::support::frames::code;
use crate::support::leak::LeakCheck;
use crate::support::reaction::Reaction;
use crate::support::server::EchoServer;
use crate::support::wait::{wait_equal, within};

/// Far longer than an answer takes.
const EACH: Duration = Duration::from_millis(300);

fn limited() -> Retry {
    quick().per_try_timeout(EACH)
}

/// Both peers; the first `silent` times that a call is seen it is not answered.
async fn silent(retry: Retry, silent: usize) -> Pair {
    let react = move |nth, request: &_| match nth {
        nth if nth < silent => Reaction::Silence,
        _ => echo(request),
    };
    Pair::start(|it| it.retry(retry), react).await
}

/// Waits until this peer has seen so many streams reset with CANCEL, and has none left.
async fn resets(pair: &Pair, peer: usize, times: u64) {
    let seen = pair.peers[peer].seen();
    wait_equal(LIMIT, (times, 0), || {
        (seen.resets(code::CANCEL), seen.streams())
    })
    .await;
}

#[tokio::test]
async fn an_idempotent_call_goes_on_at_the_next_endpoint() {
    let leaks = LeakCheck::start().await;
    for retry in [
        limited().idempotent(true),
        limited().codes([Code::DeadlineExceeded]),
    ] {
        let pair = silent(retry, 1).await;
        let response = send(&pair.channel, 1).await.unwrap();
        assert_eq!(pair.path(1), [0, 1]);
        let history = response.extensions().get::<History>().unwrap();
        assert_eq!(history.len(), 1);
        let slow = &history[0];
        assert_eq!(slow.endpoint(), Some(&*pair.address(0)));
        assert_eq!(slow.code(), Code::DeadlineExceeded);
        assert_eq!(slow.delivery(), Delivery::MaybeProcessed);
        assert_eq!(slow.stage(), Stage::Response);
        assert!(slow.counted() && slow.elapsed() >= EACH);
        // The connection is not to blame: the stream was cancelled, and the next call goes there.
        resets(&pair, 0, 1).await;
        assert_eq!(pair.peers[0].seen().connections(), 1);
        assert_eq!(pair.channel.stats().retries, 1);
    }
    leaks.finish().await;
}

#[tokio::test]
async fn another_call_fails_and_may_have_been_processed() {
    let leaks = LeakCheck::start().await;
    let pair = silent(limited(), usize::MAX).await;
    let expected = Expected {
        code: Code::DeadlineExceeded,
        delivery: Delivery::MaybeProcessed,
        endpoint: Some(pair.address(0)),
        ..Expected::new(
            "timeout",
            Stage::Response,
            "*: no response within 300ms (retry.per_try_timeout); not retried: it may have been processed, and is not \
             marked idempotent (Retry::idempotent)",
        )
    };
    expected
        .check_calls(&pair.channel, CallOptions::new())
        .await;
    assert_eq!([pair.path(1), pair.path(2)], [[0], [0]]);
    resets(&pair, 0, 2).await;
    drop(pair);
    leaks.finish().await;
}

#[tokio::test]
async fn it_holds_for_each_attempt_anew() {
    let leaks = LeakCheck::start().await;
    let pair = silent(limited().idempotent(true), usize::MAX).await;
    let status = within(LIMIT, "the call", unary(&pair.channel, 1)).await;
    let status = status.unwrap_err();
    let error = Error::from_status(&status).unwrap();
    assert!(error.is_timeout() && error.maybe_processed());
    assert_eq!(
        (error.code(), error.attempts()),
        (Code::DeadlineExceeded, 3)
    );
    assert!(error.history().iter().all(|it| it.elapsed() >= EACH));
    assert_eq!(pair.path(1), [0, 1, 0]);
    resets(&pair, 0, 2).await;
    resets(&pair, 1, 1).await;
    drop(pair);
    leaks.finish().await;
}

/// The call's own deadline ends an attempt that has time left by itself.
#[tokio::test]
async fn the_calls_deadline_may_come_first() {
    let leaks = LeakCheck::start().await;
    let retry = quick()
        .per_try_timeout(Duration::from_secs(20))
        .idempotent(true);
    let pair = silent(retry, usize::MAX).await;
    let options = CallOptions::new().timeout(EACH);
    let status = within(LIMIT, "the call", ask(&pair.channel, request(1), options)).await;
    let status = status.unwrap_err();
    let error = Error::from_status(&status).unwrap();
    assert!(error.is_timeout() && error.maybe_processed());
    assert!(error.to_string().contains("the deadline of"), "{error}");
    assert_eq!((error.attempts(), pair.path(1)), (1, vec![0]));
    resets(&pair, 0, 1).await;
    drop(pair);
    leaks.finish().await;
}

#[tokio::test]
async fn it_is_over_once_headers_came() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let connector = Connector::target(server.uri()).retry(limited().idempotent(true));
    let channel = connector.connect().await.unwrap();
    let slow = EchoRequest {
        repeat: 2,
        delay_ms: 400,
        ..request(1)
    };
    let mut client = EchoClient::new(channel.clone());
    let mut replies = client.server_stream(slow).await.unwrap().into_inner();
    for sequence in 0..2 {
        assert_eq!(replies.message().await.unwrap().unwrap().sequence, sequence);
    }
    assert!(replies.message().await.unwrap().is_none());
    assert_eq!(server.journal().started(), 1);
    assert_eq!(channel.stats().retries, 0);
    drop((client, replies, channel, server));
    leaks.finish().await;
}

/// The wait for a free stream is not the server's time.
#[tokio::test]
async fn it_begins_when_the_attempt_is_sent() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::builder("a").max_concurrent_streams(1).tcp();
    let connector = Connector::target(server.uri())
        .retry_for("trunkline.echo.v1.Echo/Unary", limited())
        .pool(PoolOptions::new().max_connections(1));
    let channel = connector.connect().await.unwrap();
    let mut client = EchoClient::new(channel.clone());
    let slow = EchoRequest {
        delay_ms: 900,
        ..request(1)
    };
    let mut replies = client.server_stream(slow).await.unwrap().into_inner();
    let waiting = {
        let channel = channel.clone();
        tokio::spawn(async move { unary(&channel, 2).await })
    };
    wait_equal(LIMIT, 1, || channel.status().endpoints[0].waiting).await;
    while replies.message().await.unwrap().is_some() {}
    let reply = within(LIMIT, "the call", waiting).await.unwrap();
    assert_eq!(reply.unwrap().id, 2);
    assert_eq!(server.journal().cancelled(), 0);
    drop((client, replies, channel, server));
    leaks.finish().await;
}
