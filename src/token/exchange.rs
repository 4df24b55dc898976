//! Tokens from a function.

use std::error::Error as StdError;
use std::fmt;

use super::{Token, TokenFuture, TokenSource};

pub(super) struct Exchange<F>(pub(super) F);

impl<F, Fut> TokenSource for Exchange<F>
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Token, Box<dyn StdError + Send + Sync>>> + Send + 'static,
{
    fn token(&self) -> TokenFuture<'_> {
        Box::pin((self.0)())
    }
}

impl<F> fmt::Debug for Exchange<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(exchange)")
    }
}
