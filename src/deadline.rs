//! When a call must be over: [`Deadline`], and its form on the wire, the `grpc-timeout` header.
//!
//! The header is defined in the gRPC over HTTP/2 specification ("Timeout"): one to eight digits, then a unit, one of
//! `H M S m u n`. A deadline is an instant, a timeout a duration; only timeouts travel, because clocks differ.

use std::fmt::Write as _;
use std::time::Duration;

use crate::time::Instant;

/// The farthest a deadline lies ahead: 30 years, about what Tokio's timers take for "never".
const FARTHEST: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The most that eight digits hold.
const MOST: u128 = 99_999_999;

/// Units from the finest, with their length in nanoseconds.
const UNITS: [(char, u128); 6] = [
    ('n', 1),
    ('u', 1_000),
    ('m', 1_000_000),
    ('S', 1_000_000_000),
    ('M', 60_000_000_000),
    ('H', 3_600_000_000_000),
];

/// The instant at which a call must be over.
///
/// Reads no clock: whoever asks passes the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// The deadline `timeout` after `now`.
    ///
    /// Never overflows: a timeout above 30 years counts as 30 years, and where the clock itself cannot count that far,
    /// the deadline is `now`.
    pub(crate) fn after(now: Instant, timeout: Duration) -> Self {
        Self(now.checked_add(timeout.min(FARTHEST)).unwrap_or(now))
    }

    /// The instant itself, for timers.
    pub(crate) const fn instant(self) -> Instant {
        self.0
    }

    /// The time left at `now`; zero from the deadline on.
    pub(crate) fn remaining(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }
}

/// Reads a `grpc-timeout` header.
///
/// `None` for anything but one to eight digits and a unit. Zero is read as zero although the specification wants a
/// positive number, because peers send it for a deadline that has passed.
pub(crate) fn parse_timeout(header: impl AsRef<[u8]>) -> Option<Duration> {
    let (unit, digits) = header.as_ref().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(value * 3_600)),
        b'M' => Some(Duration::from_secs(value * 60)),
        b'S' => Some(Duration::from_secs(value)),
        b'm' => Some(Duration::from_millis(value)),
        b'u' => Some(Duration::from_micros(value)),
        b'n' => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// Writes a `grpc-timeout` header: the shortest text of the most precise value that eight digits can express.
