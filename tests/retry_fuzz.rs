//! Random calls under random policies, against what the rules say of each: how often two peers see a call, what is
//! counted, and how it ends.
//!
//! Seeded by the round's number. `TRUNKLINE_FUZZ_ROUNDS` sets how many rounds are run.

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

use client::calls::raw;
use client::came::{Came, come};
use client::pair::{Pair, echo, quick};
use fastrand::Rng;
use support::frames::{Frame, code};
use support::leak::LeakCheck;
use support::reaction::{Reaction, RequestInfo};
use support::response;
use support::wait::within;
use tokio::task::JoinSet;
use tonic::Code;
use trunkline::{CallOptions, Retry};

const LIMIT: Duration = Duration::from_secs(20);

/// What a peer does about one attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Answer,
    /// A status in place of headers, and perhaps a word on when to retry.
    Fail(Code, Option<&'static str>),
    Refuse,
    /// It was not looked at, says the GOAWAY.
    GoAway,
    Reset(u32),
    Close,
    Abort,
    HeadersThenReset,
}

use Step::{Abort, Answer, Close, Fail, GoAway, HeadersThenReset, Refuse, Reset};

impl Step {
    fn random(random: &mut Rng, codes: &[Code]) -> Self {
        const WORDS: [Option<&str>; 6] = [None, None, None, Some("0"), Some("3"), Some("-1")];
        const RESETS: [u32; 4] = [
            code::CANCEL,
            code::INTERNAL_ERROR,
            code::NO_ERROR,
            code::ENHANCE_YOUR_CALM,
        ];
        match random.u8(0..20) {
            0 => Answer,
            1..=6 => Fail(Code::Unavailable, random.choice(WORDS).unwrap()),
            7..=9 => Fail(
                random.choice(codes).copied().unwrap(),
                random.choice(WORDS).unwrap(),
            ),
            10..=11 => Refuse,
            12..=13 => GoAway,
            14..=15 => Reset(random.choice(RESETS).unwrap()),
            16..=17 => Close,
            18 => Abort,
            _ => HeadersThenReset,
        }
    }

    fn reaction(self, request: &RequestInfo) -> Reaction {
        match self {
            Answer => echo(request),
            Fail(code, word) => {
                let word = word.map(|word| ("grpc-retry-pushback-ms", word));
                Reaction::FailWith(code as i32, word.into_iter().collect())
            }
            Refuse => Reaction::refuse(),
            GoAway => {
                let last = request.stream.saturating_sub(2);
                Reaction::Ignore.after_goaway(last, code::NO_ERROR, "")
            }
            Reset(reason) => Reaction::Reset(reason),
            Close => Reaction::Close,
            Abort => Reaction::Abort,
            HeadersThenReset => Reaction::Frames(vec![
                response::headers(request.stream),
                Frame::rst(request.stream, code::INTERNAL_ERROR),
            ]),
        }
    }

    /// The code that an attempt with this end has.
    fn code(self) -> Code {
        match self {
            Answer => Code::Ok,
            Fail(code, _) => code,
            Refuse | GoAway | Close | Abort => Code::Unavailable,
            Reset(code::CANCEL) => Code::Cancelled,
            Reset(code::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
            Reset(_) | HeadersThenReset => Code::Internal,
        }
    }

    /// Whether the peer proved that it did not process the request.
    fn is_unprocessed(self) -> bool {
        matches!(self, Refuse | GoAway)
    }
}

/// A retry policy, and the words of it that the rules go by.
#[derive(Clone, Debug)]
struct Rules {
    attempts: usize,
    idempotent: bool,
    codes: Option<Vec<Code>>,
    /// The request fits into the replay buffer.
    kept: bool,
}

const CODES: [Code; 7] = [
    Code::Unavailable,
    Code::Aborted,
    Code::Internal,
    Code::Cancelled,
    Code::Unknown,
    Code::ResourceExhausted,
    Code::NotFound,
];

impl Rules {
    fn random(random: &mut Rng) -> Self {
        let mut codes = CODES.to_vec();
        random.shuffle(&mut codes);
        codes.truncate(random.usize(1..CODES.len()));
        Self {
            attempts: random.usize(1..=5),
            idempotent: random.bool(),
            codes: random.bool().then_some(codes),
            kept: random.u8(0..10) > 0,
        }
    }

