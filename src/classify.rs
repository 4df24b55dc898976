//! Turns what the wire showed into what is known: delivery, gRPC code, and a sentence.

mod http_status;
mod pushback;

use std::time::Duration;

use h2::Reason;
use http::{HeaderMap, HeaderName};
use tonic::Code;

use crate::error::{Delivery, Error, Kind, Stage};

pub(crate) use http_status::is_grpc;
pub(crate) use pushback::Pushback;

// Looking a name up by text parses it every time.
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

const PENALTY: Duration = Duration::from_secs(5);

/// What one attempt led to. Made here only, and read by the retry decision and the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) delivery: Delivery,
    pub(crate) code: Code,
    /// A response came, if only that of a proxy, which may not know what became of the request.
    pub(crate) answered: bool,
    /// What the peer said about when to retry, if it answered with an error.
    pub(crate) pushback: Option<Pushback>,
}

impl Outcome {
    /// A whole response without a gRPC status, as to requests that are not gRPC.
    pub(crate) const ANSWERED: Self = Self {
        delivery: Delivery::Answered,
        code: Code::Ok,
        answered: true,
        pushback: None,
    };

    pub(crate) fn of_error(error: &Error) -> Self {
        Self {
            delivery: error.delivery(),
            code: error.code(),
            answered: error.delivery() == Delivery::Answered,
            pushback: None,
        }
    }

    /// The status in a response's headers (Trailers-Only) or trailers; `None` when they carry none.
    pub(crate) fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let status = headers.get(&GRPC_STATUS)?;
        let code = Code::from_bytes(status.as_bytes());
        let failed = code != Code::Ok;
        Some(Self {
            code,
            pushback: failed.then(|| Pushback::of_headers(headers)).flatten(),
            ..Self::ANSWERED
        })
    }
}

/// What an attempt says about its endpoint's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bearing {
    Good,
    /// The endpoint or the way to it did something wrong.
    Fault,
    /// Its connection was lost: one fault, however many calls were on it.
    Lost,
    /// Nothing.
    Neutral,
}

impl Outcome {
    /// The faults are linkerd's (`linkerd/app/core/src/classify.rs`): of a server's answers, those that say that the
    /// server failed. `RESOURCE_EXHAUSTED` says that it protects itself: that is no fault, and it gets less. Work that was
    /// never sent is the business of connecting.
    pub(crate) fn bearing(self) -> Bearing {
        match (self.delivery, self.code) {
            (_, Code::Ok) => Bearing::Good,
            (Delivery::NotSent | Delivery::Refused, _)
            | (_, Code::Cancelled | Code::ResourceExhausted) => Bearing::Neutral,
            // Resets and answers that break the rules have codes of their own.
            (Delivery::MaybeProcessed, Code::Unavailable) if !self.answered => Bearing::Lost,
            (
                Delivery::MaybeProcessed,
                Code::Unavailable | Code::DeadlineExceeded | Code::Internal,
            )
            | (
                Delivery::Answered,
                Code::Unavailable
                | Code::Internal
                | Code::Unknown
                | Code::DataLoss
                | Code::DeadlineExceeded,
            ) => Bearing::Fault,
            (Delivery::MaybeProcessed, _) => Bearing::Neutral,
            (Delivery::Answered, _) => Bearing::Good,
        }
    }

    /// The latency that the attempt stands for if it is a failure, unless it took longer: that of a fast failure would
    /// be one to wish for. The codes are linkerd's, as is the penalty (`linkerd/load-biaser`, `linkerd/proxy/client-policy`):
    /// 5 s, or as long as the server wants to be left alone.
    pub(crate) fn penalty(self, bearing: Bearing) -> Option<Duration> {
        let failed = matches!(bearing, Bearing::Fault | Bearing::Lost);
        (failed || self.code == Code::ResourceExhausted).then_some(match self.pushback {
            Some(Pushback::After(delay)) => delay,
            Some(Pushback::Never) | None => PENALTY,
        })
    }
}

/// What the connection knows about a stream that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence {
    /// The stream's HEADERS frame, at least its head, may have left this process.
    pub(crate) written: bool,
    /// The peer's response headers were seen.
    pub(crate) answered: bool,
}

