//! Whether the settings make sense.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::error::Error;
#[cfg(feature = "__tls")]
use crate::transport::security::Security;

use super::Consul;
use super::token::{self, Token};

const MAX_WAIT: Duration = Duration::from_secs(600);
const MAX_AGE: Duration = Duration::from_secs(366 * 24 * 60 * 60);

impl Consul {
    /// # Errors
    ///
    /// A configuration error that names the first bad field.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let bad =
            |field: &str, problem: &str| Err(Error::config(&format!("consul.{field}"), problem));
        if let Some((field, problem)) = &self.invalid {
            return Err(Error::config(field, problem));
        }
        let service = &self.query.service;
        if service.is_empty() {
            return bad("service", "it is empty; name the service");
        }
        if service.contains('/') || service.contains(char::is_control) {
            return bad("service", "a name has no slash and no control character");
        }
        if service.trim() != service || matches!(service.as_str(), "." | "..") {
            return bad("service", "it is no name of a service");
        }
        let agent = self.address()?;
        let local = agent.as_tcp().is_none_or(|tcp| tcp.is_loopback());
        #[cfg(feature = "__tls")]
        let local = match &self.tls {
            Some(tls) => {
                Security::check_agent(tls, &agent)
                    .map_err(|error| Error::config("consul", error.message()))?;
                true
            }
            None => local,
        };
        self.unix
            .validate()
            .map_err(|(field, problem)| Error::config(&format!("consul.unix.{field}"), problem))?;
        if let Token::Value(token) = &self.token
            && let Err(problem) = token::header(token.expose())
        {
            return bad("token", problem);
        }
        if self.token != Token::None && !local && !self.plaintext_token {
            let problem = "it (or CONSUL_HTTP_TOKEN) would go in plaintext to another machine; ask an agent on this one, \
                or say allow_plaintext_token(true)";
            return bad("token", problem);
        }
        for tag in &self.query.tags {
            if tag.is_empty() {
                return bad("tag", "it is empty; leave it out, or name a tag");
            }
            if tag.contains('`') && tag.contains(['"', '\\']) {
                return bad(
                    "tag",
                    "a tag with both kinds of quotes can't be asked for; use filter",
                );
            }
        }
        let mut seen = BTreeSet::new();
        for name in &self.datacenters {
            let known = |it: char| it.is_ascii_alphanumeric() || it == '-' || it == '_';
            if name.is_empty() || !name.chars().all(known) {
                return bad("datacenter", "a name has letters, digits, - and _ only");
            }
            if !seen.insert(name) {
                return bad("datacenter", "each may be named only once");
            }
        }
        let texts = [
            ("namespace", &self.query.namespace),
            ("near", &self.query.near),
            ("filter", &self.query.filter),
            ("tagged_address", &self.reading.tagged_address),
        ];
        for (field, text) in texts {
            if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
                return bad(field, "it is empty; leave it out, or give it a value");
            }
        }
        if !(Duration::from_secs(1)..=MAX_WAIT).contains(&self.wait) {
            return bad("wait", "must be from 1 s to 10 minutes");
        }
        if self.max_answer_bytes < 1024 {
            return bad("max_answer_bytes", "must be at least 1024");
        }
        if self.cache_max_age.is_zero() || self.cache_max_age > MAX_AGE {
            return bad("cache_max_age", "must be more than 0 and at most a year");
        }
        let token_file = match &self.token {
            Token::File(path) => Some(path),
            _ => None,
        };
        for (field, path) in [("token_file", token_file), ("cache", self.cache.as_ref())] {
            if path.is_some_and(|path| path.as_os_str().is_empty()) {
                return bad(field, "the path is empty; leave it out, or name a file");
            }
        }
        let longest = self.query.path(Some((u64::MAX, self.wait)));
        if let Err(error) = http::Uri::try_from(longest) {
            return bad(
                "filter",
                &format!("service, tags and filter are no URL together: {error}"),
            );
        }
        self.outage.validate("consul.outage")
    }
}
