//! The ACL token, which goes into a header and nowhere else.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;

use crate::secret::{self, Secret};
use crate::small_file::Reader;

use super::error::QueryError;

/// Where the token comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Token {
    #[default]
    None,
    Value(Secret),
    /// Read anew for each query, so that it can be rotated.
    File(PathBuf),
}

/// The longest token file. Consul's tokens have 36 characters, but others put their own there.
const MAX_FILE: u64 = 8 * 1024;
/// How long a file may take; it may lie on a network.
const FILE_LIMIT: Duration = Duration::from_secs(5);

/// Reads the token's file.
#[derive(Default)]
pub(super) struct TokenReader(Reader);

impl TokenReader {
    /// The header of a query.
    ///
    /// # Errors
    ///
    /// If the file can't be read, or what is in it is no token.
    pub(super) async fn header(
        &mut self,
        token: &Token,
    ) -> Result<Option<HeaderValue>, QueryError> {
        match token {
            Token::None => Ok(None),
            Token::Value(token) => header(token.expose()).map(Some).map_err(QueryError::token),
            Token::File(path) => {
                let named =
                    |problem: &str| QueryError::token(format!("{}: {problem}", path.display()));
                let reading = self.0.read(path, MAX_FILE);
                let Ok(text) = tokio::time::timeout(FILE_LIMIT, reading).await else {
                    return Err(named("reading it takes too long"));
                };
                let text = text.map_err(|error| named(&error.to_string()))?;
                header(text.trim()).map(Some).map_err(named)
            }
        }
    }
}

/// The token as a header's value.
///
/// # Errors
///
/// What is wrong with it, without showing it.
pub(super) fn header(token: &str) -> Result<HeaderValue, &'static str> {
    secret::header("", token)
}