impl Evidence {
    pub(crate) const UNSENT: Self = Self {
        written: false,
        answered: false,
    };
}

/// Classifies a failed stream.
///
/// It is not sent if its HEADERS were never written, or if a GOAWAY of the peer failed it: h2 fails only the
/// streams above the GOAWAY's last id that way. It is refused if the peer reset it with `REFUSED_STREAM`.
/// Response headers end both: then the call ran. A stream that this side resets has had an answer, though one
/// that breaks the rules or is too large; a repetition would most likely get the same. Everything else may have
/// been processed.
pub(crate) fn stream_error(error: h2::Error, evidence: Evidence, stage: Stage) -> Error {
    let remote = error.is_remote() && !evidence.answered;
    let reason = error.reason();
    let delivery = if !evidence.written || (remote && error.is_go_away()) {
        Delivery::NotSent
    } else if remote && error.is_reset() && reason == Some(Reason::REFUSED_STREAM) {
        Delivery::Refused
    } else if error.is_reset() && error.is_library() {
        Delivery::Answered
    } else {
        Delivery::MaybeProcessed
    };
    let name = reason.map_or("", |reason| reason_name(reason));
    let (kind, code, message) = if delivery == Delivery::Refused {
        let message = "the peer refused the stream (REFUSED_STREAM)".to_owned();
        (Kind::Refused, Code::Unavailable, message)
    } else if error.is_go_away() && error.is_remote() {
        let message = format!("the peer is closing the connection (GOAWAY {name})");
        (Kind::Disconnected, Code::Unavailable, message)
    } else if error.is_go_away() {
        let message = format!("the connection was closed on a protocol error ({name})");
        (Kind::Disconnected, Code::Unavailable, message)
    } else if error.is_io() {
        let message = format!("connection lost: {error}");
        (Kind::Disconnected, Code::Unavailable, message)
    } else if let (true, Some(reason)) = (error.is_reset(), reason) {
        let side = if error.is_remote() {
            "the peer"
        } else {
            "this side"
        };
        let message = format!("{side} reset the stream ({name})");
        (Kind::Protocol, code_of_reset(reason), message)
    } else {
        let message = format!("the request can't be sent over HTTP/2: {error}");
        (Kind::Request, Code::Internal, message)
    };
    Error::new(kind, code, message)
        .in_stage(stage)
        .delivered(delivery)
        .because(error)
}

/// The code of a stream reset, from the table "Errors" of gRPC's `PROTOCOL-HTTP2.md`.
fn code_of_reset(reason: Reason) -> Code {
    match reason {
        Reason::REFUSED_STREAM => Code::Unavailable,
        Reason::CANCEL => Code::Cancelled,
        Reason::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        Reason::INADEQUATE_SECURITY => Code::PermissionDenied,
        _ => Code::Internal,
    }
}

