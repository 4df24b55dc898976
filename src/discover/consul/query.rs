//! What is asked, as the path of a request.

use std::fmt::Write as _;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Consistency;

/// Everything but RFC 3986's unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A question about one service in one datacenter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Query {
    pub(super) service: String,
    pub(super) datacenter: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) near: Option<String>,
    pub(super) filter: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) consistency: Consistency,
}

impl Query {
    /// Path and query string. `waiting` is the index that the answer is to be newer than, and for how long to wait for
    /// such an answer.
    ///
    /// All instances are asked for, critical ones too: what is left out is counted, so that an error can say why nothing
    /// is left.
    pub(super) fn path(&self, waiting: Option<(u64, Duration)>) -> String {
        let mut path = format!("/v1/health/service/{}", escape(&self.service));
        let mut separator = '?';
        let mut push = |name: &str, value: Option<&str>| {
            let _ = write!(path, "{separator}{name}");
            if let Some(value) = value {
                let _ = write!(path, "={}", escape(value));
            }
            separator = '&';
        };
        let named = [
            ("dc", &self.datacenter),
            ("ns", &self.namespace),
            ("near", &self.near),
            ("filter", &self.whole_filter()),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                push(name, Some(value));
            }
        }
        match self.consistency {
            Consistency::Default => {}
            Consistency::Stale => push("stale", None),
            Consistency::Consistent => push("consistent", None),
        }
        if let Some((index, wait)) = waiting {
            push("index", Some(&index.to_string()));
            // In Go's notation. Whole seconds would make half a second the agent's default of five minutes.
            push("wait", Some(&format!("{}ms", wait.as_millis())));
        }
        path
    }

    /// The tags as filters, and the user's own. The parameter `tag` is deprecated in Consul.
    fn whole_filter(&self) -> Option<String> {
        let tags = self.tags.iter();
        let mut parts: Vec<_> = tags
            .map(|tag| format!("{} in Service.Tags", quote(tag)))
            .collect();
        match &self.filter {
            Some(own) if parts.is_empty() => return Some(own.clone()),
            Some(own) => parts.push(format!("({own})")),
            None => {}
        }
        (!parts.is_empty()).then(|| parts.join(" and "))
    }
}

/// A string literal of Consul's filter language, which knows `"…"` and `` `…` ``, and escapes in neither that all of
/// its versions read alike. A tag with both quotes is refused before.
fn quote(text: &str) -> String {
    if text.contains(['"', '\\']) {
        format!("`{text}`")
    } else {
        format!("\"{text}\"")
    }
}

fn escape(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, ESCAPED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> Query {
        Query {
            service: "payments".to_owned(),
            ..Query::default()
        }
    }

    #[test]
    fn only_what_is_set_is_asked() {
        assert_eq!(query().path(None), "/v1/health/service/payments");
        let waiting = query().path(Some((7, Duration::from_millis(500))));
        assert_eq!(waiting, "/v1/health/service/payments?index=7&wait=500ms");
    }

    #[test]
    fn everything_is_escaped() {
        let odd = Query {
            service: "web?tag=v1&x=/../é".to_owned(),
            datacenter: Some("dc1&stale".to_owned()),
            namespace: Some("a b".to_owned()),
            near: Some("_agent".to_owned()),
            filter: Some("Service.Port == 1001".to_owned()),
            tags: Vec::new(),
            consistency: Consistency::Stale,
        };
        assert_eq!(
            odd.path(None),
            "/v1/health/service/web%3Ftag%3Dv1%26x%3D%2F..%2F%C3%A9?dc=dc1%26stale&ns=a%20b&near=_agent\
             &filter=Service.Port%20%3D%3D%201001&stale"
        );
    }

    #[test]
    fn tags_and_filter_are_one_expression() {
        let filter = |tags: &[&str], filter: Option<&str>| {
            let query = Query {
                tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
                filter: filter.map(str::to_owned),
                ..query()
            };
            query.whole_filter()
        };
        assert_eq!(filter(&[], None), None);
        assert_eq!(filter(&[], Some("a or b")).unwrap(), "a or b");
        assert_eq!(filter(&["v2"], None).unwrap(), r#""v2" in Service.Tags"#);
        assert_eq!(
            filter(&["v2", r#"a"b\"#], Some("c or d")).unwrap(),
            r#""v2" in Service.Tags and `a"b\` in Service.Tags and (c or d)"#
        );
    }
}
