//! The table of gRPC's retry rules: every status code and every transport event, for calls that are idempotent, that are
//! not, and whose code is configured, at the first, the second and the last attempt.

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

#[path = "retry_table/rows.rs"]
mod rows;

use std::time::Duration;

use client::calls::raw;
use client::came::{Came, come};
use client::pair::{Pair, echo, quick, unavailable};
use rows::Then::{End, Resent, Retried};
use rows::{For, Row, table};
use support::leak::LeakCheck;
use support::reaction::Reaction;
use support::wait::within;
use tonic::Code;
use trunkline::{Attempt, CallOptions, Channel, Delivery, Retry, Stage};

use Delivery::{Answered, MaybeProcessed};

const LIMIT: Duration = Duration::from_secs(10);

/// Far longer than an answer takes.
const EACH: Duration = Duration::from_millis(300);

async fn call(channel: &Channel) -> Came {
    let request = raw(1, CallOptions::new());
    within(LIMIT, "the call", come(channel, request)).await
}

/// What a call's history and its error tell of an attempt: the peer, what happened, whether it counts.
type Told = (String, Stage, Delivery, Code, bool);

fn told(history: &[Attempt]) -> Vec<Told> {
    let told = |it: &Attempt| {
        let endpoint = it.endpoint().unwrap().to_owned();
        (endpoint, it.stage(), it.delivery(), it.code(), it.counted())
    };
    history.iter().map(told).collect()
}

/// The attempts before number `position` are answered with UNAVAILABLE, that one ends as the row says, and what comes
/// after it is answered well.
async fn check(row: Row, who: For, position: usize) {
    let then = match row.then[who as usize] {
        Retried if position == 3 => End,
        then => then,
    };
    let case = format!("{} at attempt {position}, for {who:?}: {then:?}", row.event);
    let Row {
        react,
        stage,
        delivery,
        code,
        ..
    } = row;
    let mut retry = quick();
    match who {
        For::Nobody => {}
        For::Idempotence => retry = retry.idempotent(true),
        For::Code => retry = retry.codes([code, Code::Unavailable]),
    }
    if code == Code::DeadlineExceeded && delivery == MaybeProcessed {
        retry = retry.per_try_timeout(EACH);
    }
    let rule = move |nth: usize, request: &_| match nth + 1 {
        nth if nth < position => unavailable(),
        nth if nth == position => react(request),
        _ => echo(request),
    };
    let pair = Pair::start(|it| it.retry(retry), rule).await;
    let came = call(&pair.channel).await;

    // Where.
    let path = pair.path(1);
    let turns = [0, 1, 0, 1];
    let times = position + usize::from(then != End);
    assert_eq!(path.len(), times, "{case}: {came:?}");
    // After all were tried, a resend may go to any.
    let sure = times.min(3);
    assert_eq!(path[..sure], turns[..sure], "{case}");

    // What is told about it.
    let attempt = |peer: usize, delivery, code, stage, counted| {
        (pair.address(peer), stage, delivery, code, counted)
    };
    let before = (1..position).map(|nth| {
        attempt(
            turns[nth - 1],
            Answered,
            Code::Unavailable,
            Stage::Response,
            true,
        )
    });
    let mut history: Vec<_> = before.collect();
    let this = attempt(turns[position - 1], delivery, code, stage, then != Resent);
    match (&came, then) {
        (Came::Answer(Code::Ok, told_of), Resent | Retried) => {
            history.push(this);
            assert_eq!(told(told_of), history, "{case}");
        }
        (Came::Answer(answered, told_of), End) if delivery == Answered => {
            assert_eq!(*answered, code, "{case}");
            assert_eq!(told(told_of), history, "{case}");
        }
        (Came::Error(error), End) if delivery != Answered => {
            history.push(this);
            assert_eq!(told(error.history()), history, "{case}");
            assert_eq!(error.attempts() as usize, position, "{case}");
            assert_eq!((error.code(), error.delivery()), (code, delivery), "{case}");
            assert!(error.maybe_processed(), "{case}");
        }
        _ => panic!("{case}: {came:?}"),
    }

    // What is counted.
    let stats = pair.channel.stats();
    let retries = position - 1 + usize::from(then == Retried);
    assert_eq!(stats.retries as usize, retries, "{case}");
    assert_eq!(stats.resends, u64::from(then == Resent), "{case}");
    assert_eq!(
        stats.failed,
        u64::from(matches!(came, Came::Error(_))),
        "{case}"
    );
}

