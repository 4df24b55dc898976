//! What a server says about when to retry.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

const PUSHBACK: &str = "grpc-retry-pushback-ms";
const LONGEST: Duration = Duration::from_secs(300);

/// The server's word on the next attempt of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushback {
    /// Retry after exactly this time.
    After(Duration),
    /// Don't retry.
    Never,
}

impl Pushback {
    /// Reads the headers or trailers that ended an attempt.
    ///
    /// [gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md): the value is a number of
    /// milliseconds in decimal; a negative one, one that can't be read, or several mean no retry. So does one of
    /// more than 5 minutes, the most that Envoy obeys (`rate_limited_retry_back_off`): every wait has a limit.
    pub(crate) fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(PUSHBACK).iter();
        let value = values.next()?;
        if values.next().is_some() {
            return Some(Self::Never);
        }
        let delay = value
            .to_str()
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .map(Duration::from_millis);
        Some(match delay {
            Some(delay) if delay <= LONGEST => Self::After(delay),
            _ => Self::Never,
        })
    }

    /// Reads `Retry-After` where it says how long an overloaded server wants to be left alone (RFC 9110 §10.2.3, RFC 6585
    /// §4): whole seconds, taken for 5 minutes if they are more. Dates are not read: clocks differ.
    pub(crate) fn of_http(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        let limited = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        let value = headers.get(header::RETRY_AFTER).filter(|_| limited)?;
        let seconds = value.to_str().ok()?.parse().ok()?;
        Some(Self::After(Duration::from_secs(seconds).min(LONGEST)))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn pushback(values: &[&[u8]]) -> Option<Pushback> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PUSHBACK, HeaderValue::from_bytes(value).unwrap());
        }
        Pushback::of_headers(&headers)
    }

    #[test]
    fn only_one_plain_number_lets_the_client_retry() {
        assert_eq!(pushback(&[]), None);
        for (value, millis) in [("0", 0), ("300", 300), ("300000", 300_000)] {
            let after = Pushback::After(Duration::from_millis(millis));
            assert_eq!(pushback(&[value.as_bytes()]), Some(after), "{value}");
        }
        let unreadable: [&[u8]; 9] = [
            b"-1",
            b"+1",
            b"",
            b"x",
            b"1.5",
            b" 1",
            b"300001",
            b"1099511627776",
            b"\xff",
        ];
        for value in unreadable {
            assert_eq!(pushback(&[value]), Some(Pushback::Never), "{value:?}");
        }
        assert_eq!(pushback(&[b"100", b"100"]), Some(Pushback::Never));
    }

    #[test]
    fn retry_after_is_read_in_seconds_where_it_means_load() {
        let read = |status, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_str(value).unwrap());
            Pushback::of_http(status, &headers)
        };
        let after = |seconds| Some(Pushback::After(Duration::from_secs(seconds)));
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(read(busy, "3"), after(3));
        assert_eq!(read(StatusCode::TOO_MANY_REQUESTS, "86400"), after(300));
        assert_eq!(read(StatusCode::MOVED_PERMANENTLY, "3"), None);
        for value in ["", "-1", "1.5", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(read(busy, value), None, "{value}");
        }
        assert_eq!(Pushback::of_http(busy, &HeaderMap::new()), None);
    }
}
