//! The ports of one agent.

use std::net::{SocketAddr, UdpSocket};

use crate::support::place::HeldPort;

/// Loopback ports that belong to one agent, running or not. See [`HeldPort`] for how.
///
/// Gossip goes over UDP, too, by the same numbers. These can't be held: they are free when this is made, and if one is
/// not when the agent starts, the agent ends at once.
#[derive(Debug)]
pub struct Ports {
    http: HeldPort,
    server: HeldPort,
    lan: HeldPort,
    wan: HeldPort,
}

impl Ports {
    pub fn new() -> Self {
        Self {
            http: HeldPort::new(),
            server: HeldPort::new(),
            lan: free_for_gossip(),
            wan: free_for_gossip(),
        }
    }

    pub fn http(&self) -> SocketAddr {
        self.http.addr()
    }

    pub fn wan(&self) -> SocketAddr {
        self.wan.addr()
    }

    /// Every port an agent would otherwise take by default, where another agent may be.
    pub fn arguments(&self) -> Vec<String> {
        let port = |name: &str, port: &HeldPort| format!("-{name}-port={}", port.addr().port());
        vec![
            port("http", &self.http),
            port("server", &self.server),
            port("serf-lan", &self.lan),
            port("serf-wan", &self.wan),
            "-dns-port=-1".to_owned(),
            "-grpc-port=-1".to_owned(),
        ]
    }
}

fn free_for_gossip() -> HeldPort {
    loop {
        let port = HeldPort::new();
        if UdpSocket::bind(port.addr()).is_ok() {
            return port;
        }
    }
}
