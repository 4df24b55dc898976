//! What an HTTP status stands for, where there is no gRPC status.

use http::{HeaderMap, HeaderValue, StatusCode};
use tonic::Code;

use crate::error::Delivery;

use super::{GRPC_STATUS, Outcome, Pushback};

/// Whether a request of that content type is gRPC's: `application/grpc`, with or without the name of an encoding
/// (`+proto`) and parameters. grpc-web has its status in the body.
pub(crate) fn is_grpc(content_type: &HeaderValue) -> bool {
    let rest = content_type.as_bytes().strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest, [] | [b'+' | b';', ..]))
}

impl Outcome {
    /// What a response to a gRPC request means that is not the server's own, but of something in front of it: its HTTP status
    /// is not 200, and its headers carry no `grpc-status`. The table is gRPC's `http-grpc-status-mapping.md`. `None` for
    /// all others.
    ///
    /// 502 and 504 say that it asked the server, and got no good answer or none in time (RFC 9110 §15.6.3, §15.6.5).
    pub(crate) fn of_go_between(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        if status == StatusCode::OK || headers.contains_key(&GRPC_STATUS) {
            return None;
        }
        let code = match status {
            StatusCode::BAD_REQUEST => Code::Internal,
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            StatusCode::FORBIDDEN => Code::PermissionDenied,
            StatusCode::NOT_FOUND => Code::Unimplemented,
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Code::Unavailable,
            _ => Code::Unknown,
        };
        let delivery = match status {
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Delivery::MaybeProcessed,
            _ => Delivery::Answered,
        };
        let pushback = Pushback::of_headers(headers);
        Some(Self {
            delivery,
            code,
            pushback: pushback.or_else(|| Pushback::of_http(status, headers)),
            ..Self::ANSWERED
        })
    }

    /// The answer to a request that is not gRPC.
    pub(crate) fn of_http(status: StatusCode, headers: &HeaderMap) -> Self {
        let code = match status {
            // It protects itself.
            StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
            status if status.is_server_error() => Code::Unavailable,
            _ => return Self::ANSWERED,
        };
        Self {
            code,
            pushback: Pushback::of_http(status, headers),
            ..Self::ANSWERED
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Bearing;
    use super::*;

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (kind, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grpcx", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(&HeaderValue::from_static(kind)), is, "{kind}");
        }
    }

    /// All rows of `http-grpc-status-mapping.md`, and some of what it calls "all other codes".
    #[test]
    fn answers_of_a_proxy_map_to_the_codes_of_grpc() {
        let none = HeaderMap::new();
        let of = |status: u16, headers: &HeaderMap| {
            Outcome::of_go_between(StatusCode::from_u16(status).unwrap(), headers)
        };
        for (status, code, bearing) in [
            (400, Code::Internal, Bearing::Fault),
            (401, Code::Unauthenticated, Bearing::Good),
            (403, Code::PermissionDenied, Bearing::Good),
            (404, Code::Unimplemented, Bearing::Good),
            (429, Code::Unavailable, Bearing::Fault),
            (502, Code::Unavailable, Bearing::Fault),
            (503, Code::Unavailable, Bearing::Fault),
            (504, Code::Unavailable, Bearing::Fault),
            (204, Code::Unknown, Bearing::Fault),
            (302, Code::Unknown, Bearing::Fault),
            (405, Code::Unknown, Bearing::Fault),
            (500, Code::Unknown, Bearing::Fault),
            (599, Code::Unknown, Bearing::Fault),
        ] {
            let outcome = of(status, &none).unwrap();
            assert_eq!((outcome.code, outcome.pushback), (code, None), "{status}");
            let delivery = match status {
                502 | 504 => Delivery::MaybeProcessed,
                _ => Delivery::Answered,
            };
            assert_eq!((outcome.delivery, outcome.answered), (delivery, true));
            assert_eq!(outcome.bearing(), bearing, "{status}");
        }
        assert_eq!(of(200, &none), None, "trailers follow");
        let told = HeaderMap::from_iter([(GRPC_STATUS.clone(), "5".parse().unwrap())]);
        assert_eq!(of(503, &told), None, "the server's own word");
        let later = HeaderMap::from_iter([(http::header::RETRY_AFTER, "7".parse().unwrap())]);
        let after = Some(Pushback::After(Duration::from_secs(7)));
        assert_eq!(of(503, &later).unwrap().pushback, after);
    }

    #[test]
    fn http_says_how_long_to_stay_away_too() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "7".parse().unwrap());
        for (status, penalty) in [
            (200, None),
            (404, None),
            (429, Some(7)),
            (500, Some(5)),
            (503, Some(7)),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let outcome = Outcome::of_http(status, &headers);
            let expected = penalty.map(Duration::from_secs);
            assert_eq!(outcome.penalty(outcome.bearing()), expected, "{status}");
        }
        let limited = Outcome::of_http(StatusCode::TOO_MANY_REQUESTS, &headers);
        assert_eq!(limited.bearing(), Bearing::Neutral);
    }
}
