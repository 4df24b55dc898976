//! The ACL token, which goes into a header and nowhere else.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use http::HeaderValue;
use tokio::io::AsyncReadExt as _;

use crate::secret::Secret;

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

/// Reads the token's file, never more than once at a time: a read that hangs holds a thread, whoever waits for it.
#[derive(Default)]
pub(super) struct TokenReader(Option<Pin<Box<dyn Future<Output = io::Result<String>> + Send>>>);

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
                let reading = self.0.get_or_insert_with(|| Box::pin(read(path.clone())));
                let Ok(text) = tokio::time::timeout(FILE_LIMIT, reading).await else {
                    return Err(named("reading it takes too long"));
                };
                self.0 = None;
                let text = text.map_err(|error| named(&error.to_string()))?;
                header(text.trim()).map(Some).map_err(named)
            }
        }
    }
}

async fn read(path: PathBuf) -> io::Result<String> {
    // Opening a pipe would wait for its writer.
    if !tokio::fs::metadata(&path).await?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    let file = tokio::fs::File::open(&path).await?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).await?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!(
            "it has more than {MAX_FILE} bytes"
        )));
    }
    Ok(text)
}

/// The token as a header's value, which no log of headers shows.
///
/// # Errors
///
/// What is wrong with it, without showing it.
pub(super) fn header(token: &str) -> Result<HeaderValue, &'static str> {
    if token.is_empty() {
        return Err("the token is empty");
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the token has a space, a line break or another character that no token has");
    }
    let mut value =
        HeaderValue::from_str(token).map_err(|_| "the token can't be sent in a header")?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_token_looks_like_is_sent() {
        let value = header("b1gs33cr3t-0000").unwrap();
        assert_eq!(value.as_bytes(), b"b1gs33cr3t-0000");
        assert!(!format!("{value:?}").contains("s33cr3t"));
        for bad in ["", "a b", "a\nb", "a\r\nX-Evil: 1", "a\0", "é", "\u{7f}"] {
            assert!(header(bad).is_err(), "{bad:?}");
        }
    }
}
