//! What became of each attempt, as callers see it.

use std::time::Duration;

use http_body_util::BodyExt;
use tonic::Code;
use trunkline::{
    Attempt, Backoff, CallOptions, Connector, Delivery, Error, History, PoolOptions, Retry, Stage,
    State,
};
use trunkline_proto::echo_client::EchoClient;

use super::{LIMIT, send};
use crate::client::calls::{ask, unary};
use crate::client::pair::{Pair, echo, quick, unavailable};
use crate::support::calls::request;
use crate::support::frames::{Frame, code};
use crate::support::leak::LeakCheck;
use crate::support::reaction::{Reaction, RequestInfo};
use crate::support::response;
use crate::support::wait::{wait_until, within};

use Delivery::{Answered, MaybeProcessed, NotSent, Refused};

/// All that an attempt tells, but the time: the peer, what happened, whether it counts.
type Told = (Option<usize>, Stage, Delivery, Code, bool);

fn told(pair: &Pair, history: &[Attempt]) -> Vec<Told> {
    let peer = |it: &Attempt| {
        let endpoint = it.endpoint()?;
        Some(
            (0..2)
                .position(|peer| pair.address(peer) == endpoint)
                .unwrap(),
        )
    };
    let told = |it: &Attempt| (peer(it), it.stage(), it.delivery(), it.code(), it.counted());
    history.iter().map(told).collect()
}

/// The same attempt, which failed after it was sent.
const fn sent(peer: usize, delivery: Delivery, code: Code, counted: bool) -> Told {
    (Some(peer), Stage::Response, delivery, code, counted)
}

/// Does not look at the request.
fn goaway(request: &RequestInfo) -> Reaction {
    let last = request.stream.saturating_sub(2);
    Reaction::Ignore.after_goaway(last, code::NO_ERROR, "")
}

/// Each kind of failure once, then as told.
fn each_kind(nth: usize, request: &RequestInfo) -> Option<Reaction> {
    match nth {
        0 => Some(unavailable()),
        1 => Some(Reaction::refuse()),
        2 => Some(goaway(request)),
        3 => Some(Reaction::Close),
        _ => None,
    }
}

fn eager() -> Retry {
    quick().attempts(5).idempotent(true)
}

#[tokio::test]
async fn a_first_attempt_that_succeeds_has_none() {
    let leaks = LeakCheck::start().await;
    let pair = Pair::start(|it| it, |_, request: &_| echo(request)).await;
    let raw = send(&pair.channel, 1).await.unwrap();
    assert!(raw.extensions().get::<History>().is_none());
    let mut client = EchoClient::new(pair.channel.clone());
    let response = client.unary(request(2)).await.unwrap();
    assert!(response.extensions().get::<History>().is_none());
    drop((client, raw, pair));
    leaks.finish().await;
}

/// By a raw request, by a generated client, and by a stream of one.
#[tokio::test]
async fn a_response_tells_of_the_attempts_that_failed_before() {
    let leaks = LeakCheck::start().await;
    let react = |nth, request: &_| each_kind(nth, request).unwrap_or_else(|| echo(request));
    for way in 0..3 {
        let pair = Pair::start(|it| it.retry(eager()), react).await;
        let mut client = EchoClient::new(pair.channel.clone());
        let extensions = match way {
            0 => send(&pair.channel, 1).await.unwrap().extensions().clone(),
            1 => client.unary(request(1)).await.unwrap().extensions().clone(),
            _ => {
                let response = client.server_stream(request(1)).await.unwrap();
                response.extensions().clone()
            }
        };
        let history = extensions.get::<History>().unwrap();
        let path = pair.path(1);
        let expected = [
            sent(path[0], Answered, Code::Unavailable, true),
            sent(path[1], Refused, Code::Unavailable, false),
            sent(path[2], NotSent, Code::Unavailable, false),
            sent(path[3], MaybeProcessed, Code::Unavailable, true),
        ];
        assert_eq!(told(&pair, history), expected);
        assert_eq!((path[..2].to_vec(), path.len()), (vec![0, 1], 5));
        let stats = pair.channel.stats();
        assert_eq!((stats.retries, stats.resends), (2, 2));
    }
    leaks.finish().await;
}

#[tokio::test]
async fn an_error_tells_of_all_attempts_its_own_included() {
    let leaks = LeakCheck::start().await;
    let react = |nth, request: &_| {
        each_kind(nth, request).unwrap_or(Reaction::Reset(code::ENHANCE_YOUR_CALM))
    };
    let pair = Pair::start(|it| it.retry(eager().attempts(3)), react).await;
    let status = unary(&pair.channel, 1).await.unwrap_err();
    let error = Error::from_status(&status).unwrap();
    let path = pair.path(1);
    let expected = [
        sent(path[0], Answered, Code::Unavailable, true),
        sent(path[1], Refused, Code::Unavailable, false),
        sent(path[2], NotSent, Code::Unavailable, false),
        sent(path[3], MaybeProcessed, Code::Unavailable, true),
        sent(path[4], MaybeProcessed, Code::ResourceExhausted, true),
    ];
    assert_eq!(told(&pair, error.history()), expected);
    assert_eq!((error.attempts(), path.len()), (3, 5));
    drop((status, pair));
    leaks.finish().await;
}

