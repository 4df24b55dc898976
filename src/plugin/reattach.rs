//! Plugins that run already.

use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::error::Error;

use super::parts;

/// What is known of a plugin that runs already: go-plugin's `ReattachConfig`, as debuggers and tests pass it on.
///
/// It has no certificate, and can have none: only the process that started a plugin with `AutoMTLS` has the keys to it.
///
/// ```
/// use trunkline::plugin::Reattach;
///
/// # fn main() -> Result<(), trunkline::Error> {
/// // {"Protocol":"grpc","ProtocolVersion":6,"Pid":4711,"Test":true,"Addr":{"Network":"unix","String":"/tmp/plugin"}}
/// let plugin = Reattach::new("grpc", "unix", "/tmp/plugin", 4711)?
///     .protocol_version(6)
///     .test(true);
/// let endpoint = plugin.endpoint();
/// assert_eq!(endpoint.health_service_name(), Some("plugin"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reattach {
    /// Where it listens.
    pub address: Address,
    /// Its process; 0 if that is not known.
    pub pid: u32,
    /// The version of the application's own protocol; 0 if that is not known.
    pub protocol_version: u32,
    /// Whether it belongs to a test. Such a plugin ends by itself: nobody may kill it.
    pub test: bool,
}

impl Reattach {
    /// A record with these fields: `Protocol`, `Addr.Network`, `Addr.String` and `Pid`.
    ///
    /// # Errors
    ///
    /// A configuration error that names the field, if the protocol is anything but `grpc`, the network is neither `unix` nor
    /// `tcp`, or the address is none of that network's.
    pub fn new(protocol: &str, network: &str, address: &str, pid: u32) -> Result<Self, Error> {
        parts::check_protocol("reattach.protocol", Some(protocol))?;
        Ok(Self {
            address: parts::address("reattach", network, address)?,
            pid,
            protocol_version: 0,
            test: false,
        })
    }

    /// Sets `ProtocolVersion`.
    #[must_use]
    pub fn protocol_version(mut self, version: u32) -> Self {
        self.protocol_version = version;
        self
    }

    /// Sets `Test`.
    #[must_use]
    pub fn test(mut self, yes: bool) -> Self {
        self.test = yes;
        self
    }

    /// The plugin as an endpoint, with the authority and the health service that plugins have, and its process in the
    /// metadata as `plugin.pid`, if that is known. On a Unix socket that process, and no other, must be at the other
    /// end, beside what the channel's [`UnixOptions`](crate::UnixOptions) ask for. It speaks plaintext, unless the channel
    /// has a `Tls`.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        let endpoint = parts::endpoint(self.address.clone());
        match self.pid {
            0 => endpoint,
            pid => endpoint
                .metadata("plugin.pid", pid.to_string())
                .peer_pid(pid),
        }
    }
}
