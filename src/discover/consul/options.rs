//! What users say about a service in Consul.

use std::path::PathBuf;
use std::time::Duration;

use crate::address::{Address, InvalidAddress};
use crate::discover::{Discover, Outage, Resolutions};
use crate::error::Error;
use crate::secret::Secret;
use crate::transport::dial::UnixOptions;
#[cfg(feature = "__tls")]
use crate::transport::tls::Tls;

use super::cache::Cache;
use super::datacenters::Datacenters;
use super::environment::Environment;
use super::guard::Guard;
use super::instance::Reading;
use super::query::Query;
use super::token::Token;
use super::watch::Terms;

/// A service in [Consul](https://developer.hashicorp.com/consul), as a source of endpoints.
///
/// ```no_run
/// use trunkline::{Connector, Consul};
///
/// # async fn connect() -> Result<(), trunkline::Error> {
/// let channel = Connector::consul("payments").connect().await?;
/// let channel = Connector::consul(
///     Consul::service("payments").tag("v2").datacenter("dc1").token_file("/run/secrets/consul"),
/// )
/// .connect()
/// .await?;
/// # Ok(())
/// # }
/// ```
///
/// The agent is followed with blocking queries: a change is seen milliseconds after Consul knows it, with or without
/// traffic. In the long run there is at most one query per second, after five at once. All channels of a process that ask
/// for the same, of the same agent and with the same settings, share one watch; one of them asks, and the next one when
/// that is gone.
///
/// **Which instances get calls.** Those whose checks pass, with the service's weight for it, and those with a warning, with
/// the weight for that (see [`passing_only`](Self::passing_only)). Critical ones get none. Those in maintenance are listed
/// with weight 0, so their running calls finish. An instance's metadata becomes its endpoint's, beside `consul.id`,
/// `consul.node`, `consul.datacenter` and `consul.tags`.
///
/// **When Consul has a bad day**, what was found last stays in use: for as long as the agent can't be reached, answers
/// nonsense or denies access, and by the rules of [`outage`](Self::outage) when it says that most endpoints or all are gone.
/// Failed queries are repeated with jittered backoff, up to 60 s, and up to 1 s while there is nothing to serve from.
///
/// What is not set here comes from the variables that Consul's own tools read, at the moment of `connect`:
/// `CONSUL_HTTP_ADDR`, `CONSUL_HTTP_SSL`, `CONSUL_HTTP_TOKEN`, `CONSUL_HTTP_TOKEN_FILE` and `CONSUL_NAMESPACE`; and where the
/// agent is asked over TLS without options of [its own](Self::tls), `CONSUL_CACERT`, `CONSUL_CLIENT_CERT`,
/// `CONSUL_CLIENT_KEY` and `CONSUL_TLS_SERVER_NAME`. `CONSUL_HTTP_SSL_VERIFY=false` and `CONSUL_CAPATH` are refused then.
/// Other variables, those of proxies too, have no effect.
///
/// The setters take any value; the connector's `connect` checks them and names the field. The token is never shown.
#[derive(Clone, Debug)]
#[must_use]
pub struct Consul {
    pub(super) query: Query,
    pub(super) datacenters: Vec<String>,
    pub(super) agent: Option<Result<Address, InvalidAddress>>,
    #[cfg(feature = "__tls")]
    pub(super) tls: Option<Tls>,
    /// Whether TLS is used where there are no options for it; `None` leaves it to the environment.
    pub(super) encrypted: Option<bool>,
    pub(super) unix: UnixOptions,
    pub(super) token: Token,
    pub(super) plaintext_token: bool,
    pub(super) reading: Reading,
    pub(super) wait: Duration,
    pub(super) max_answer_bytes: usize,
    pub(super) outage: Outage,
    pub(super) cache: Option<PathBuf>,
    pub(super) cache_max_age: Duration,
    /// What was wrong with the text that it was made from, or with the environment: the field and the problem.
    pub(super) invalid: Option<(&'static str, String)>,
}

/// Which of Consul's servers may answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Consistency {
    /// The leader, which in rare cases has just been replaced.
    #[default]
    Default,
    /// Any server, also while there is no leader. Usually no more than 50 ms behind, and without limit in bad times. An
    /// answer from which much is missing is confirmed by the leader before it is used.
    Stale,
    /// The leader, after it has asked the others whether it still is: one more round trip.
    Consistent,
}

/// Where an agent listens that was not configured.
const DEFAULT_AGENT: &str = "127.0.0.1:8500";

