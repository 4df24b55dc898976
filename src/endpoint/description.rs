//! What is known of an endpoint.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use crate::address::{Address, InvalidAddress};
use crate::balance::PRIORITY;
use crate::transport::dial::UnixOptions;
use crate::transport::security::Wanted;

/// One server: its address, and what calls need to know about it.
///
/// ```
/// use trunkline::Endpoint;
///
/// let endpoints = [
///     Endpoint::tcp("server1.internal:50051").weight(3),
///     Endpoint::uri("http://[::1]:50051"),
///     Endpoint::unix("/run/app/plugin.sock").metadata("zone", "local"),
/// ];
/// ```
///
/// A wrong address is reported where the endpoint is used: by the connector's `connect`, or as one
/// rejected entry of a discovery answer. Parse an [`Address`] first to learn of it earlier.
///
/// A clone shares the description with the original.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Arc<Description>);

/// Kept once, however many sets, sources and snapshots have it: there may be tens of thousands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) address: Result<Address, InvalidAddress>,
    weight: Option<u32>,
    pub(super) authority: Option<Box<str>>,
    metadata: Arc<BTreeMap<String, String>>,
    pub(super) security: Wanted,
    health_service: Option<Box<str>>,
    pub(super) unix: Option<Box<UnixOptions>>,
    pub(super) peer_pid: Option<u32>,
}

/// The metadata of endpoints that have none.
static NO_FACTS: LazyLock<Arc<BTreeMap<String, String>>> = LazyLock::new(Arc::default);

impl Endpoint {
    /// A TCP server: `host:port`, with a name, an IPv4 address or an IPv6 address in brackets. Names are
    /// resolved at each dial.
    #[must_use]
    pub fn tcp(address: impl AsRef<str>) -> Self {
        Self::new(Address::tcp(address.as_ref()))
    }

    /// A server on a Unix socket: an absolute path, or on Linux `@` and an abstract name.
    #[must_use]
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::new(Address::unix(path))
    }

    /// Any form that [`Address`] parses: `http://host:port`, `tcp://host:port`, `unix:/path`, `host:port`; or
    /// `https://host:port` (443 unless given), which is encrypted: with the channel's `Tls`, or with its defaults if
    /// the channel has none.
    #[must_use]
    pub fn uri(text: impl AsRef<str>) -> Self {
        #[cfg(feature = "__tls")]
        if let Some(address) = Address::parse_https(text.as_ref()) {
            let mut endpoint = Self::new(address);
            endpoint.description().security = Wanted::Encrypted;
            return endpoint;
        }
        Self::new(Address::parse(text.as_ref()))
    }

    fn new(address: Result<Address, InvalidAddress>) -> Self {
        Self(Arc::new(Description {
            address,
            weight: None,
            authority: None,
            metadata: Arc::clone(&NO_FACTS),
            security: Wanted::default(),
            health_service: None,
            unix: None,
            peer_pid: None,
        }))
    }

    /// To be changed: its own from here on.
    fn description(&mut self) -> &mut Description {
        Arc::make_mut(&mut self.0)
    }

    pub(super) fn described(&self) -> &Description {
        &self.0
    }

    /// Its share of the calls, relative to the other weights. Default 1. 0 drains it: its running calls
    /// finish, and it gets no new ones.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.description().weight = Some(weight);
        self
    }

    /// Encrypts its connections with these options, whatever the channel's are.
    #[cfg(feature = "__tls")]
    #[must_use]
    pub fn tls(mut self, tls: crate::transport::tls::Tls) -> Self {
        self.description().security = Wanted::Own(tls);
        self
    }

    /// The process that must be at the other end of its Unix socket, beside whatever the [options](UnixOptions) in force
    /// ask for. Without effect on TCP servers.
    #[must_use]
    pub fn peer_pid(mut self, pid: u32) -> Self {
        self.description().peer_pid = Some(pid);
        self
    }

    /// What must be true of its Unix socket, whatever the [channel's options](crate::Connector::unix_options) are. Without
    /// effect on a TCP server.
    #[must_use]
    pub fn unix_options(mut self, options: UnixOptions) -> Self {
        self.description().unix = Some(Box::new(options));
        self
    }

    /// The `:authority` of requests to it. Default: `host:port`, or `localhost` for Unix sockets.
    #[must_use]
    pub fn authority(mut self, authority: impl Into<String>) -> Self {
        self.description().authority = Some(authority.into().into());
        self
    }

    /// A fact about it, for policies and status: `zone`, `version`, ….
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.description().metadata).insert(key.into(), value.into());
        self
    }

    /// Its tier, for [`Tiers::by_priority`](crate::balance::Tiers::by_priority): 0 is the first one, and the default. It is
    /// the same as the metadata `priority`.
    #[must_use]
    pub fn priority(self, priority: u32) -> Self {
        self.metadata(PRIORITY, priority.to_string())
    }

    /// The service that health checks of this endpoint ask for (`grpc.health.v1`). Default: none of its own.
    ///
    /// It tells no endpoints apart: a new name replaces the old one, and connections stay.
    #[must_use]
    pub fn health_service(mut self, name: impl Into<String>) -> Self {
        self.description().health_service = Some(name.into().into());
        self
    }

    /// The name that was given to [`health_service`](Self::health_service).
    #[must_use]
    pub fn health_service_name(&self) -> Option<&str> {
        self.0.health_service.as_deref()
    }

    /// Its address.
    ///
    /// # Errors
    ///
    /// If the text it was made from is not one.
    pub fn address(&self) -> Result<&Address, &InvalidAddress> {
        self.0.address.as_ref()
    }

    pub(crate) fn facts(&self) -> &Arc<BTreeMap<String, String>> {
        &self.0.metadata
    }

    pub(crate) fn weight_or_default(&self) -> u32 {
        self.0.weight.unwrap_or(1)
    }

    pub(crate) fn has_weight(&self) -> bool {
        self.0.weight.is_some()
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::tcp(address.to_string())
    }
}

impl From<Address> for Endpoint {
    fn from(address: Address) -> Self {
        Self::new(Ok(address))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.address {
            Ok(address) => address.fmt(f),
            Err(_) => f.write_str("(invalid address)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_health_checks_ask_for_makes_no_other_endpoint() {
        let plain = Endpoint::unix("/run/app/plugin.sock");
        assert_eq!(plain.health_service_name(), None);
        let named = plain.clone().health_service("plugin");
        assert_eq!(named.health_service_name(), Some("plugin"));
        assert_ne!(plain, named);
        assert_eq!(plain.key().unwrap(), named.key().unwrap());
    }
}