#[tokio::test]
async fn every_way_for_an_attempt_to_end() {
    let leaks = LeakCheck::start().await;
    for nth in 0..table().len() {
        for who in [For::Nobody, For::Idempotence, For::Code] {
            for position in 1..=3 {
                let row = table().swap_remove(nth);
                // That success is not to be retried is refused as a policy.
                if who != For::Code || row.code != Code::Ok {
                    check(row, who, position).await;
                }
            }
        }
    }
    leaks.finish().await;
}

/// A second refusal is as good as an answer of UNAVAILABLE, whoever says it.
#[tokio::test]
async fn only_the_first_refusal_is_free() {
    let leaks = LeakCheck::start().await;
    let refusing = |times| {
        move |nth, request: &_| match nth {
            nth if nth < times => Reaction::refuse(),
            _ => echo(request),
        }
    };
    let only_aborted = quick().codes([Code::Aborted]);
    // The policy, the refusals; the requests seen, retries and resends, and whether it comes to an answer.
    let cases = [
        (quick(), 1, (2, 0, 1), true),
        (quick(), 2, (3, 1, 1), true),
        (quick(), 3, (4, 2, 1), true),
        (quick(), 4, (4, 2, 1), false),
        (quick().idempotent(true), 4, (4, 2, 1), false),
        (only_aborted.clone(), 1, (2, 0, 1), true),
        (only_aborted, 2, (2, 0, 1), false),
        (Retry::none(), 1, (2, 0, 1), true),
        (Retry::none(), 2, (2, 0, 1), false),
    ];
    for (retry, refusals, expected, well) in cases {
        let pair = Pair::start(|it| it.retry(retry.clone()), refusing(refusals)).await;
        let came = call(&pair.channel).await;
        let stats = pair.channel.stats();
        let counted = (pair.path(1).len(), stats.retries, stats.resends);
        assert_eq!(counted, expected, "{refusals} under {retry:?}: {came:?}");
        let history: Vec<_> = match &came {
            Came::Answer(code, history) => {
                assert_eq!((*code, well), (Code::Ok, true));
                history.iter().map(|it| it.counted()).collect()
            }
            Came::Error(error) => {
                assert!(error.is_refused() && !error.maybe_processed() && !well);
                error.history().iter().map(|it| it.counted()).collect()
            }
        };
        let counted: Vec<_> = (0..refusals).take(expected.0).map(|nth| nth > 0).collect();
        assert_eq!(history, counted);
    }
    leaks.finish().await;
}

/// An endpoint that can't be connected to is not even picked: no attempt is made, and none is told of.
#[tokio::test]
async fn an_endpoint_that_refuses_to_connect_is_passed_over() {
    let leaks = LeakCheck::start().await;
    for idempotent in [false, true] {
        for dead in [0, 1] {
            let rule = move |nth: usize, request: &_| match nth {
                0 if dead == 1 => unavailable(),
                _ => echo(request),
            };
            let retry = quick().idempotent(idempotent);
            let mut pair = Pair::start(|it| it.retry(retry), rule).await;
            pair.peers[dead].kill();
            pair.connected_to(1).await;
            let came = call(&pair.channel).await;
            let Came::Answer(Code::Ok, history) = came else {
                panic!("{came:?}");
            };
            // The dead one would have been the first, or the one to go to after the first.
            let expected: &[usize] = if dead == 0 { &[1] } else { &[0, 0] };
            assert_eq!(pair.path(1), expected);
            assert_eq!(history.len(), dead);
            let stats = pair.channel.stats();
            assert_eq!((stats.retries as usize, stats.resends), (dead, 0));
        }
    }
    leaks.finish().await;
}