impl Consul {
    /// The instances of this service.
    pub fn service(name: impl Into<String>) -> Self {
        Self {
            query: Query {
                service: name.into(),
                ..Query::default()
            },
            datacenters: Vec::new(),
            agent: None,
            #[cfg(feature = "__tls")]
            tls: None,
            encrypted: None,
            unix: UnixOptions::new(),
            token: Token::None,
            plaintext_token: false,
            reading: Reading::default(),
            wait: Duration::from_secs(60),
            max_answer_bytes: 12 * 1024 * 1024,
            outage: Outage::drain(),
            cache: None,
            cache_max_age: Duration::from_secs(24 * 60 * 60),
            invalid: None,
        }
    }

    /// The agent to ask: `host:port`, `http://host:port`, `https://host:port` or `unix:/path`. Default
    /// `CONSUL_HTTP_ADDR`, else `127.0.0.1:8500`.
    ///
    /// `https` is [`tls`](Self::tls) with what the environment says of it, unless that is set. `http` does not turn TLS off
    /// where something else asks for it.
    pub fn agent(mut self, address: impl AsRef<str>) -> Self {
        #[cfg(feature = "__tls")]
        if let Some(address) = Address::parse_https(address.as_ref()) {
            self.agent = Some(address);
            self.encrypted = Some(true);
            return self;
        }
        // Not kept as text, which might have a password in it.
        self.agent = Some(Address::parse(address.as_ref()));
        self
    }

    /// Talks to the agent over TLS, with these options and no others: the environment adds nothing to them. Default: no TLS,
    /// unless the agent's address is `https` or `CONSUL_HTTP_SSL` is true; then what `CONSUL_CACERT`, `CONSUL_CLIENT_CERT`,
    /// `CONSUL_CLIENT_KEY` and `CONSUL_TLS_SERVER_NAME` say. It says nothing about the connections to the service's
    /// instances: `Connector::tls` does.
    #[cfg(feature = "__tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// What must be true of the agent's Unix socket, looked at whenever it is dialled. Default: nothing is checked. Without
    /// effect on an agent that is reached over TCP, and on the service's instances: `Connector::unix_options` is for those.
    pub fn unix_options(mut self, options: UnixOptions) -> Self {
        self.unix = options;
        self
    }

