//! `grpc-retry-pushback-ms`: a server says when to retry, or that it must not be.

use std::time::Duration;

use tonic::Code;
use trunkline::{Backoff, CallOptions, Connector, Error, Retry};
use trunkline_proto::EchoRequest;

use super::{LIMIT, send};
use crate::client::calls::{ask, unary};
use crate::client::pair::{Pair, echo, quick, unavailable};
use crate::support::calls::request;
use crate::support::frames::Frame;
use crate::support::leak::LeakCheck;
use crate::support::reaction::{Reaction, RequestInfo};
use crate::support::response;
use crate::support::server::EchoServer;
use crate::support::wait::within;

const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// No jitter, so that delays are as long as they say.
fn delays(initial: Duration, factor: f64) -> Retry {
    let backoff = Backoff::calls()
        .initial(initial)
        .multiplier(factor)
        .max(Duration::from_secs(3600))
        .jitter(0.0);
    Retry::exponential().attempts(5).backoff(backoff)
}

/// This status with these values of the header.
fn pushed_back(code: Code, values: &[&'static str]) -> Reaction {
    let fields = values.iter().map(|&value| (PUSHBACK, value)).collect();
    Reaction::FailWith(code as i32, fields)
}

/// The times between the requests that the peers saw for a call.
fn gaps(pair: &Pair, id: u64) -> Vec<Duration> {
    let seen = pair.seen(id);
    seen.windows(2).map(|two| two[1].at - two[0].at).collect()
}

/// Instead of the backoff's delay, be that longer or shorter.
#[tokio::test]
async fn the_servers_delay_is_obeyed() {
    let leaks = LeakCheck::start().await;
    for backoff in [Duration::from_millis(1), Duration::from_secs(600)] {
        let react = |nth, request: &_| match nth {
            0 => pushed_back(Code::Unavailable, &["300"]),
            1 => pushed_back(Code::Unavailable, &["0"]),
            _ => echo(request),
        };
        let pair = Pair::start(|it| it.retry(delays(backoff, 1.0)).no_timeout(), react).await;
        within(LIMIT, "the call", unary(&pair.channel, 1))
            .await
            .unwrap();
        let gaps = gaps(&pair, 1);
        assert_eq!(gaps.len(), 2);
        let asked = Duration::from_millis(300);
        assert!(gaps[0] >= asked && gaps[0] < asked * 5, "{gaps:?}");
        assert_eq!(pair.path(1), [0, 1, 0]);
        assert_eq!(pair.channel.stats().retries, 2);
    }
    leaks.finish().await;
}

#[tokio::test]
async fn the_backoff_starts_over_after_it() {
    let leaks = LeakCheck::start().await;
    let first = Duration::from_millis(50);
    let react = |nth, request: &_| match nth {
        1 => pushed_back(Code::Unavailable, &["0"]),
        0 | 2 => unavailable(),
        _ => echo(request),
    };
    // The second delay of the schedule would be 50 s.
    let retry = delays(first, 1000.0);
    let pair = Pair::start(|it| it.retry(retry).no_timeout(), react).await;
    within(LIMIT, "the call", unary(&pair.channel, 1))
        .await
        .unwrap();
    let gaps = gaps(&pair, 1);
    assert_eq!(gaps.len(), 3);
    assert!(gaps[0] >= first && gaps[2] >= first, "{gaps:?}");
    drop(pair);
    leaks.finish().await;
}

#[tokio::test]
async fn anything_but_one_number_of_milliseconds_forbids_to_retry() {
    let leaks = LeakCheck::start().await;
    let cases: [(&[&'static str], usize); 12] = [
        (&[], 2),
        (&["0"], 2),
        (&["1"], 2),
        (&["007"], 2),
        (&["-1"], 1),
        (&["x"], 1),
        (&[""], 1),
        (&["1.5"], 1),
        (&["+1"], 1),
        (&["2147483648"], 1),
        (&["1099511627776"], 1),
        (&["1", "1"], 1),
    ];
    let adjusts: [fn(Connector) -> Connector; 3] = [
        |it| it.retry(quick()),
        |it| it.retry(quick().idempotent(true)),
        |it| it.retry(quick().codes([Code::Unavailable])),
    ];
    for (values, times) in cases {
        for adjust in adjusts {
            let react = move |nth, request: &_| match nth {
                0 => pushed_back(Code::Unavailable, values),
                _ => echo(request),
            };
            let pair = Pair::start(adjust, react).await;
            let response = send(&pair.channel, 1).await.unwrap();
            let status = response.headers().get("grpc-status");
            let failed = status.is_some_and(|status| status == "14");
            assert_eq!(pair.path(1).len(), times, "{values:?}");
            assert_eq!(failed, times == 1, "{values:?}");
        }
    }
    leaks.finish().await;
}

/// Without a word of the server's it may be a limit that a repetition runs into again.
#[tokio::test]
async fn resource_exhausted_is_retried_only_with_it() {
    let leaks = LeakCheck::start().await;
    let exhausted = Code::ResourceExhausted;
    let cases: [(Code, &[&'static str], usize); 7] = [
        (exhausted, &[], 1),
        (exhausted, &["0"], 2),
        (exhausted, &["-1"], 1),
        (Code::Aborted, &["0"], 1),
        (Code::Internal, &["0"], 1),
        (Code::DeadlineExceeded, &["0"], 1),
        (Code::Unknown, &["0"], 1),
    ];
    for (code, values, times) in cases {
        for idempotent in [false, true] {
            let react = move |nth, request: &_| match nth {
                0 => pushed_back(code, values),
                _ => echo(request),
            };
            let retry = quick().idempotent(idempotent);
            let pair = Pair::start(|it| it.retry(retry), react).await;
            let result = unary(&pair.channel, 1).await;
            assert_eq!(pair.path(1).len(), times, "{code:?}, {values:?}");
            match result {
                Ok(_) => assert_eq!(times, 2),
                // As the server said it.
                Err(status) => assert_eq!((status.code(), times), (code, 1)),
            }
        }
    }
    leaks.finish().await;
}

/// A status in trailers comes after the headers that committed the call.
#[tokio::test]
async fn it_changes_nothing_once_headers_came() {
    let leaks = LeakCheck::start().await;
    let react = |_, request: &RequestInfo| {
        let fields = [("grpc-status", "14"), (PUSHBACK, "0")];
        let block = response::header_block(&fields);
        let stream = request.stream;
        let trailers = Frame::headers(stream, block, true);
        Reaction::Frames(vec![response::headers(stream), trailers])
    };
    let pair = Pair::start(|it| it.retry(quick().idempotent(true)), react).await;
    let status = unary(&pair.channel, 1).await.unwrap_err();
    assert_eq!((status.code(), pair.path(1)), (Code::Unavailable, vec![0]));
    drop(pair);
    leaks.finish().await;
}

/// The server's own status comes back, and no deadline is waited for.
#[tokio::test]
async fn a_delay_beyond_the_deadline_ends_the_call_at_once() {
    let leaks = LeakCheck::start().await;
    for value in ["60000", "2147483647"] {
        let react = move |_, _: &_| pushed_back(Code::Unavailable, &[value]);
        let pair = Pair::start(|it| it.timeout(Duration::from_secs(60)), react).await;
        let status = within(LIMIT, "the call", unary(&pair.channel, 1)).await;
        let status = status.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(Error::from_status(&status).is_none(), "{status:?}");
        assert_eq!(pair.path(1), [0]);
    }
    leaks.finish().await;
}

#[tokio::test]
async fn a_server_made_with_tonic_is_understood() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let connector = Connector::target(server.uri()).retry(delays(LIMIT * 10, 1.0));
    let channel = connector.connect().await.unwrap();
    let cases = [
        (Some("1"), 5),
        (Some("-1"), 1),
        (Some("soon"), 1),
        (None, 1),
    ];
    for (id, (value, times)) in (1..).zip(cases) {
        server.behaviour().set_pushback(value);
        let failing = EchoRequest {
            fail_code: Code::ResourceExhausted as u32,
            ..request(id)
        };
        let asked = ask(&channel, failing, CallOptions::new());
        let status = within(LIMIT, "the call", asked).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(server.journal().handled()[&id], times, "{value:?}");
    }
    drop((channel, server));
    leaks.finish().await;
}
