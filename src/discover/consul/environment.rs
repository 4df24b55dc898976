//! The variables that Consul's own tools read.

use crate::secret::Secret;

use super::token::Token;

/// The environment, of the process or a test.
pub(crate) struct Environment(Box<Lookup>);

/// The value of a variable.
type Lookup = dyn Fn(&str) -> Option<String>;

impl Environment {
    pub(crate) fn of_process() -> Self {
        Self(Box::new(|name| std::env::var(name).ok()))
    }

    pub(super) fn agent(&self) -> Option<String> {
        self.get("CONSUL_HTTP_ADDR")
    }

    pub(super) fn token(&self) -> Token {
        // The file goes first, as in Consul's own client.
        if let Some(path) = self.get("CONSUL_HTTP_TOKEN_FILE") {
            return Token::File(path.into());
        }
        let value = self.get("CONSUL_HTTP_TOKEN");
        value.map_or(Token::None, |it| Token::Value(Secret::new(it)))
    }

    /// Whether the agent is asked over TLS.
    #[cfg(feature = "__tls")]
    pub(super) fn tls(&self) -> bool {
        let value = self.get("CONSUL_HTTP_SSL");
        matches!(
            value.as_deref(),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True")
        )
    }

    pub(super) fn namespace(&self) -> Option<String> {
        self.get("CONSUL_NAMESPACE")
    }

    /// One that is empty is not set.
    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    #[cfg(test)]
    pub(super) fn made_of(variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables: std::collections::HashMap<_, _> = variables.iter().map(owned).collect();
        Self(Box::new(move |name| variables.get(name).cloned()))
    }
}
