//! What becomes of endpoints that a source says are gone.

use std::time::Duration;

use crate::error::Error;

/// How far a source is believed that says that most endpoints, or all, are gone.
///
/// Registries have bad days: they are restarted and have lost their state, a permission is taken from a token, a check
/// fails on every machine at once. A client that believes all of it turns a registry's outage into one of its own.
/// An *error* of the source never takes an endpoint away; these rules are about answers.
///
/// - **No endpoint in the answer:** after [`keep`](Self::keep) the last ones stay in use, however long it takes; after
///   [`drain`](Self::drain), the default of Consul, they stay for the [grace](Self::grace) and leave one by one
///   [after it](Self::drain_over); after [`fail`](Self::fail) they leave at once.
/// - **More than a share of the endpoints gone at once** (the [guard](Self::guard)): those that still have a connection
///   that works stay in use for the grace, then leave one by one. Those that have none leave at once.
///
/// An endpoint that the source lists again is one like all others. One that the source lists with weight 0 is drained at
/// once: somebody meant that. It counts as neither there nor gone: an answer in which all have weight 0 is one without
/// endpoints for those that it does not list.
///
/// [`ChannelStatus`](crate::ChannelStatus) shows what is kept in this way, and why.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outage {
    pub(crate) empty: Empty,
    pub(crate) grace: Duration,
    pub(crate) drain: Duration,
    pub(crate) guard: f64,
}

/// What an answer without endpoints means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Empty {
    Keep,
    Drain,
    Fail,
}

const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);

impl Outage {
    /// An answer without endpoints changes nothing until one with endpoints comes.
    #[must_use]
    pub const fn keep() -> Self {
        Self {
            empty: Empty::Keep,
            grace: Duration::from_secs(60),
            drain: Duration::from_secs(60),
            guard: 0.5,
        }
    }

    /// After an answer without endpoints the last ones stay for the grace, and then leave one by one.
    #[must_use]
    pub const fn drain() -> Self {
        Self {
            empty: Empty::Drain,
            ..Self::keep()
        }
    }

    /// After an answer without endpoints, calls fail.
    #[must_use]
    pub const fn fail() -> Self {
        Self {
            empty: Empty::Fail,
            ..Self::keep()
        }
    }

    /// How long endpoints stay that are said to be gone. Default 60 s; from 0 to a day.
    #[must_use]
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// In which time they leave after that, one by one at even distances. Default 60 s; from 0 (all at once) to a day.
    #[must_use]
    pub const fn drain_over(mut self, time: Duration) -> Self {
        self.drain = time;
        self
    }

    /// The share of the endpoints that may go at once and is believed. Default 0.5, so one of two may; from 0 to 1, and 1
    /// believes every answer that has endpoints.
    #[must_use]
    pub const fn guard(mut self, share: f64) -> Self {
        self.guard = share;
        self
    }

    /// The same with what is out of bounds at its bounds.
    pub(crate) fn bounded(mut self) -> Self {
        self.grace = self.grace.min(MAX_TIME);
        self.drain = self.drain.min(MAX_TIME);
        self.guard = if self.guard.is_nan() {
            1.0
        } else {
            self.guard.clamp(0.0, 1.0)
        };
        self
    }

    /// Checks the rules. `field` is where they stand in the configuration.
    ///
    /// # Errors
    ///
    /// A configuration error that names the first bad field and its range.
    pub fn validate(&self, field: &str) -> Result<(), Error> {
        for (name, time) in [("grace", self.grace), ("drain_over", self.drain)] {
            if time > MAX_TIME {
                let problem = "must be at most 24 hours; keep() keeps endpoints for ever";
                return Err(Error::config(&format!("{field}.{name}"), problem));
            }
        }
        if !(0.0..=1.0).contains(&self.guard) {
            return Err(Error::config(
                &format!("{field}.guard"),
                "must be a share from 0 to 1",
            ));
        }
        Ok(())
    }
}
