//! What calls that belong together have in common.

use std::fmt;

use http::{HeaderMap, HeaderName};
use xxhash_rust::xxh64::{Xxh64, xxh64};

/// A request extension: calls with the same key go to the same endpoint, under
/// [`ConsistentHash`](super::ConsistentHash).
///
/// ```
/// # use trunkline::balance::HashKey;
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(HashKey::new("session 4711"));
/// ```
///
/// Only a hash of what it is made from is kept (XXH64, so that all clients agree), and not shown.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashKey(u64);

impl HashKey {
    /// Of a text or of bytes. A header with this value is the same key.
    #[must_use]
    pub fn new(key: impl AsRef<[u8]>) -> Self {
        Self(xxh64(key.as_ref(), 0))
    }

    /// That of a header; of its values, joined by commas, if it has more than one (gRFC A42).
    pub(super) fn of_header(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut values = headers.get_all(name).iter();
        let first = values.next()?;
        if values.size_hint().1 == Some(0) {
            return Some(Self::new(first));
        }
        let mut hasher = Xxh64::new(0);
        hasher.update(first.as_bytes());
        for value in values {
            hasher.update(b",");
            hasher.update(value.as_bytes());
        }
        Some(Self(hasher.digest()))
    }

    pub(super) fn hash(self) -> u64 {
        self.0
    }
}

impl From<u64> for HashKey {
    fn from(key: u64) -> Self {
        Self::new(key.to_le_bytes())
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_header_is_the_key_of_its_values() {
        let name = HeaderName::from_static("user");
        let mut headers = HeaderMap::new();
        assert_eq!(HashKey::of_header(&headers, &name), None);
        headers.insert("user", HeaderValue::from_static("ann"));
        assert_eq!(
            HashKey::of_header(&headers, &name),
            Some(HashKey::new("ann"))
        );
        headers.append("user", HeaderValue::from_static("bob"));
        headers.append("user", HeaderValue::from_static("cy"));
        assert_eq!(
            HashKey::of_header(&headers, &name),
            Some(HashKey::new("ann,bob,cy"))
        );
    }

    #[test]
    fn numbers_are_hashed_and_nothing_shows() {
        assert_eq!(HashKey::from(7), HashKey::new(7_u64.to_le_bytes()));
        assert_ne!(HashKey::from(7).hash(), 7);
        assert_eq!(format!("{:?}", HashKey::from(7)), "HashKey(..)");
    }
}