/// The caller has the response already, without the last attempt.
#[tokio::test]
async fn an_error_of_a_body_tells_of_all_attempts() {
    let leaks = LeakCheck::start().await;
    let react = |nth, request: &RequestInfo| match nth {
        0 => unavailable(),
        _ => Reaction::Frames(vec![
            response::headers(request.stream),
            Frame::rst(request.stream, code::CANCEL),
        ]),
    };
    let pair = Pair::start(|it| it, react).await;
    let first = sent(0, Answered, Code::Unavailable, true);
    let last = (Some(1), Stage::Body, MaybeProcessed, Code::Cancelled, true);

    let response = send(&pair.channel, 1).await.unwrap();
    let history = response.extensions().get::<History>().unwrap();
    assert_eq!(told(&pair, history), [first]);
    let error = response.into_body().collect().await.unwrap_err();
    assert_eq!(told(&pair, error.history()), [first, last]);
    assert_eq!(error.attempts(), 2);

    let status = unary(&pair.channel, 2).await.unwrap_err();
    let error = Error::from_status(&status).unwrap();
    assert_eq!(told(&pair, error.history()), [first, last]);

    let mut client = EchoClient::new(pair.channel.clone());
    let mut replies = client.server_stream(request(3)).await.unwrap().into_inner();
    let status = replies.message().await.unwrap_err();
    let error = Error::from_status(&status).unwrap();
    assert_eq!(told(&pair, error.history()), [first, last]);
    assert_eq!([1, 2, 3].map(|id| pair.path(id)), [[0, 1], [0, 1], [0, 1]]);
    drop((client, replies, pair));
    leaks.finish().await;
}

/// An answer with an error status is a response, and tells what came before it.
#[tokio::test]
async fn an_answer_with_an_error_tells_of_the_attempts_before() {
    let leaks = LeakCheck::start().await;
    let pair = Pair::start(|it| it, |_, _: &_| unavailable()).await;
    let response = send(&pair.channel, 1).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "14");
    let history = response.extensions().get::<History>().unwrap();
    let expected = [0, 1].map(|peer| sent(peer, Answered, Code::Unavailable, true));
    assert_eq!(told(&pair, history), expected);
    // Of these, tonic's client hands out the status alone.
    let status = unary(&pair.channel, 2).await.unwrap_err();
    assert!(Error::from_status(&status).is_none());
    drop(pair);
    leaks.finish().await;
}

#[tokio::test]
async fn an_attempt_without_an_endpoint_names_none() {
    let leaks = LeakCheck::start().await;
    let long = Duration::from_secs(60);
    let pool = PoolOptions::new().dial_backoff(Backoff::dialling().initial(long).max(long));
    let adjust = |it: Connector| it.pool(pool);
    let mut pair = Pair::start(adjust, |_, request: &_| echo(request)).await;
    pair.peers[0].kill();
    pair.peers[1].kill();
    let failed = || pair.channel.status().state == State::TransientFailure;
    wait_until(LIMIT, failed).await;
    let error = send(&pair.channel, 1).await.unwrap_err();
    assert!(error.is_no_endpoint());
    let nowhere = (None, Stage::Pick, NotSent, Code::Unavailable, true);
    assert_eq!(told(&pair, error.history()), [nowhere; 3]);
    assert!(!error.maybe_processed());
    drop(pair);
    leaks.finish().await;
}

/// From its beginning to its end; the wait for the next one is none of either's.
#[tokio::test]
async fn attempts_tell_how_long_they_took() {
    let leaks = LeakCheck::start().await;
    let slow = Duration::from_millis(200);
    let wait = Duration::from_secs(2);
    let react = move |nth, _: &_| match nth {
        0 => unavailable().after(slow),
        _ => Reaction::Close,
    };
    let backoff = Backoff::calls().initial(wait).max(wait).jitter(0.0);
    let retry = Retry::exponential().backoff(backoff);
    let pair = Pair::start(|it| it.retry(retry), react).await;
    let error = send(&pair.channel, 1).await.unwrap_err();
    let took: Vec<_> = error.history().iter().map(Attempt::elapsed).collect();
    assert_eq!(took.len(), 2);
    assert!(
        took[0] >= slow && took.iter().all(|&it| it < wait),
        "{took:?}"
    );
    drop(pair);
    leaks.finish().await;
}

/// A deadline that passes during an attempt ends that attempt; between two, it ends none.
#[tokio::test]
async fn the_deadline_ends_the_attempt_that_it_interrupts() {
    let leaks = LeakCheck::start().await;
    let options = CallOptions::new().timeout(Duration::from_millis(300));
    let react = |nth, _: &_| match nth {
        0 => unavailable(),
        _ => Reaction::Silence,
    };
    let pair = Pair::start(|it| it, react).await;
    let asked = ask(&pair.channel, request(1), options);
    let status = within(LIMIT, "the call", asked).await.unwrap_err();
    let error = Error::from_status(&status).unwrap();
    let expected = [
        sent(0, Answered, Code::Unavailable, true),
        sent(1, MaybeProcessed, Code::DeadlineExceeded, true),
    ];
    assert_eq!(told(&pair, error.history()), expected);
    assert_eq!((error.attempts(), pair.path(1)), (2, vec![0, 1]));
    drop(pair);
    leaks.finish().await;
}