    /// The ACL token. It is sent in the header `X-Consul-Token` and stands nowhere else. Default what is in the file that
    /// `CONSUL_HTTP_TOKEN_FILE` names, else `CONSUL_HTTP_TOKEN`, else none.
    ///
    /// A token may go over plaintext to this machine and through Unix sockets only; see
    /// [`allow_plaintext_token`](Self::allow_plaintext_token).
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Token::Value(Secret::new(token.into()));
        self
    }

    /// The file that has the ACL token, of at most 8 KiB. It is read for each query, so that the token can be replaced.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token = Token::File(path.into());
        self
    }

    /// Whether the token may be sent in plaintext to an agent on another machine. Default no: an agent belongs on the
    /// same machine, and whoever reads the network would have the token.
    pub fn allow_plaintext_token(mut self, yes: bool) -> Self {
        self.plaintext_token = yes;
        self
    }

    /// A tag that instances must have. Given several times, they must have all of them.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.query.tags.push(tag.into());
        self
    }

    /// An expression of Consul's [filter language](https://developer.hashicorp.com/consul/api-docs/features/filtering)
    /// that instances must fulfil: `Service.Meta.version == "2"`.
    pub fn filter(mut self, expression: impl Into<String>) -> Self {
        self.query.filter = Some(expression.into());
        self
    }

    /// The datacenter. Default: the agent's own. Given several times, they are an order: the second is used while no
    /// instance of the first may get calls, and so on; also if the first says nothing for a second at the start.
    pub fn datacenter(mut self, name: impl Into<String>) -> Self {
        self.datacenters.push(name.into());
        self
    }

    /// The namespace (Consul Enterprise). Default `CONSUL_NAMESPACE`, else the token's.
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.query.namespace = Some(name.into());
        self
    }

    /// The node from which distances are counted: the answer is in the order of the round trip time from there.
    /// `_agent` is the agent's own. It makes the agent's work harder: it can't answer from its stream of changes.
    pub fn near(mut self, node: impl Into<String>) -> Self {
        self.query.near = Some(node.into());
        self
    }

    /// Whether instances with a warning get no calls. Default no: they get calls by the service's weight for warnings.
    pub fn passing_only(mut self, yes: bool) -> Self {
        self.reading.passing_only = yes;
        self
    }

    /// Which servers may answer. Default [`Consistency::Default`].
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.query.consistency = consistency;
        self
    }

    /// The name of the address to use, where an instance or its node has one of that name: `wan` from another network.
    pub fn tagged_address(mut self, name: impl Into<String>) -> Self {
        self.reading.tagged_address = Some(name.into());
        self
    }

    /// Whether an instance that was registered with a Unix socket (Consul 1.11) is reached through it. Default no: the path
    /// means something on the instance's own machine only, and whoever may register services could name any socket there.
    pub fn socket_paths(mut self, yes: bool) -> Self {
        self.reading.socket_paths = yes;
        self
    }

    /// How long a query waits for a change. Default 60 s; from 1 s to Consul's limit of 10 minutes. A change is seen at
    /// once whatever this is: it only bounds how long the loss of the servers' state may go unnoticed.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// The largest answer that is read. Default 12 MiB, some eight thousand instances; at least 1 KiB.
    pub fn max_answer_bytes(mut self, bytes: usize) -> Self {
        self.max_answer_bytes = bytes;
        self
    }

    /// How far an answer is believed that lacks most endpoints or all. Default [`Outage::drain`].
    pub fn outage(mut self, rules: Outage) -> Self {
        self.outage = rules;
        self
    }

    /// A file for the last good answer. A process that starts while the agent can't be reached begins with it. It is
    /// replaced as a whole; with several [datacenters](Self::datacenter) there is one for each, with its name appended.
    /// Default none.
    pub fn cache(mut self, path: impl Into<PathBuf>) -> Self {
        self.cache = Some(path.into());
        self
    }

    /// How old that file may be. Default one day; more than 0, at most a year.
    pub fn cache_max_age(mut self, age: Duration) -> Self {
        self.cache_max_age = age;
        self
    }

    /// Whether TLS is used where nothing else is said of it.
    pub(super) fn encrypted(mut self, yes: bool) -> Self {
        self.encrypted = Some(yes);
        self
    }

    pub(super) fn address(&self) -> Result<Address, Error> {
        let address = match &self.agent {
            Some(address) => address.clone(),
            None => Address::parse(DEFAULT_AGENT),
        };
        address
            .map_err(|problem| Error::config("consul.agent", problem.to_string()).because(problem))
    }

    fn terms(&self) -> Result<Vec<Terms>, Error> {
        self.validate()?;
        let agent = self.address()?;
        let several = self.datacenters.len() > 1;
        let mut datacenters: Vec<_> = self.datacenters.iter().cloned().map(Some).collect();
        if datacenters.is_empty() {
            datacenters.push(None);
        }
        let terms = datacenters.into_iter().map(|datacenter| {
            let cache = self.cache.as_ref().map(|path| {
                let mut path = path.clone().into_os_string();
                if let Some(name) = datacenter.as_ref().filter(|_| several) {
                    path.push(".");
                    path.push(name);
                }
                path
            });
            let query = Query {
                datacenter,
                ..self.query.clone()
            };
            Terms {
                agent: agent.clone(),
                cache: cache.map(|path| Cache {
                    path: path.into(),
                    max_age: self.cache_max_age,
                    subject: format!("{agent}{}", query.path(None)),
                }),
                query,
                token: self.token.clone(),
                #[cfg(feature = "__tls")]
                tls: self.tls.clone(),
                unix: self.unix.clone(),
                wait: self.wait,
                max_answer_bytes: self.max_answer_bytes,
                guard: Guard::new(self.outage.guard),
            }
        });
        Ok(terms.collect())
    }
}

impl<T: Into<String>> From<T> for Consul {
    fn from(service: T) -> Self {
        Self::service(service)
    }
}

impl Discover for Consul {
    fn name(&self) -> String {
        let agent = match self.clone().resolved(&Environment::of_process()).address() {
            Ok(address) => address.to_string(),
            Err(_) => "(invalid agent)".to_owned(),
        };
        format!("consul://{agent}/{}", self.query.service)
    }

    /// Ends after one error if a setting is wrong.
    fn resolutions(self: Box<Self>) -> Resolutions {
        let resolved = self.resolved(&Environment::of_process());
        match resolved.terms() {
            Ok(terms) => Box::pin(Datacenters::new(terms, resolved.reading)),
            Err(error) => Box::pin(futures_util::stream::iter([Err(error.into())])),
        }
    }

    fn outage(&self) -> Outage {
        self.outage
    }
}
