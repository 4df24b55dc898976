//! The ACL token, which goes into a header and nowhere else.

use std::path::PathBuf;
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

impl Token {
    /// The header of a query.
    ///
    /// # Errors
    ///
    /// If the file can't be read, or what is in it is no token.
    pub(super) async fn header(&self) -> Result<Option<HeaderValue>, QueryError> {
        match self {
            Self::None => Ok(None),
            Self::Value(token) => header(token.expose()).map(Some).map_err(QueryError::token),
            Self::File(path) => {
                let named =
                    |problem: &str| QueryError::token(format!("{}: {problem}", path.display()));
                let read = tokio::time::timeout(FILE_LIMIT, read(path)).await;
                let text = read
                    .map_err(|_| named("reading it took too long"))?
                    .map_err(|error| named(&error.to_string()))?;
                header(text.trim()).map(Some).map_err(named)
            }
        }
    }
}

async fn read(path: &PathBuf) -> std::io::Result<String> {
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(MAX_FILE).read_to_string(&mut text).await?;
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
