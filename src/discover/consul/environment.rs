//! The variables that Consul's own tools read.

use std::ffi::OsString;

use crate::secret::Secret;
#[cfg(feature = "__tls")]
use crate::transport::tls::Tls;

use super::Consul;
use super::token::Token;

/// The environment, of the process or a test.
pub(crate) struct Environment(Box<Lookup>);

/// The value of a variable.
type Lookup = dyn Fn(&str) -> Option<OsString>;

impl Consul {
    /// The same with what was left open taken from the environment.
    pub(crate) fn resolved(mut self, environment: &Environment) -> Self {
        if self.agent.is_none() {
            self = match environment.agent() {
                Some(address) => self.agent(address),
                None => self,
            };
        }
        if let Err(problem) = self.resolve_tls(environment) {
            self.invalid.get_or_insert(("consul.tls", problem));
        }
        if self.token == Token::None {
            self.token = environment.token();
        }
        if self.query.namespace.is_none() {
            self.query.namespace = environment.namespace();
        }
        self
    }

    fn resolve_tls(&mut self, environment: &Environment) -> Result<(), String> {
        #[cfg(feature = "__tls")]
        if self.tls.is_some() {
            return Ok(());
        }
        let encrypted = self.encrypted.map_or_else(|| environment.encrypted(), Ok)?;
        if !encrypted {
            return Ok(());
        }
        #[cfg(feature = "__tls")]
        {
            self.tls = Some(environment.tls()?);
            Ok(())
        }
        #[cfg(not(feature = "__tls"))]
        Err("CONSUL_HTTP_SSL needs the feature tls of this crate".to_owned())
    }
}

impl Environment {
    pub(crate) fn of_process() -> Self {
        Self(Box::new(|name| std::env::var_os(name)))
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
    ///
    /// # Errors
    ///
    /// If the variable says neither yes nor no: plaintext would be a guess.
    pub(super) fn encrypted(&self) -> Result<bool, String> {
        self.switch("CONSUL_HTTP_SSL")
            .map(Option::unwrap_or_default)
    }

    /// With which options. As in Consul's own client (`SetupTLSConfig` in `api/api.go`), but that none of them turns the
    /// verification off.
    ///
    /// # Errors
    ///
    /// What is wrong, and what to do about it.
    #[cfg(feature = "__tls")]
    pub(super) fn tls(&self) -> Result<Tls, String> {
        if self.switch("CONSUL_HTTP_SSL_VERIFY")? == Some(false) {
            let problem = "CONSUL_HTTP_SSL_VERIFY=false would take anybody for the agent, and is refused; name the agent's \
                           authority in CONSUL_CACERT, or set Consul::tls";
            return Err(problem.to_owned());
        }
        let mut tls = Tls::new();
        match (self.get("CONSUL_CACERT"), self.get("CONSUL_CAPATH")) {
            // The file goes first there, too.
            (Some(file), _) => tls = tls.ca_file(file),
            (None, Some(_)) => {
                let problem = "CONSUL_CAPATH is not supported; put the certificates of that directory into one file, and \
                               name it in CONSUL_CACERT";
                return Err(problem.to_owned());
            }
            (None, None) => {}
        }
        match (
            self.get("CONSUL_CLIENT_CERT"),
            self.get("CONSUL_CLIENT_KEY"),
        ) {
            (Some(chain), Some(key)) => tls = tls.identity_files(chain, key),
            (None, None) => {}
            _ => {
                let problem = "of CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY only one is set; set both, or none";
                return Err(problem.to_owned());
            }
        }
        if let Some(name) = self.get("CONSUL_TLS_SERVER_NAME") {
            tls = tls.server_name(name);
        }
        Ok(tls)
    }

    pub(super) fn namespace(&self) -> Option<String> {
        self.get("CONSUL_NAMESPACE")
    }

    /// As Go's `strconv.ParseBool` reads it, which Consul's tools use.
    fn switch(&self, name: &str) -> Result<Option<bool>, String> {
        match self.get(name).as_deref() {
            None => Ok(None),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(_) => Err(format!("{name} must be true or false, or not set")),
        }
    }

    /// One that is empty is not set. One that is no UTF-8 is, and is wrong wherever it is used: it must not count as one
    /// that asks for nothing.
    fn get(&self, name: &str) -> Option<String> {
        let value = (self.0)(name).filter(|value| !value.is_empty());
        value.map(|it| it.to_string_lossy().into_owned())
    }

    #[cfg(test)]
    pub(super) fn made_of(variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), OsString::from(value));
        let variables: std::collections::HashMap<_, _> = variables.iter().map(owned).collect();
        Self(Box::new(move |name| variables.get(name).cloned()))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn what_is_no_text_is_not_taken_for_unset() {
        let environment = Environment(Box::new(|_| Some(OsString::from_vec(vec![b'1', 0xff]))));
        let problem = environment.encrypted().unwrap_err();
        assert!(problem.contains("CONSUL_HTTP_SSL must be"), "{problem}");
        let consul = Consul::service("p").resolved(&environment);
        assert!(consul.validate().unwrap_err().is_config());
    }
}
