//! Exponential, jittered delays.

use std::time::Duration;

use crate::error::Error;

/// No configured delay may be longer: anything above is a mistake, or "never" in disguise.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A schedule of growing delays.
///
/// Delay number `n`, counted from 1, is `min(initial × multiplierⁿ⁻¹, max)`, times a random factor between
/// `1 - jitter` and `1 + jitter`. The first delay is jittered too, so that many clients which lost the same
/// server at the same moment don't come back together. The formula is that of
/// [gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md).
///
/// The setters take any value; the connector's `connect` rejects bad ones and names the field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    initial: Duration,
    multiplier: f64,
    max: Duration,
    jitter: f64,
}

impl Backoff {
    /// The default between two attempts of a call: 50 ms × 2, at most 1 s, ± 20 %.
    #[must_use]
    pub const fn calls() -> Self {
        Self {
            initial: Duration::from_millis(50),
            multiplier: 2.0,
            max: Duration::from_secs(1),
            jitter: 0.2,
        }
    }

    /// The default between two dials of an endpoint: 100 ms × 1.6, at most 30 s, ± 20 %.
    ///
    /// Multiplier and jitter are those of gRPC's connection backoff. Its 1 s and 120 s are meant for the
    /// open internet; inside a data centre, linkerd too starts at 100 ms.
    #[must_use]
    pub const fn dialling() -> Self {
        Self {
            initial: Duration::from_millis(100),
            multiplier: 1.6,
            max: Duration::from_secs(30),
            jitter: 0.2,
        }
    }

    /// Sets the first delay: above zero, at most [`max`](Self::max).
    #[must_use]
    pub const fn initial(mut self, initial: Duration) -> Self {
        self.initial = initial;
        self
    }

    /// Sets the factor from one delay to the next: 1 or more, and finite. 1 keeps the delays equal.
    #[must_use]
    pub const fn multiplier(mut self, multiplier: f64) -> Self {
        self.multiplier = multiplier;
        self
    }

    /// Sets the longest delay before jitter: at most 24 hours.
    #[must_use]
    pub const fn max(mut self, max: Duration) -> Self {
        self.max = max;
        self
    }

    /// Sets the random share of each delay: 0 (none) to 1 (anything up to twice the delay).
    #[must_use]
    pub const fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    /// Checks the schedule. `field` is where it stands in the configuration, such as `retry.backoff`.
    ///
    /// # Errors
    ///
    /// A configuration error that names the first bad field and its range.
    pub fn validate(&self, field: &str) -> Result<(), Error> {
        let bad =
            |name: &str, problem: &str| Err(Error::config(&format!("{field}.{name}"), problem));
        if self.initial.is_zero() {
            return bad("initial", "must be above zero");
        }
        if self.initial > LONGEST {
            return bad("initial", "must be at most 24 hours");
        }
        if !(self.multiplier >= 1.0 && self.multiplier.is_finite()) {
            return bad("multiplier", "must be a finite number, 1 or more");
        }
        if self.max < self.initial {
            return bad("max", "must not be below the initial delay");
        }
        if self.max > LONGEST {
            return bad("max", "must be at most 24 hours");
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return bad("jitter", "must be from 0 to 1");
        }
        Ok(())
    }

