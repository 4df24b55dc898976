//! Values that nobody is shown.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;

/// A text that appears in no `Debug` output. There is no `Display`: whoever needs the text asks for it by name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Secret(Arc<str>);

impl Secret {
    pub(crate) fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A token behind a scheme, as a header's value that no log of headers shows and no HPACK table keeps.
///
/// # Errors
///
/// What is wrong with it, without showing it.
pub(crate) fn header(scheme: &str, token: &str) -> Result<HeaderValue, &'static str> {
    if token.is_empty() {
        return Err("the token is empty");
    }
    // RFC 6750 allows less; others' tokens are their business, as long as they are no second header.
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the token has a space, a line break or another character that no token has");
    }
    let value = HeaderValue::try_from(format!("{scheme}{token}"));
    let mut value = value.map_err(|_| "the token can't be sent in a header")?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_token_looks_like_is_sent() {
        let value = header("Bearer ", "b1gs33cr3t-0000").unwrap();
        assert_eq!(value.as_bytes(), b"Bearer b1gs33cr3t-0000");
        assert!(!format!("{value:?}").contains("s33cr3t"));
        for bad in ["", "a b", "a\nb", "a\r\nX-Evil: 1", "a\0", "é", "\u{7f}"] {
            assert!(header("", bad).is_err(), "{bad:?}");
        }
    }
}
