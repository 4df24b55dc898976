//! Nothing is sent that the deadline leaves no time for.

use super::*;

#[test]
fn the_delay_must_end_before_the_deadline() {
    let left = |delivery, millis| AttemptFacts {
        remaining: Some(Duration::from_millis(millis)),
        idempotent: true,
        ..failed(delivery, Code::Unavailable)
    };
    let late = Short::No(GiveUp::DeadlineTooClose);
    let pushed = |pushback, millis| {
        let after = Pushback::After(Duration::from_millis(pushback));
        pushed_back(after, left(Answered, millis))
    };
    for (facts, expected) in [
        (left(MaybeProcessed, 51), Short::Retry(50)),
        (left(MaybeProcessed, 50), late),
        (left(Answered, 51), Short::Retry(50)),
        (left(Answered, 0), late),
        (left(NotSent, 1), Short::Resend),
        (left(NotSent, 0), late),
        (left(Refused, 1), Short::Resend),
        (left(Refused, 0), late),
        (pushed(300, 301), Short::Retry(300)),
        (pushed(300, 300), late),
        (pushed(0, 1), Short::Retry(0)),
    ] {
        assert_eq!(decide(&Retry::exponential(), &facts), expected, "{facts:?}");
    }
}

#[test]
fn an_answer_must_be_likely_before_the_deadline() {
    let left = |millis, takes| AttemptFacts {
        remaining: Some(Duration::from_millis(millis)),
        next_takes: Some(Duration::from_millis(takes)),
        ..failed(Answered, Code::Unavailable)
    };
    let late = Short::No(GiveUp::DeadlineTooClose);
    let mut unlimited = left(0, u64::MAX);
    unlimited.remaining = None;
    // It is the same attempt once more.
    let mut unsent = left(1, 100);
    unsent.outcome.delivery = NotSent;
    for (facts, expected) in [
        (left(151, 100), Short::Retry(50)),
        (left(150, 100), late),
        (left(51, 0), Short::Retry(50)),
        (unlimited, Short::Retry(50)),
        (unsent, Short::Resend),
    ] {
        assert_eq!(decide(&Retry::exponential(), &facts), expected, "{facts:?}");
    }
    let budget = budget(1);
    for _ in 0..20 {
        let verdict = Retry::exponential().decide(&left(150, 100), &budget, Duration::ZERO, 0.5);
        assert!(matches!(verdict, Verdict::GiveUp(_)));
    }
    assert!(budget.try_withdraw(Duration::ZERO).is_some(), "untouched");
}
