//! A token as calls carry it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderValue;

use crate::secret;
use crate::time::Instant;

use super::Token;

/// How long a token is used, whatever is said of it. One that has expired when it comes, by a clock that is wrong, would
/// be asked for by each call anew; how often a server may refuse it has a limit.
const LEAST: Duration = Duration::from_secs(1);

/// A token in use.
#[derive(Debug)]
pub(crate) struct Held {
    /// What calls carry.
    pub(crate) value: HeaderValue,
    /// From when on another one is asked for.
    renew_at: Option<Instant>,
    expires_at: Option<Instant>,
    /// From when on others may have put another one in its place, and nobody has looked.
    stale_at: Option<Instant>,
    /// A look has brought none, so no further call waits for one.
    looked_in_vain: AtomicBool,
}

impl Held {
    /// # Errors
    ///
    /// What is wrong with the token, without showing it.
    pub(super) fn new(token: &Token, now: Instant) -> Result<Self, &'static str> {
        let lifetime = token.lifetime.map(|time| time.max(LEAST));
        let renew = lifetime.map(|time| time.mul_f64(0.85 + 0.1 * fastrand::f64()));
        let renew = renew.or(token.look_after);
        // What is longer than clocks can count does not expire.
        let at = |time: Option<Duration>| time.and_then(|time| now.checked_add(time));
        Ok(Self {
            value: header(token)?,
            renew_at: at(renew),
            expires_at: at(lifetime),
            // Where calls come again and again, they find a new one before that.
            stale_at: at(token.look_after.map(|time| time * 2)),
            looked_in_vain: AtomicBool::new(false),
        })
    }

    /// Whether another one is to be asked for.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.renew_at.is_some_and(|at| at <= now) || self.has_expired(now)
    }

    pub(super) fn has_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whether a call had better wait for another one.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.stale_at.is_some_and(|at| at <= now) && !self.looked_in_vain.load(Ordering::Relaxed)
    }

    pub(super) fn looked_in_vain(&self) {
        self.looked_in_vain.store(true, Ordering::Relaxed);
    }
}

/// The header's value.
///
/// # Errors
///
/// What is wrong with the token, without showing it.
pub(super) fn header(token: &Token) -> Result<HeaderValue, &'static str> {
    secret::header("Bearer ", token.text.expose())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewals_are_spread_over_the_tenth_before_the_end() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let token = Token::new("t").expires_in(100 * second);
        let due = || {
            let held = Held::new(&token, now).unwrap();
            assert!(!held.has_expired(now + 99 * second) && held.has_expired(now + 100 * second));
            assert!(!held.is_due(now + 84 * second) && held.is_due(now + 95 * second));
            (84..=95).find(|it| held.is_due(now + *it * second))
        };
        let seconds: std::collections::BTreeSet<_> = (0..1000).map(|_| due()).collect();
        // Of ten that there are; a thousand clients that have started together do not come together.
        assert!(seconds.len() > 5, "{seconds:?}");
    }
}
