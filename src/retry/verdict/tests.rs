mod lateness;

use super::super::BudgetLimits;
use super::*;

use Delivery::{Answered, MaybeProcessed, NotSent, Refused};

/// A verdict without what can't be compared.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Short {
    Resend,
    Retry(u64),
    No(GiveUp),
}

const RESEND: [Short; 3] = [Short::Resend; 3];
const RETRY: [Short; 3] = [
    Short::Retry(50),
    Short::Retry(100),
    Short::No(GiveUp::AttemptsUsed),
];

/// The same reason while attempts are left.
const fn never(reason: GiveUp) -> [Short; 3] {
    [
        Short::No(reason),
        Short::No(reason),
        Short::No(GiveUp::AttemptsUsed),
    ]
}

const CODE: [Short; 3] = never(GiveUp::NotRetryable);
const DOUBT: [Short; 3] = never(GiveUp::NotIdempotent);

fn budget(retries_per_second: u32) -> Arc<Budget> {
    let limits = BudgetLimits::default()
        .ratio(0.0)
        .min_per_second(retries_per_second);
    Arc::new(Budget::new(limits))
}

fn decide(retry: &Retry, facts: &AttemptFacts) -> Short {
    match retry.decide(facts, &budget(1), Duration::ZERO, 0.5) {
        Verdict::ResendNow => Short::Resend,
        Verdict::RetryAfter { delay, .. } => Short::Retry(delay.as_millis() as u64),
        Verdict::GiveUp(reason) => Short::No(reason),
    }
}

fn failed(delivery: Delivery, code: Code) -> AttemptFacts {
    AttemptFacts {
        outcome: Outcome {
            delivery,
            code,
            answered: delivery == Answered,
            pushback: None,
        },
        idempotent: false,
        attempts_made: 1,
        attempts_since_pushback: 1,
        refused_before: false,
        committed: false,
        remaining: None,
        next_takes: None,
    }
}

/// An answer with that HTTP status and no `grpc-status`.
fn of_proxy(status: u16) -> AttemptFacts {
    let status = http::StatusCode::from_u16(status).unwrap();
    AttemptFacts {
        outcome: Outcome::of_go_between(status, &http::HeaderMap::new()).unwrap(),
        ..failed(Answered, Code::Ok)
    }
}

fn at_attempt(number: u32, facts: AttemptFacts) -> AttemptFacts {
    AttemptFacts {
        attempts_made: number,
        attempts_since_pushback: number,
        ..facts
    }
}

/// What attempts 1, 2 and 3 lead to when each fails like this.
fn three(retry: &Retry, facts: AttemptFacts) -> [Short; 3] {
    [1, 2, 3].map(|number| decide(retry, &at_attempt(number, facts)))
}

fn pushed_back(pushback: Pushback, facts: AttemptFacts) -> AttemptFacts {
    let outcome = Outcome {
        pushback: Some(pushback),
        ..facts.outcome
    };
    AttemptFacts { outcome, ..facts }
}

/// One way for an attempt to fail, and what follows under the default policy.
struct Row {
    event: &'static str,
    facts: AttemptFacts,
    plain: [Short; 3],
    idempotent: [Short; 3],
}

const fn row(
    event: &'static str,
    facts: AttemptFacts,
    plain: [Short; 3],
    idempotent: [Short; 3],
) -> Row {
    Row {
        event,
        facts,
        plain,
        idempotent,
    }
}

/// The table of gRPC's retry rules: what happens at attempts 1, 2 and 3 to calls that are not marked idempotent, and to
/// those that are.
#[test]
fn every_transport_event_under_the_default_policy() {
    let again = AttemptFacts {
        refused_before: true,
        ..failed(Refused, Code::Unavailable)
    };
    let doubt = |code| failed(MaybeProcessed, code);
    let table = [
        row(
            "dial refused, request never written, GOAWAY below the stream's id",
            failed(NotSent, Code::Unavailable),
            RESEND,
            RESEND,
        ),
        row(
            "the same after a refusal",
            AttemptFacts {
                refused_before: true,
                ..failed(NotSent, Code::Unavailable)
            },
            RESEND,
            RESEND,
        ),
        row(
            "REFUSED_STREAM",
            failed(Refused, Code::Unavailable),
            RESEND,
            RESEND,
        ),
        row("REFUSED_STREAM again", again, RETRY, RETRY),
        row("connection lost", doubt(Code::Unavailable), DOUBT, RETRY),
        row(
            "reset with INTERNAL_ERROR, PROTOCOL_ERROR, ...",
            doubt(Code::Internal),
            DOUBT,
            RETRY,
        ),
        row("reset with CANCEL", doubt(Code::Cancelled), DOUBT, RETRY),
        row(
            "reset with ENHANCE_YOUR_CALM",
            doubt(Code::ResourceExhausted),
            DOUBT,
            RETRY,
        ),
        row(
            "reset with INADEQUATE_SECURITY",
            doubt(Code::PermissionDenied),
            DOUBT,
            RETRY,
        ),
        row(
            "the limit of one attempt passed",
            doubt(Code::DeadlineExceeded),
            DOUBT,
            RETRY,
        ),
        row("HTTP 429 of a proxy", of_proxy(429), RETRY, RETRY),
        row("HTTP 503 of a proxy", of_proxy(503), RETRY, RETRY),
        row("HTTP 502 of a proxy", of_proxy(502), DOUBT, RETRY),
        row("HTTP 504 of a proxy", of_proxy(504), DOUBT, RETRY),
        row("HTTP 404 of a proxy", of_proxy(404), CODE, CODE),
        row("HTTP 500 of a proxy", of_proxy(500), CODE, CODE),
    ];
    for row in table {
        check(&row);
    }
}

