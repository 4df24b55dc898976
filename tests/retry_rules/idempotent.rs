//! Who may say that a call is idempotent, and whose word counts.

use http::{Method, Request};
use tonic::Code;
use tonic::body::Body;
use trunkline::{CallOptions, Connector, Error, Retry};
use trunkline_proto::echo_client::EchoClient;

use super::LIMIT;
use crate::client::calls::{ask, unary};
use crate::client::pair::{Pair, echo, quick, unavailable};
use crate::support::calls::request;
use crate::support::frames::Frame;
use crate::support::leak::LeakCheck;
use crate::support::reaction::{Reaction, RequestInfo};
use crate::support::response::header_block;
use crate::support::wait::within;

const SERVICE: &str = "trunkline.echo.v1.Echo";
const UNARY: &str = "trunkline.echo.v1.Echo/Unary";
const STREAM: &str = "trunkline.echo.v1.Echo/ServerStream";

fn idempotent() -> Retry {
    quick().idempotent(true)
}

/// Both peers; the first one to see a call closes the connection.
async fn breaking(adjust: impl FnOnce(Connector) -> Connector) -> Pair {
    let react = |nth, request: &RequestInfo| match nth {
        0 => Reaction::Close,
        _ if request.message.is_some() => echo(request),
        _ => Reaction::Frames(vec![Frame::headers(
            request.stream,
            header_block(&[(":status", "204")]),
            true,
        )]),
    };
    Pair::start(adjust, react).await
}

/// The peers that see calls of the methods Unary and ServerStream.
async fn paths(adjust: impl Fn(Connector) -> Connector) -> [Vec<usize>; 2] {
    let one = breaking(&adjust).await;
    let _ = within(LIMIT, "the call", unary(&one.channel, 1)).await;
    let other = breaking(&adjust).await;
    let mut client = EchoClient::new(other.channel.clone());
    let _ = within(LIMIT, "the call", client.server_stream(request(1))).await;
    [one, other].map(|pair| pair.path(1))
}

#[tokio::test]
async fn the_methods_word_goes_before_its_services_and_that_before_the_channels() {
    let leaks = LeakCheck::start().await;
    let (once, again) = (vec![0], vec![0, 1]);
    type Adjust = fn(Connector) -> Connector;
    let cases: [(&str, Adjust, [&Vec<usize>; 2]); 10] = [
        ("nobody", |it| it, [&once, &once]),
        ("channel", |it| it.retry(idempotent()), [&again, &again]),
        (
            "service",
            |it| it.retry_for(SERVICE, idempotent()),
            [&again, &again],
        ),
        (
            "another service",
            |it| it.retry_for("trunkline.echo.v1.Ech", idempotent()),
            [&once, &once],
        ),
        (
            "method",
            |it| it.retry_for(UNARY, idempotent()),
            [&again, &once],
        ),
        (
            "the other method",
            |it| it.retry_for(STREAM, idempotent()),
            [&once, &again],
        ),
        (
            "channel, but not the service",
            |it| it.retry(idempotent()).retry_for(SERVICE, quick()),
            [&once, &once],
        ),
        (
            "service, but not the method",
            |it| {
                it.retry_for(UNARY, quick())
                    .retry_for(SERVICE, idempotent())
            },
            [&once, &again],
        ),
        (
            "method, but not its service nor the channel",
            |it| {
                it.retry_for(SERVICE, quick())
                    .retry_for(UNARY, idempotent())
            },
            [&again, &once],
        ),
        (
            "service, by its last policy",
            |it| {
                it.retry_for(SERVICE, quick())
                    .retry_for(SERVICE, idempotent())
            },
            [&again, &again],
        ),
    ];
    for (who, adjust, expected) in cases {
        let seen = paths(adjust).await;
        assert_eq!(seen.each_ref(), expected, "{who}");
    }
    leaks.finish().await;
}

/// Nothing of the channel's policy holds for a method that has its own: not the attempts either.
#[tokio::test]
async fn policies_are_not_combined() {
    let leaks = LeakCheck::start().await;
    let adjust = |it: Connector| {
        it.retry(quick().attempts(5))
            .retry_for(SERVICE, quick().attempts(2))
            .retry_for(UNARY, Retry::none())
    };
    let pair = Pair::start(adjust, |_, _| unavailable()).await;
    unary(&pair.channel, 1).await.unwrap_err();
    let mut client = EchoClient::new(pair.channel.clone());
    client.server_stream(request(2)).await.unwrap_err();
    let other = Request::post("/other.Service/Method")
        .header("content-type", "application/grpc")
        .body(Body::empty());
    let answer = pair.channel.send(other.unwrap()).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "14");
    assert_eq!([1, 2, 0].map(|id| pair.path(id).len()), [1, 2, 5]);
    drop((client, pair));
    leaks.finish().await;
}