    /// Delay number `n` (the first is 1; 0 counts as 1), for a random `rng_unit` in `[0, 1)`.
    ///
    /// Never above `max × (1 + jitter)`, whatever `n`. For the same `rng_unit`, a higher `n` never gives
    /// a shorter delay.
    #[must_use]
    pub fn delay(&self, n: u32, rng_unit: f64) -> Duration {
        let steps = i32::try_from(n.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.initial.as_secs_f64() * self.multiplier.powi(steps);
        let base = grown.min(self.max.as_secs_f64());
        let factor = 1.0 + self.jitter * (2.0 * rng_unit - 1.0);
        Duration::try_from_secs_f64(base * factor).unwrap_or(self.max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    /// The middle of the jitter range: the delay itself.
    const MIDDLE: f64 = 0.5;

    fn millis(backoff: Backoff, n: u32) -> u128 {
        backoff.delay(n, MIDDLE).as_millis()
    }

    #[test]
    fn the_defaults_are_valid_and_as_documented() {
        Backoff::calls().validate("retry.backoff").unwrap();
        Backoff::dialling().validate("dial.backoff").unwrap();
        let calls: Vec<_> = (1..=7).map(|n| millis(Backoff::calls(), n)).collect();
        assert_eq!(calls, [50, 100, 200, 400, 800, 1000, 1000]);
        let dials: Vec<_> = [1, 2, 3, 12, 13, 14]
            .map(|n| millis(Backoff::dialling(), n))
            .to_vec();
        assert_eq!(dials, [100, 160, 256, 17_592, 28_147, 30_000]);
    }

    #[test]
    fn jitter_spans_its_range_from_the_first_delay_on() {
        let backoff = Backoff::calls();
        assert_eq!(backoff.delay(1, 0.0), Duration::from_millis(40));
        let highest = backoff.delay(1, 1.0 - f64::EPSILON);
        assert!(highest > Duration::from_micros(59_999) && highest <= Duration::from_millis(60));
        let wide = backoff.jitter(1.0);
        assert_eq!(wide.delay(1, 0.0), Duration::ZERO);
        assert_eq!(wide.delay(1, 0.75), Duration::from_millis(75));
        assert_eq!(backoff.jitter(0.0).delay(1, 0.0), Duration::from_millis(50));
    }

    #[test]
    fn zero_counts_as_the_first_delay() {
        let backoff = Backoff::calls();
        assert_eq!(backoff.delay(0, MIDDLE), backoff.delay(1, MIDDLE));
    }

    #[test]
    fn bad_fields_are_named() {
        let good = Backoff::calls();
        let second = Duration::from_secs(1);
        let cases = [
            ("initial", good.initial(Duration::ZERO)),
            ("initial", good.initial(Duration::MAX)),
            ("multiplier", good.multiplier(0.99)),
            ("multiplier", good.multiplier(-2.0)),
            ("multiplier", good.multiplier(f64::NAN)),
            ("multiplier", good.multiplier(f64::INFINITY)),
            ("max", good.initial(second * 2).max(second)),
            ("max", good.max(Duration::ZERO)),
            ("max", good.max(Duration::MAX)),
            ("max", good.max(LONGEST + Duration::from_nanos(1))),
            ("jitter", good.jitter(1.01)),
            ("jitter", good.jitter(-0.1)),
            ("jitter", good.jitter(f64::NAN)),
            ("jitter", good.jitter(f64::INFINITY)),
        ];
        for (name, backoff) in cases {
            let error = backoff.validate("retry.backoff").unwrap_err();
            let head = format!("retry.backoff.{name}: ");
            assert!(error.is_config());
            assert!(
                error.to_string().starts_with(&head),
                "{error} for {backoff:?}"
            );
        }
        for edge in [
            good.multiplier(1.0),
            good.jitter(0.0),
            good.jitter(1.0),
            good.initial(second).max(second),
            good.max(LONGEST),
        ] {
            edge.validate("retry.backoff").unwrap();
        }
    }

    fn valid() -> impl Strategy<Value = Backoff> {
        let longest = LONGEST.as_nanos() as u64;
        let multiplier = prop_oneof![Just(1.0), 1.0..4.0, Just(1e300), Just(f64::MAX)];
        (1..=longest, 0..=longest, multiplier, 0.0..=1.0).prop_map(|(a, b, multiplier, jitter)| {
            Backoff {
                initial: Duration::from_nanos(a.min(b.max(1))),
                multiplier,
                max: Duration::from_nanos(a.max(b)),
                jitter,
            }
        })
    }

    fn any_n() -> impl Strategy<Value = u32> {
        prop_oneof![0..100_u32, any::<u32>(), Just(u32::MAX)]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(0xbac0),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn delays_stay_in_range_and_grow(backoff in valid(), n in any_n(), unit in 0.0..1.0) {
            backoff.validate("backoff").unwrap();
            // Seconds in an f64 are good to 2⁻⁵³ of their value: 20 ps for a day.
            let rounding = Duration::from_nanos(1);
            let delay = backoff.delay(n, unit);
            prop_assert!(delay <= backoff.max.mul_f64(1.0 + backoff.jitter) + rounding);
            prop_assert!(delay + rounding >= backoff.initial.mul_f64(1.0 - backoff.jitter));
            prop_assert!(backoff.delay(n.saturating_add(1), unit) >= delay);
        }

        #[test]
        fn nothing_panics_even_unchecked(
            (initial, max) in any::<(Duration, Duration)>(),
            (multiplier, jitter, unit) in any::<(f64, f64, f64)>(),
            n in any_n(),
        ) {
            let backoff = Backoff { initial, multiplier, max, jitter };
            let _ = backoff.validate("backoff");
            let _ = backoff.delay(n, unit);
        }
    }
}