///
/// Rounds down, by less than one part in 100,000, so that the peer never waits longer than the caller does. The
/// specification has no zero: no time left is written as `1n`. The longest timeout is `99999999H`.
///
/// The text fills its allocation exactly, so that it becomes a header value without being copied.
pub(crate) fn format_timeout(timeout: Duration) -> String {
    let nanos = timeout.as_nanos().max(1);
    let mut units = UNITS
        .iter()
        .skip_while(|(_, length)| nanos / length > MOST)
        .peekable();
    let Some(&(mut unit, mut length)) = units.next() else {
        return String::from("99999999H");
    };
    let mut value = nanos / length;
    while let Some(&(coarser, longer)) =
        units.next_if(|(_, longer)| (value * length).is_multiple_of(*longer))
    {
        value = value * length / longer;
        (unit, length) = (coarser, longer);
    }
    let mut text = String::with_capacity(value.ilog10() as usize + 2);
    // Writing to a string cannot fail.
    let _ = write!(text, "{value}{unit}");
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn durations() -> impl Strategy<Value = Duration> {
        prop_oneof![
            any::<u32>().prop_map(|nanos| Duration::from_nanos(nanos.into())),
            any::<u64>().prop_map(Duration::from_nanos),
            any::<u32>().prop_map(|millis| Duration::from_millis(millis.into())),
            any::<u32>().prop_map(|seconds| Duration::from_secs(seconds.into())),
            (any::<u64>(), 0..1_000_000_000_u32)
                .prop_map(|(seconds, nanos)| Duration::new(seconds, nanos)),
        ]
    }

    #[test]
    fn texts_are_the_shortest_exact_ones() {
        let cases = [
            (Duration::ZERO, "1n"),
            (Duration::from_nanos(1), "1n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_001), "100m"),
            (Duration::from_micros(1), "1u"),
            (Duration::from_millis(1_500), "1500m"),
            (Duration::from_secs(1), "1S"),
            (Duration::from_secs(30), "30S"),
            (Duration::from_secs(61), "61S"),
            (Duration::from_secs(120), "2M"),
            (Duration::from_secs(7_200), "2H"),
            (Duration::from_micros(99_999_999), "99999999u"),
            (Duration::from_micros(100_000_001), "100S"),
            (Duration::from_millis(100_000_999), "100000S"),
            (Duration::from_secs(100_000_000), "1666666M"),
            (Duration::from_secs(6_000_000_000), "1666666H"),
            (Duration::MAX, "99999999H"),
        ];
        for (timeout, text) in cases {
            assert_eq!(format_timeout(timeout), text, "{timeout:?}");
        }
    }

    #[test]
    fn garbage_is_no_timeout() {
        for header in [
            "",
            "S",
            "1",
            "1s",
            "1h",
            "-1S",
            "+1S",
            " 1S",
            "1S ",
            "1 S",
            "1.5S",
            "123456789n",
            "0x1S",
            "١S",
        ] {
            assert_eq!(parse_timeout(header), None, "{header:?}");
        }
        assert_eq!(parse_timeout([b'1', 0xff]), None);
    }

    #[test]
    fn every_unit_is_read() {
        let cases = [
            ("0n", Duration::ZERO),
            ("00000007n", Duration::from_nanos(7)),
            ("7u", Duration::from_micros(7)),
            ("7m", Duration::from_millis(7)),
            ("7S", Duration::from_secs(7)),
            ("7M", Duration::from_secs(420)),
            ("7H", Duration::from_secs(25_200)),
            ("99999999H", Duration::from_secs(99_999_999 * 3_600)),
        ];
        for (header, timeout) in cases {
            assert_eq!(parse_timeout(header), Some(timeout), "{header}");
        }
    }

    #[test]
    fn an_endless_timeout_gives_a_far_deadline() {
        let now = Instant::now();
        let deadline = Deadline::after(now, Duration::MAX);
        assert_eq!(deadline.remaining(now), FARTHEST);
        assert!(!deadline.remaining(now).is_zero());
    }

    #[test]
    fn where_the_clock_ends_the_deadline_is_now() {
        let mut last = Instant::now();
        for step in (0..64)
            .rev()
            .map(|exponent| Duration::from_secs(1 << exponent))
        {
            last = last.checked_add(step).unwrap_or(last);
        }
        assert_eq!(Deadline::after(last, FARTHEST), Deadline(last));
    }

    #[test]
    fn time_runs_out_at_the_deadline() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let deadline = Deadline::after(now, second);
        assert!(!deadline.remaining(now).is_zero());
        assert!(deadline.remaining(now + second).is_zero());
        assert!(deadline.remaining(now + 2 * second).is_zero());
        assert_eq!(deadline.remaining(now + 2 * second), Duration::ZERO);
        assert_eq!(deadline.instant(), now + second);
    }

    proptest! {
        #[test]
        fn a_text_is_legal_and_just_below(timeout in durations()) {
            let text = format_timeout(timeout);
            let (digits, unit) = text.split_at(text.len() - 1);
            prop_assert!((1..=8).contains(&digits.len()) && "HMSmun".contains(unit), "{}", text);
            prop_assert_eq!(text.capacity(), text.len());

            let read = parse_timeout(&text).unwrap();
            prop_assert!(!read.is_zero());
            let longest = Duration::from_secs(99_999_999 * 3_600);
            let wanted = timeout.clamp(Duration::from_nanos(1), longest);
            prop_assert!(read <= wanted, "{} is longer than {:?}", text, timeout);
            prop_assert!((wanted - read).as_nanos() * 100_000 <= wanted.as_nanos(), "{} for {:?}", text, timeout);
        }

        #[test]
        fn what_eight_digits_express_survives(value in 1..100_000_000_u32, unit in "[HMSmun]") {
            let timeout = parse_timeout(format!("{value}{unit}")).unwrap();
            prop_assert_eq!(parse_timeout(format_timeout(timeout)), Some(timeout));
        }

        #[test]
        fn any_bytes_can_be_read(header in proptest::collection::vec(any::<u8>(), 0..12)) {
            let _ = parse_timeout(header);
        }

        #[test]
        fn deadlines_keep_the_order_of_timeouts(one in durations(), other in durations()) {
            let now = Instant::now();
            let (first, second) = (Deadline::after(now, one), Deadline::after(now, other));
            prop_assert!(one > other || first <= second);
            prop_assert_eq!(first.remaining(now), one.min(FARTHEST));
            prop_assert_eq!(first.remaining(now).is_zero(), one.is_zero());
        }
    }
}