#[tokio::test]
async fn a_calls_own_word_counts_first() {
    let leaks = LeakCheck::start().await;
    let policies = [
        quick(),
        idempotent(),
        // The configured code repeats the call, whether it is idempotent or not.
        quick().codes([Code::Unavailable]),
    ];
    let expected = [[1, 1, 2], [2, 1, 2], [2, 2, 2]];
    let words = [
        CallOptions::new(),
        CallOptions::new().idempotent(false),
        CallOptions::new().idempotent(true),
    ];
    for (policy, expected) in policies.into_iter().zip(expected) {
        for by_method in [false, true] {
            for (options, times) in words.into_iter().zip(expected) {
                let pair = match by_method {
                    false => breaking(|it| it.retry(policy.clone())).await,
                    true => breaking(|it| it.retry_for(UNARY, policy.clone())).await,
                };
                let result = ask(&pair.channel, request(1), options).await;
                assert_eq!(pair.path(1).len(), times, "{policy:?}, {options:?}");
                match result {
                    Ok(_) => assert_eq!(times, 2),
                    Err(status) => {
                        let error = Error::from_status(&status).unwrap();
                        assert!(error.is_disconnected() && error.maybe_processed());
                        assert_eq!((times, error.attempts()), (1, 1));
                    }
                }
            }
        }
    }
    leaks.finish().await;
}

/// By default a connection that breaks ends its calls. An answer of UNAVAILABLE is something else, and so is the code
/// once it is configured.
#[tokio::test]
async fn by_default_an_answer_is_repeated_and_a_broken_connection_is_not() {
    let leaks = LeakCheck::start().await;
    for end in [Reaction::Close, Reaction::Abort] {
        let react = move |nth, request: &_| match nth {
            0 => end.clone(),
            1 => unavailable(),
            _ => echo(request),
        };
        let pair = Pair::start(|it| it, react.clone()).await;
        let status = unary(&pair.channel, 1).await.unwrap_err();
        let error = Error::from_status(&status).unwrap();
        assert!(error.is_disconnected() && error.maybe_processed());
        assert_eq!(error.endpoint(), Some(&*pair.address(0)));
        assert_eq!(pair.path(1), [0]);
        assert_eq!(pair.channel.stats().retries, 0);

        let listed = |it: Connector| it.retry(quick().codes([Code::Unavailable]));
        let pair = Pair::start(listed, react).await;
        unary(&pair.channel, 1).await.unwrap();
        // The first peer may be back by then, or not.
        let path = pair.path(1);
        assert_eq!((&path[..2], path.len()), (&[0, 1][..], 3));
        assert_eq!(pair.channel.stats().retries, 2);
    }
    let react = |nth, request: &_| {
        if nth < 2 {
            unavailable()
        } else {
            echo(request)
        }
    };
    let pair = Pair::start(|it| it, react).await;
    unary(&pair.channel, 1).await.unwrap();
    assert_eq!(pair.path(1), [0, 1, 0]);
    drop(pair);
    leaks.finish().await;
}

/// RFC 9110 section 9.2.2. What a gRPC client sends is always POST.
#[tokio::test]
async fn the_http_method_may_say_so() {
    let leaks = LeakCheck::start().await;
    let cases = [
        (Method::GET, 2),
        (Method::HEAD, 2),
        (Method::PUT, 2),
        (Method::DELETE, 2),
        (Method::OPTIONS, 2),
        (Method::TRACE, 2),
        (Method::POST, 1),
        (Method::PATCH, 1),
    ];
    for (method, times) in cases {
        for (word, times) in [(None, times), (Some(false), 1), (Some(true), 2)] {
            let pair = breaking(|it| it).await;
            let options = match word {
                None => CallOptions::new(),
                Some(word) => CallOptions::new().idempotent(word),
            };
            let mut request = Request::new(Body::empty());
            *request.method_mut() = method.clone();
            *request.uri_mut() = "/thing".parse().unwrap();
            request.extensions_mut().insert(options);
            let result = within(LIMIT, "the call", pair.channel.send(request)).await;
            assert_eq!(pair.path(0).len(), times, "{method}, {word:?}: {result:?}");
            assert_eq!(result.is_ok(), times == 2);
        }
    }
    leaks.finish().await;
}
