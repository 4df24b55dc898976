//! The option for the retry budget.

use std::time::Duration;

use crate::error::Error;

/// How many retries a channel may send: a share of its calls, plus a few per second.
///
/// The default is 20 % of the calls plus 10 retries per second, over 10 seconds, as in Finagle and tower.
///
/// The setters take any value; the connector's `connect` rejects bad ones and names the field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetLimits {
    pub(super) ratio: f64,
    pub(super) min_per_second: u32,
    pub(super) window: Duration,
}

impl BudgetLimits {
    /// Sets the retries allowed per call: 0 to 10, 0.2 by default.
    #[must_use]
    pub const fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio;
        self
    }

    /// Sets the retries per second that are allowed however few calls there are; 10 by default.
    ///
    /// It is what lets a channel with little traffic retry at all. With 0 here and a ratio of 0, nothing
    /// is retried.
    #[must_use]
    pub const fn min_per_second(mut self, retries: u32) -> Self {
        self.min_per_second = retries;
        self
    }

    /// Sets how far back calls and retries are counted: 1 to 60 s, in whole milliseconds; 10 s by default.
    ///
    /// A retry may come at any time in the window: at 10 per second over 10 seconds, 100 at once.
    #[must_use]
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Checks the limits. `field` is where they stand in the configuration, such as `retry_budget`.
    ///
    /// # Errors
    ///
    /// A configuration error that names the first bad field and its range.
    pub fn validate(&self, field: &str) -> Result<(), Error> {
        let bad =
            |name: &str, problem: &str| Err(Error::config(&format!("{field}.{name}"), problem));
        if !(0.0..=10.0).contains(&self.ratio) {
            return bad("ratio", "must be from 0 to 10");
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&self.window) {
            return bad("window", "must be from 1 to 60 seconds");
        }
        Ok(())
    }
}

impl Default for BudgetLimits {
    fn default() -> Self {
        Self {
            ratio: 0.2,
            min_per_second: 10,
            window: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_as_documented() {
        let limits = BudgetLimits::default();
        limits.validate("retry_budget").unwrap();
        let spelled_out = BudgetLimits {
            ratio: 0.2,
            min_per_second: 10,
            window: Duration::from_secs(10),
        };
        assert_eq!(limits, spelled_out);
    }

    #[test]
    fn bad_fields_are_named() {
        let good = BudgetLimits::default();
        let cases = [
            ("ratio", good.ratio(-0.1)),
            ("ratio", good.ratio(10.1)),
            ("ratio", good.ratio(f64::NAN)),
            ("ratio", good.ratio(f64::INFINITY)),
            ("window", good.window(Duration::ZERO)),
            ("window", good.window(Duration::from_millis(999))),
            ("window", good.window(Duration::from_millis(60_001))),
            ("window", good.window(Duration::MAX)),
        ];
        for (name, limits) in cases {
            let error = limits.validate("retry_budget").unwrap_err();
            let head = format!("retry_budget.{name}: ");
            assert!(error.is_config());
            assert!(
                error.to_string().starts_with(&head),
                "{error} for {limits:?}"
            );
        }
        for edge in [
            good.ratio(0.0),
            good.ratio(10.0),
            good.window(Duration::from_secs(1)),
            good.window(Duration::from_secs(60)),
            good.min_per_second(u32::MAX),
        ] {
            edge.validate("retry_budget").unwrap();
        }
    }
}
