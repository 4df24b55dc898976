//! Tokens that say on whose behalf calls are made.
//!
//! - [`Credentials`] is what users set; [`TokenSource`] is for sources of their own.
//! - `exchange` and `file` are the sources that come with the crate.
//! - `holder` keeps the current token, which is a `held` one, and sees to it that one exchange is under way at a time.

mod credentials;
mod exchange;
mod file;
mod held;
mod holder;

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use crate::secret::Secret;

pub use credentials::Credentials;
pub(crate) use held::Held;
pub(crate) use holder::TokenHolder;

/// Where tokens come from: a file, an identity provider, a function.
pub trait TokenSource: Send + Sync + fmt::Debug + 'static {
    /// Gets a token: the first one, one to follow before the last expires, or one in place of a token that a server
    /// refused. Called from a task of the channel's, one at a time; 10 s are its limit.
    ///
    /// # Errors
    ///
    /// Whatever the calls that wait for it are to report. Without secrets.
    fn token(&self) -> TokenFuture<'_>;
}

/// A token under way.
pub type TokenFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Token, Box<dyn StdError + Send + Sync>>> + Send + 'a>>;

/// A token. `Debug` does not show it.
#[derive(Clone, Debug)]
pub struct Token {
    text: Secret,
    lifetime: Option<Duration>,
    /// After what time another one may be there. Before that, nobody asks.
    look_after: Option<Duration>,
}

impl Token {
    /// A token that does not expire. It is sent as `authorization: Bearer TEXT`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: Secret::new(text.into()),
            lifetime: None,
            look_after: None,
        }
    }

    /// How long it is good for, from now on. The next one is asked for by the first call when a tenth of this is left, some
    /// earlier and some later, so that not all clients come together. Less than a second counts as one, so that a provider
    /// whose clock is wrong is not asked by each call.
    #[must_use]
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    fn look_again_after(mut self, time: Duration) -> Self {
        self.look_after = Some(time);
        self
    }
}
