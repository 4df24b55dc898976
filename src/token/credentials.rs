//! What users set.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Error;

use super::exchange::Exchange;
use super::file::TokenFile;
use super::held::header;
use super::{Token, TokenFuture, TokenSource};

/// The token that a channel's calls carry, as `authorization: Bearer …`.
///
/// A call that has an `authorization` header of its own keeps that, and it goes wherever the call does. The token goes over
/// encrypted connections and Unix sockets only, unless [`allow_plaintext`](Self::allow_plaintext) says otherwise. Both are
/// marked as sensitive, so that they enter no HPACK table and no log of headers.
///
/// When a server answers `UNAUTHENTICATED`, or a gateway before it HTTP's 401, the token is dropped, and the call is made once
/// more with a new one; then the answer is the caller's. Where a response has begun before the refusal, where a request
/// that is not gRPC has 401 for an answer, and on pinned connections, the next call has the new one. A token that can't be
/// replaced is not tried again. A server that refuses every token costs five exchanges, then one a second; calls have its
/// answer meanwhile.
///
/// [`Channel::close`](crate::Channel::close) waits for a token only if a running call does.
///
/// ```
/// use std::time::Duration;
/// use trunkline::{Connector, Credentials, Token};
///
/// let fixed = Connector::target("https://inventory.internal").credentials(Credentials::token("b1gs3cr3t"));
/// let exchanged = Connector::target("https://inventory.internal").credentials(Credentials::exchange(|| async {
///     // Ask an identity provider.
///     Ok(Token::new("fresh").expires_in(Duration::from_secs(300)))
/// }));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Credentials {
    pub(super) source: Arc<dyn TokenSource>,
    /// Asking again may bring another token.
    pub(super) renewable: bool,
    pub(super) plaintext: bool,
    /// A token that is known can be checked.
    fixed: Option<Token>,
}

impl Credentials {
    /// Always this token.
    pub fn token(text: impl Into<String>) -> Self {
        let token = Token::new(text);
        Self {
            fixed: Some(token.clone()),
            renewable: false,
            ..Self::source(Fixed(token))
        }
    }

    /// What is in this file, of at most 64 KiB, without white space around it. While calls are made, it is read again every
    /// 10 s, and when a server refuses what was in it; the first call after a longer rest waits for that, up to a second.
    /// Kubernetes replaces such files.
    pub fn token_file(path: impl Into<PathBuf>) -> Self {
        Self::source(TokenFile::new(path.into()))
    }

    /// What this function brings: from an identity provider, for an API key, or from a vault. One call of it is under way
    /// at a time, whoever waits for it; while calls are made, the next one begins before the token
    /// [expires](Token::expires_in). It has 10 s. When it fails, calls get its error for a second, and then it is asked
    /// again; a token that is still good stays in use.
    ///
    /// It may make gRPC calls, on a channel that is not the one whose token it gets: there they would wait for that token.
    ///
    /// ```
    /// use std::time::Duration;
    /// use trunkline::{Connector, Credentials, Token};
    /// # use trunkline_proto::echo_client::EchoClient as LoginClient;
    ///
    /// # #[tokio::main] async fn main() -> Result<(), trunkline::Error> {
    /// let login = Connector::target("unix:/run/login.sock")
    ///     .credentials(Credentials::token("an-api-key"))
    ///     .connect_lazy()?;
    /// let credentials = Credentials::exchange(move || {
    ///     let mut login = LoginClient::new(login.clone());
    ///     async move {
    ///         # let request = trunkline_proto::EchoRequest::default();
    ///         let reply = login.unary(request).await?.into_inner();
    ///         # let reply = (String::from_utf8(reply.payload)?, 300);
    ///         Ok(Token::new(reply.0).expires_in(Duration::from_secs(reply.1)))
    ///     }
    /// });
    /// # let _ = credentials;
    /// # Ok(()) }
    /// ```
    pub fn exchange<F, Fut>(exchange: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Token, Box<dyn StdError + Send + Sync>>> + Send + 'static,
    {
        Self::source(Exchange(exchange))
    }

    /// A source of your own.
    pub fn source(source: impl TokenSource) -> Self {
        Self {
            source: Arc::new(source),
            renewable: true,
            plaintext: false,
            fixed: None,
        }
    }

    /// Whether the token may go over plaintext TCP, where whoever reads the network has it. Default no: such a call fails.
    pub fn allow_plaintext(mut self, yes: bool) -> Self {
        self.plaintext = yes;
        self
    }

    /// # Errors
    ///
    /// A configuration error, if the token is known and no token.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        match &self.fixed {
            Some(token) => header(token)
                .map(|_| ())
                .map_err(|problem| Error::config("credentials", problem)),
            None => Ok(()),
        }
    }
}

struct Fixed(Token);

impl TokenSource for Fixed {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

impl fmt::Debug for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(token)")
    }
}
