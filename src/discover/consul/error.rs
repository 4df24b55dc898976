//! Why a query failed.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

use crate::transport::dial::DialError;

/// A failed query. It shows no token.
#[derive(Debug)]
pub(super) enum QueryError {
    Token(String),
    /// The question can't be put in a URL.
    Path(http::uri::InvalidUri),
    Dial(DialError),
    /// By TLS.
    Refused(String),
    Timeout {
        what: &'static str,
        limit: Duration,
    },
    Exchange(hyper::Error),
    /// Another answer than 200, with the beginning of its body.
    Status(StatusCode, String),
    TooLarge {
        limit: usize,
    },
    NotAList(serde_json::Error),
}

/// How much of an error's body is shown, in characters.
const SHOWN: usize = 160;

impl QueryError {
    pub(super) fn token(problem: impl Into<String>) -> Self {
        Self::Token(problem.into())
    }

    /// `body` is what the agent said, `token` what it must not be heard to repeat.
    pub(super) fn status(status: StatusCode, body: &[u8], token: Option<&[u8]>) -> Self {
        let text = String::from_utf8_lossy(body);
        let text = match token.and_then(|token| std::str::from_utf8(token).ok()) {
            Some(token) => text.replace(token, "***"),
            None => text.into_owned(),
        };
        let shown = text.trim().chars().take(SHOWN);
        Self::Status(status, shown.flat_map(char::escape_debug).collect())
    }

    /// The agent understood, and refuses.
    pub(super) fn is_denied(&self) -> bool {
        matches!(self, Self::Status(status, _) if *status == StatusCode::FORBIDDEN)
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(problem) => write!(f, "the ACL token can't be used: {problem}"),
            Self::Path(error) => write!(f, "the query can't be sent: {error}"),
            Self::Dial(error) => {
                write!(f, "the agent can't be reached: {}", error.io_error())
            }
            Self::Refused(problem) => write!(f, "the agent can't be talked to: {problem}"),
            Self::Timeout { what, limit } => write!(f, "{what} took longer than {limit:?}"),
            Self::Exchange(error) => {
                write!(f, "the connection to the agent failed: {error}")?;
                // hyper's own words say what it was doing, its cause what happened.
                match std::error::Error::source(error) {
                    Some(cause) => write!(f, ": {cause}"),
                    None => Ok(()),
                }
            }
            Self::Status(status, said) => {
                write!(f, "the agent answered {}", status.as_u16())?;
                if !said.is_empty() {
                    write!(f, ": {said}")?;
                }
                match status.as_u16() {
                    403 => f.write_str(
                        "; the ACL token is unknown, or lacks service:read or node:read",
                    ),
                    300..=399 => f.write_str("; redirects are not followed, name the agent itself"),
                    _ => Ok(()),
                }
            }
            Self::TooLarge { limit } => {
                write!(
                    f,
                    "the agent's answer has more than {limit} bytes; raise max_answer_bytes if it is right"
                )
            }
            Self::NotAList(error) => {
                write!(f, "the agent's answer is no list of instances: {error}")
            }
        }
    }
}