    fn policy(&self) -> Retry {
        let mut retry = quick()
            .attempts(self.attempts as u32)
            .idempotent(self.idempotent);
        if let Some(codes) = &self.codes {
            retry = retry.codes(codes.clone());
        }
        if !self.kept {
            retry = retry.replay_buffer(0);
        }
        retry
    }

    fn for_call(&self, word: Option<bool>) -> Self {
        Self {
            idempotent: word.unwrap_or(self.idempotent),
            ..self.clone()
        }
    }

    /// Whether one more attempt may follow one that ended so, if there is one left.
    fn may_repeat(&self, step: Step) -> bool {
        let listed = |or: bool| match &self.codes {
            Some(codes) => codes.contains(&step.code()),
            None => or,
        };
        match step {
            Answer | HeadersThenReset => false,
            Fail(_, Some("-1")) => false,
            Fail(code, word) => {
                listed(code == Code::Unavailable)
                    || code == Code::ResourceExhausted && word.is_some()
            }
            Refuse => listed(true),
            Close | Abort | Reset(_) => self.idempotent || listed(false),
            GoAway => true,
        }
    }

    /// How often a call with this script is seen, and how many of those are free.
    fn seen_and_free(&self, script: &[Step]) -> (usize, usize) {
        let mut attempts = 1;
        let mut free = 0;
        let mut refused = false;
        for (nth, &step) in script.iter().enumerate() {
            let is_free = step == GoAway || step == Refuse && !refused;
            let goes_on = match is_free {
                true => self.kept,
                false => self.kept && attempts < self.attempts && self.may_repeat(step),
            };
            if !goes_on {
                return (nth + 1, free);
            }
            refused |= step == Refuse;
            match is_free {
                true => free += 1,
                false => attempts += 1,
            }
        }
        unreachable!("a script ends with an answer");
    }
}

/// What the peers do about one call, in turn.
fn script(seed: u64, id: u64) -> Vec<Step> {
    let mut random = Rng::with_seed(seed << 32 | id);
    let steps = random.usize(0..9);
    let mut script: Vec<_> = (0..steps)
        .map(|_| Step::random(&mut random, &CODES))
        .collect();
    script.push(Answer);
    script
}

/// 60 rounds, unless the environment says otherwise.
fn rounds() -> u64 {
    match std::env::var("TRUNKLINE_FUZZ_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("TRUNKLINE_FUZZ_ROUNDS is a number"),
        Err(_) => 60,
    }
}

fn options(word: Option<bool>) -> CallOptions {
    let options = CallOptions::new();
    word.map_or(options, |word| options.idempotent(word))
}

/// One after the other, so that nothing but its own script happens to a call.
#[tokio::test]
async fn each_call_is_seen_as_often_as_the_rules_say() {
    let leaks = LeakCheck::start().await;
    let (mut free_total, mut retries_total, mut ends) = (0, 0, [0; 3]);
    for round in 0..rounds() {
        let mut random = Rng::with_seed(round);
        let rules = Rules::random(&mut random);
        let react = move |nth: usize, request: &RequestInfo| {
            let script = script(round, request.echo().unwrap().id);
            script.get(nth).unwrap().reaction(request)
        };
        let adjust = |it: trunkline::Connector| it.retry(rules.policy()).wait_for_ready(true);
        let pair = Pair::start(adjust, react).await;
        for id in 1..=25 {
            let word = *random
                .choice(&[None, None, Some(false), Some(true)])
                .unwrap();
            let before = pair.channel.stats();
            let call = come(&pair.channel, raw(id, options(word)));
            let came = within(LIMIT, "a call", call).await;
            let script = script(round, id);
            let case =
                format!("round {round}, call {id}: {rules:?}, {word:?}, {script:?}: {came:?}");

            let (seen, free) = rules.for_call(word).seen_and_free(&script);
            assert_eq!(pair.path(id).len(), seen, "{case}");
            let stats = pair.channel.stats();
            let resends = stats.resends - before.resends;
            let retries = stats.retries - before.retries;
            assert_eq!(
                (resends as usize, retries as usize),
                (free, seen - free - 1),
                "{case}"
            );
            free_total += free;
            retries_total += retries;

            let last = script[seen - 1];
            let history: Vec<_> = match &came {
                Came::Answer(code, history) => {
                    assert!(matches!(last, Answer | Fail(..)), "{case}");
                    assert_eq!((*code, history.len()), (last.code(), seen - 1), "{case}");
                    ends[usize::from(last == Answer)] += 1;
                    history.iter().collect()
                }
                Came::Error(error) => {
                    assert!(!matches!(last, Answer | Fail(..)), "{case}");
                    assert_eq!(
                        (error.code(), error.history().len()),
                        (last.code(), seen),
                        "{case}"
                    );
                    assert_eq!(error.attempts() as usize, seen - free, "{case}");
                    let unprocessed = script[..seen].iter().all(|step| step.is_unprocessed());
                    assert_eq!(error.maybe_processed(), !unprocessed, "{case}");
                    ends[2] += 1;
                    error.history().iter().collect()
                }
            };
            let told: Vec<_> = history.iter().map(|it| it.code()).collect();
            let codes: Vec<_> = script.iter().map(|step| step.code()).collect();
            assert_eq!(told, codes[..told.len()], "{case}");
            let uncounted = history.iter().filter(|it| !it.counted()).count();
            assert_eq!(uncounted, free, "{case}");
        }
    }
    println!("{free_total} resends, {retries_total} retries, ends {ends:?}");
    assert!(free_total > 0 && retries_total > 0 && !ends.contains(&0));
    leaks.finish().await;
}

/// Many at once, so that one call's end is that of others on its connection. By default no call is seen again unless each
/// time before it was refused or answered with UNAVAILABLE; an idempotent one is seen no more often than it has attempts
/// and the one free resend.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_been_processed_is_not_repeated_among_many_calls() {
    let leaks = LeakCheck::start().await;
    let (mut again, mut doubtful) = (0, 0);
    for round in 0..rounds() / 3 {
        let step = move |nth: usize, id: u64| match script(!round, id).get(nth) {
            // With a GOAWAY a peer gives leave to calls that it answered otherwise.
            Some(&GoAway) | None => Answer,
            Some(&step) => step,
        };
        let react = move |nth: usize, request: &RequestInfo| {
            let id = request.echo().unwrap().id;
            let pause = Duration::from_micros(id % 7 * 300);
            step(nth, id).reaction(request).after(pause)
        };
        let adjust = |it: trunkline::Connector| it.wait_for_ready(true);
        let pair = Pair::start(adjust, react).await;
        let mut calls = JoinSet::new();
        for id in 1..=40 {
            let channel = pair.channel.clone();
            let idempotent = id % 4 == 0;
            calls.spawn(async move {
                let request = raw(id, options(Some(idempotent)));
                (id, idempotent, come(&channel, request).await)
            });
        }
        for (id, idempotent, came) in within(LIMIT, "the calls", calls.join_all()).await {
            let seen = pair.path(id).len();
            let steps: Vec<_> = (0..seen).map(|nth| step(nth, id)).collect();
            let case = format!("round {round}, call {id}, {idempotent}: {steps:?}: {came:?}");
            let refusals = steps.iter().filter(|step| **step == Refuse).count();
            assert!(seen <= 3 + refusals.min(1), "{case}");
            let before = &steps[..seen.saturating_sub(1)];
            let gave_leave = |step: &Step| {
                matches!(step, Refuse | Fail(Code::Unavailable, _))
                    || matches!(step, Fail(Code::ResourceExhausted, Some(_)))
            };
            assert!(idempotent || before.iter().all(gave_leave), "{case}");
            assert!(
                !before.contains(&HeadersThenReset) && !before.contains(&Answer) || idempotent,
                "{case}"
            );
            if let Came::Error(error) = &came {
                let unprocessed = steps.iter().all(|step| step.is_unprocessed());
                assert!(error.maybe_processed() || unprocessed, "{case}");
                doubtful += u64::from(error.maybe_processed());
            }
            again += u64::from(seen > 1);
        }
    }
    println!("{again} calls seen again, {doubtful} in doubt");
    assert!(again > 0 && doubtful > 0);
    leaks.finish().await;
}
