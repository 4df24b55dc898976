//! How far ejection may go.

use crate::error::Error;

/// How many endpoints may be kept from calls, and when they all get calls again although they are not well.
///
/// The last endpoint is never ejected, in sets of any size.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct EjectionLimits {
    max_ejected: f64,
    panic_threshold: f64,
}

/// Below this many endpoints, shares say little: all but one may be ejected, and panic is when none is well.
const SMALL: usize = 5;

impl Default for EjectionLimits {
    fn default() -> Self {
        Self::new()
    }
}

impl EjectionLimits {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            max_ejected: 0.5,
            panic_threshold: 0.5,
        }
    }

    /// The share of the connected endpoints that may be ejected because of calls (by the breaker, as outliers). Default
    /// 0.5; from 0 (none) to 1. In sets under five, all but one, unless it is 0. What probes say is not limited by it: a
    /// server that says that it does not serve gets no calls.
    pub fn max_ejected(mut self, share: f64) -> Self {
        self.max_ejected = share;
        self
    }

    /// The share of the connected endpoints that must be well. With fewer, all connected ones get calls again, whatever
    /// is said of them: rather some calls on sick endpoints than all on those few, which that would make sick, too
    /// (Envoy's panic threshold). Default 0.5; from 0 (only when none is well) to 1. In sets under five it is when none
    /// is well.
    pub fn panic_threshold(mut self, share: f64) -> Self {
        self.panic_threshold = share;
        self
    }

    /// # Errors
    ///
    /// A configuration error that names the field.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        for (field, share) in [
            ("ejection_limits.max_ejected", self.max_ejected),
            ("ejection_limits.panic_threshold", self.panic_threshold),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::config(field, "must be from 0 to 1"));
            }
        }
        Ok(())
    }

    /// Where those that are well can take all calls: there is no panic, and all others may be ejected, unless none may.
    pub(crate) fn lifted(self) -> Self {
        Self {
            max_ejected: if self.max_ejected > 0.0 { 1.0 } else { 0.0 },
            panic_threshold: 0.0,
        }
    }

    /// How many of `connected` endpoints may be ejected.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count"
    )]
    pub(super) fn most_ejected(&self, connected: usize) -> usize {
        let all_but_one = connected.saturating_sub(1);
        if self.max_ejected == 0.0 {
            0
        } else if connected < SMALL {
            all_but_one
        } else {
            let share = (connected as f64 * self.max_ejected) as usize;
            share.max(1).min(all_but_one)
        }
    }

    /// Whether so few are well that all get calls.
    #[expect(clippy::cast_precision_loss, reason = "a share of a count")]
    pub(super) fn is_panic(&self, well: usize, connected: usize) -> bool {
        if connected < SMALL {
            return well == 0 && connected > 0;
        }
        well == 0 || (well as f64) < connected as f64 * self.panic_threshold
    }
}
