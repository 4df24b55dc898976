//! The rows of the table.

#![allow(unreachable_pub, reason = "a test crate exports nothing")]

use tonic::Code;
use trunkline::{Delivery, Stage};

use crate::support::frames::{Frame, code};
use crate::support::reaction::{Reaction, RequestInfo};
use crate::support::response;

use Delivery::{Answered, MaybeProcessed, NotSent, Refused};
use Then::{End, Resent, Retried};

const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// What follows an attempt that ended in some way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Then {
    /// The same attempt again, at once and elsewhere. It does not count.
    Resent,
    /// Another attempt elsewhere, if there is one left.
    Retried,
    /// The call ends like this.
    End,
}

/// Who speaks for repeating a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum For {
    Nobody,
    Idempotence,
    /// The policy names the code that this way to end stands for.
    Code,
}

/// One way for an attempt to end.
pub struct Row {
    pub event: String,
    pub react: Box<dyn Fn(&RequestInfo) -> Reaction + Send + Sync>,
    pub stage: Stage,
    pub delivery: Delivery,
    pub code: Code,
    /// For nobody, for idempotence, for the code.
    pub then: [Then; 3],
}

fn row(
    event: &str,
    react: impl Fn(&RequestInfo) -> Reaction + Send + Sync + 'static,
    (delivery, code): (Delivery, Code),
    then: [Then; 3],
) -> Row {
    Row {
        event: event.to_owned(),
        react: Box::new(react),
        stage: Stage::Response,
        delivery,
        code,
        then,
    }
}

/// A peer that did not look at the request and says so.
fn goaway(reason: u32) -> impl Fn(&RequestInfo) -> Reaction {
    move |request| Reaction::Ignore.after_goaway(request.stream.saturating_sub(2), reason, "")
}

fn reset(reason: u32) -> impl Fn(&RequestInfo) -> Reaction {
    move |_| Reaction::Reset(reason)
}

fn answer(code: Code, pushback: Option<&'static str>) -> impl Fn(&RequestInfo) -> Reaction {
    let fields: Vec<_> = pushback.into_iter().map(|it| (PUSHBACK, it)).collect();
    move |_| Reaction::FailWith(code as i32, fields.clone())
}

/// The table.
pub fn table() -> Vec<Row> {
    const FREE: [Then; 3] = [Resent; 3];
    /// Nobody knows whether it was processed.
    const DOUBT: [Then; 3] = [End, Retried, Retried];
    const NEVER: [Then; 3] = [End; 3];
    let lost = (MaybeProcessed, Code::Unavailable);
    let unseen = (NotSent, Code::Unavailable);
    let doubt = |code| (MaybeProcessed, code);
    let mut rows = vec![
        row("GOAWAY below it", goaway(code::NO_ERROR), unseen, FREE),
        row(
            "a harsh GOAWAY below it",
            goaway(code::INTERNAL_ERROR),
            unseen,
            FREE,
        ),
        row(
            "refused",
            reset(code::REFUSED_STREAM),
            (Refused, Code::Unavailable),
            FREE,
        ),
        row("connection closed", |_| Reaction::Close, lost, DOUBT),
        row("connection reset", |_| Reaction::Abort, lost, DOUBT),
        row(
            "GOAWAY above it, then closed",
            |request| Reaction::Close.after_goaway(request.stream, code::NO_ERROR, ""),
            lost,
            DOUBT,
        ),
        row(
            "per-try timeout",
            |_| Reaction::Silence,
            doubt(Code::DeadlineExceeded),
            DOUBT,
        ),
    ];
    for (reason, code) in [
        (code::NO_ERROR, Code::Internal),
        (code::PROTOCOL_ERROR, Code::Internal),
        (code::INTERNAL_ERROR, Code::Internal),
        (code::FLOW_CONTROL_ERROR, Code::Internal),
        (code::CANCEL, Code::Cancelled),
        (code::ENHANCE_YOUR_CALM, Code::ResourceExhausted),
        (code::INADEQUATE_SECURITY, Code::PermissionDenied),
    ] {
        let event = format!("reset with {reason}");
        rows.push(row(&event, reset(reason), doubt(code), DOUBT));
    }
    let headers_and = |event: &str, reason, code| Row {
        stage: Stage::Body,
        ..row(
            event,
            move |request: &RequestInfo| {
                let stream = request.stream;
                let frames = [response::headers(stream), Frame::rst(stream, reason)];
                Reaction::Frames(frames.into())
            },
            doubt(code),
            NEVER,
        )
    };
    rows.extend([
        headers_and("headers, then reset", code::INTERNAL_ERROR, Code::Internal),
        headers_and(
            "headers, then refused",
            code::REFUSED_STREAM,
            Code::Unavailable,
        ),
    ]);
    for number in 0..17 {
        let code = Code::from_i32(number);
        let then = match code {
            Code::Ok => NEVER,
            Code::Unavailable => [Retried; 3],
            _ => [End, End, Retried],
        };
        let event = format!("answered {code:?}");
        rows.push(row(&event, answer(code, None), (Answered, code), then));
    }
    let exhausted = Code::ResourceExhausted;
    for (code, value, then) in [
        (exhausted, "0", [Retried; 3]),
        (exhausted, "-1", NEVER),
        (Code::Unavailable, "0", [Retried; 3]),
        (Code::Unavailable, "-1", NEVER),
        (Code::Aborted, "0", [End, End, Retried]),
    ] {
        let event = format!("answered {code:?}, retry in {value}");
        rows.push(row(
            &event,
            answer(code, Some(value)),
            (Answered, code),
            then,
        ));
    }
    rows
}