/// The name of an HTTP/2 error code as RFC 9113 §7 writes it.
pub(crate) fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::NO_ERROR => "NO_ERROR",
        Reason::PROTOCOL_ERROR => "PROTOCOL_ERROR",
        Reason::INTERNAL_ERROR => "INTERNAL_ERROR",
        Reason::FLOW_CONTROL_ERROR => "FLOW_CONTROL_ERROR",
        Reason::SETTINGS_TIMEOUT => "SETTINGS_TIMEOUT",
        Reason::STREAM_CLOSED => "STREAM_CLOSED",
        Reason::FRAME_SIZE_ERROR => "FRAME_SIZE_ERROR",
        Reason::REFUSED_STREAM => "REFUSED_STREAM",
        Reason::CANCEL => "CANCEL",
        Reason::COMPRESSION_ERROR => "COMPRESSION_ERROR",
        Reason::CONNECT_ERROR => "CONNECT_ERROR",
        Reason::ENHANCE_YOUR_CALM => "ENHANCE_YOUR_CALM",
        Reason::INADEQUATE_SECURITY => "INADEQUATE_SECURITY",
        Reason::HTTP_1_1_REQUIRED => "HTTP_1_1_REQUIRED",
        _ => "unknown code",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Evidence = Evidence {
        written: true,
        answered: false,
    };

    #[test]
    fn unwritten_work_is_never_sent_whatever_the_error() {
        let error = stream_error(Reason::INTERNAL_ERROR.into(), Evidence::UNSENT, Stage::Send);
        assert_eq!(error.delivery(), Delivery::NotSent);
        let error = stream_error(Reason::INTERNAL_ERROR.into(), SENT, Stage::Response);
        assert_eq!(error.delivery(), Delivery::MaybeProcessed);
    }

    #[test]
    fn resets_map_to_the_codes_of_grpc() {
        for (reason, code) in [
            (Reason::NO_ERROR, Code::Internal),
            (Reason::PROTOCOL_ERROR, Code::Internal),
            (Reason::REFUSED_STREAM, Code::Unavailable),
            (Reason::CANCEL, Code::Cancelled),
            (Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted),
            (Reason::INADEQUATE_SECURITY, Code::PermissionDenied),
        ] {
            assert_eq!(code_of_reset(reason), code, "{reason}");
        }
    }

    #[test]
    fn only_what_the_endpoint_did_wrong_bears_on_its_health() {
        use Delivery::{Answered, MaybeProcessed, NotSent, Refused};
        for (delivery, code, bearing) in [
            (Answered, Code::Ok, Bearing::Good),
            (Answered, Code::NotFound, Bearing::Good),
            (Answered, Code::Unimplemented, Bearing::Good),
            (Answered, Code::Unauthenticated, Bearing::Good),
            (Answered, Code::Unavailable, Bearing::Fault),
            (Answered, Code::Internal, Bearing::Fault),
            (Answered, Code::Unknown, Bearing::Fault),
            (Answered, Code::DataLoss, Bearing::Fault),
            (Answered, Code::DeadlineExceeded, Bearing::Fault),
            (Answered, Code::ResourceExhausted, Bearing::Neutral),
            (Answered, Code::Cancelled, Bearing::Neutral),
            (MaybeProcessed, Code::Unavailable, Bearing::Lost),
            (MaybeProcessed, Code::Internal, Bearing::Fault),
            (MaybeProcessed, Code::DeadlineExceeded, Bearing::Fault),
            (MaybeProcessed, Code::Cancelled, Bearing::Neutral),
            (MaybeProcessed, Code::PermissionDenied, Bearing::Neutral),
            (NotSent, Code::Unavailable, Bearing::Neutral),
            (Refused, Code::Unavailable, Bearing::Neutral),
        ] {
            let outcome = Outcome {
                delivery,
                code,
                answered: delivery == Answered,
                pushback: None,
            };
            assert_eq!(outcome.bearing(), bearing, "{delivery:?} {code:?}");
        }
    }

    #[test]
    fn a_status_is_read_from_headers_when_there_is_one() {
        let mut headers = HeaderMap::new();
        assert_eq!(Outcome::of_headers(&headers), None);
        headers.insert("grpc-status", "14".parse().unwrap());
        let outcome = Outcome::of_headers(&headers).unwrap();
        assert_eq!(
            (outcome.code, outcome.delivery),
            (Code::Unavailable, Delivery::Answered)
        );
        headers.insert("grpc-status", "abc".parse().unwrap());
        assert_eq!(Outcome::of_headers(&headers).unwrap().code, Code::Unknown);
    }

    #[test]
    fn failures_of_the_endpoint_stand_for_a_long_latency() {
        let outcome = |code, pushback| Outcome {
            code,
            pushback,
            ..Outcome::ANSWERED
        };
        let penalty = |outcome: Outcome| outcome.penalty(outcome.bearing());
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for code in [Code::Ok, Code::NotFound, Code::Cancelled] {
            assert_eq!(penalty(outcome(code, None)), None, "{code:?}");
        }
        for code in [Code::Unavailable, Code::Unknown, Code::ResourceExhausted] {
            assert_eq!(penalty(outcome(code, None)), seconds(5), "{code:?}");
            let never = outcome(code, Some(Pushback::Never));
            assert_eq!(penalty(never), seconds(5), "{code:?}");
            let after = Pushback::After(Duration::from_secs(60));
            assert_eq!(penalty(outcome(code, Some(after))), seconds(60));
        }
        let late = outcome(Code::DeadlineExceeded, None);
        assert_eq!(late.penalty(Bearing::Neutral), None, "of its caller's");
    }
}