#[test]
fn every_status_code_under_the_default_policy() {
    for code in (0..17).map(Code::from_i32) {
        let answered = failed(Answered, code);
        let expected = if code == Code::Unavailable {
            RETRY
        } else {
            CODE
        };
        check(&row("answer", answered, expected, expected));

        let later = pushed_back(Pushback::After(Duration::from_millis(300)), answered);
        let expected = match code {
            Code::Unavailable | Code::ResourceExhausted => [
                Short::Retry(300),
                Short::Retry(300),
                Short::No(GiveUp::AttemptsUsed),
            ],
            _ => CODE,
        };
        check(&row(
            "answer with a time to retry",
            later,
            expected,
            expected,
        ));

        let never_again = pushed_back(Pushback::Never, answered);
        let expected = match code {
            Code::Unavailable | Code::ResourceExhausted => never(GiveUp::PushedBack),
            _ => CODE,
        };
        check(&row(
            "answer that forbids to retry",
            never_again,
            expected,
            expected,
        ));
    }
}

fn check(row: &Row) {
    for (idempotent, expected) in [(false, row.plain), (true, row.idempotent)] {
        let facts = AttemptFacts {
            idempotent,
            ..row.facts
        };
        let got = three(&Retry::exponential(), facts);
        assert_eq!(got, expected, "{}: {facts:?}", row.event);
        // A committed call is sent nowhere, whatever else speaks for it.
        let committed = AttemptFacts {
            committed: true,
            ..facts
        };
        let expected = expected.map(|it| match it {
            Short::Resend | Short::Retry(_) => Short::No(GiveUp::Committed),
            no => no,
        });
        let got = three(&Retry::exponential(), committed);
        assert_eq!(got, expected, "{}: {committed:?}", row.event);
    }
}

#[test]
fn a_configured_code_counts_however_it_came() {
    let retry = Retry::exponential().codes([Code::Unavailable, Code::Aborted]);
    for code in (0..17).map(Code::from_i32) {
        let configured = matches!(code, Code::Unavailable | Code::Aborted);
        let pick = |no| if configured { RETRY } else { no };
        let again = AttemptFacts {
            refused_before: true,
            ..failed(Refused, code)
        };
        for (facts, expected) in [
            (failed(NotSent, code), RESEND),
            (failed(Refused, code), RESEND),
            (again, pick(CODE)),
            (failed(MaybeProcessed, code), pick(DOUBT)),
            (failed(Answered, code), pick(CODE)),
        ] {
            assert_eq!(three(&retry, facts), expected, "{facts:?}");
        }
        let idempotent = AttemptFacts {
            idempotent: true,
            ..failed(MaybeProcessed, code)
        };
        assert_eq!(three(&retry, idempotent), RETRY, "{idempotent:?}");
    }
    // What was set replaces the default.
    let aborted = Retry::exponential().codes([Code::Aborted]);
    let unavailable = failed(Answered, Code::Unavailable);
    assert_eq!(three(&aborted, unavailable), CODE);
}

#[test]
fn without_retries_only_what_was_provably_unprocessed_is_sent_again() {
    for idempotent in [false, true] {
        for delivery in [NotSent, Refused, MaybeProcessed, Answered] {
            let expected = match delivery {
                NotSent | Refused => Short::Resend,
                MaybeProcessed | Answered => Short::No(GiveUp::AttemptsUsed),
            };
            let facts = AttemptFacts {
                idempotent,
                ..failed(delivery, Code::Unavailable)
            };
            assert_eq!(decide(&Retry::none(), &facts), expected, "{facts:?}");
        }
    }
}

#[test]
fn the_backoff_starts_over_after_a_pushback() {
    let facts = AttemptFacts {
        attempts_made: 3,
        attempts_since_pushback: 1,
        ..failed(Answered, Code::Unavailable)
    };
    let retry = Retry::exponential().attempts(5);
    assert_eq!(decide(&retry, &facts), Short::Retry(50));
}

#[test]
fn the_budget_is_asked_last_and_only_for_retries() {
    let retry = Retry::exponential();
    let budget = budget(1);
    let ask = |facts: &AttemptFacts| retry.decide(facts, &budget, Duration::ZERO, 0.5);
    let unavailable = failed(Answered, Code::Unavailable);

    // None of these draws on it ...
    let mut held = Vec::new();
    for facts in [
        failed(NotSent, Code::Unavailable),
        failed(Refused, Code::Unavailable),
        failed(MaybeProcessed, Code::Unavailable),
        failed(Answered, Code::NotFound),
        pushed_back(Pushback::Never, unavailable),
        AttemptFacts {
            committed: true,
            ..unavailable
        },
        at_attempt(3, unavailable),
        AttemptFacts {
            remaining: Some(Duration::from_millis(10)),
            ..unavailable
        },
    ] {
        held.extend((0..20).map(|_| ask(&facts)));
    }
    // ... so that all ten are left.
    for _ in 0..10 {
        let verdict = ask(&unavailable);
        assert!(matches!(verdict, Verdict::RetryAfter { .. }), "{verdict:?}");
        held.push(verdict);
    }
    let used = ask(&unavailable);
    assert!(
        matches!(used, Verdict::GiveUp(GiveUp::BudgetUsed)),
        "{used:?}"
    );
    // An empty budget stops no resend.
    assert!(matches!(
        ask(&failed(NotSent, Code::Unavailable)),
        Verdict::ResendNow
    ));
    // Calls that are cancelled while they wait give theirs back.
    drop(held);
    assert!(matches!(ask(&unavailable), Verdict::RetryAfter { .. }));
}
