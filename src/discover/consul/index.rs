//! Consul's index, the mark of how new an answer is.

/// What the next query waits for.
///
/// The rules are those of Consul's documentation of blocking queries and of its own watcher (`api/watch/plan.go`): an
/// index that goes back means that the servers lost their state, and one that is missing, zero or no number must not
/// make a query that waits for nothing again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Index(Option<u64>);

impl Index {
    /// The index that the next query names: it is answered when there is something newer, or after its wait. `None`: it
    /// is answered at once.
    pub(super) fn wanted(self) -> Option<u64> {
        self.0
    }

    /// An answer with this `X-Consul-Index` header has come.
    pub(super) fn advance(&mut self, header: Option<&str>) {
        let new = header.and_then(|text| text.trim().parse().ok());
        let new = new.unwrap_or(1).max(1);
        self.0 = match self.0 {
            Some(old) if new < old => None,
            _ => Some(new),
        };
    }

    /// Whatever was known may be about another agent's state.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(headers: &[Option<&str>]) -> Option<u64> {
        let mut index = Index::default();
        for header in headers {
            index.advance(*header);
        }
        index.wanted()
    }

    #[test]
    fn it_follows_the_answers() {
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[Some("7")]), Some(7));
        assert_eq!(after(&[Some("7"), Some("7"), Some("19")]), Some(19));
    }

    #[test]
    fn going_back_starts_again() {
        assert_eq!(after(&[Some("127"), Some("12")]), None);
        assert_eq!(after(&[Some("127"), Some("12"), Some("13")]), Some(13));
        let mut index = Index(Some(9));
        index.forget();
        assert_eq!(index.wanted(), None);
    }

    #[test]
    fn what_is_no_index_counts_as_one() {
        for header in [
            None,
            Some("0"),
            Some(""),
            Some("abc"),
            Some("-4"),
            Some("1e9"),
        ] {
            assert_eq!(after(&[header]), Some(1), "{header:?}");
            assert_eq!(after(&[header, header]), Some(1), "{header:?}");
            assert_eq!(after(&[Some("500"), header]), None, "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn the_next_query_never_names_zero(headers in proptest::collection::vec("[0-9a-z-]{0,21}", 0..9)) {
            let mut index = Index::default();
            for header in &headers {
                index.advance(Some(header));
                prop_assert_ne!(index.wanted(), Some(0));
            }
        }
    }
}
