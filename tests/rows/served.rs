//! What a rig may have for a server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use trunkline::Endpoint;

use crate::support::frames::setting;
use crate::support::raw_peer::RawPeer;
use crate::support::raw_serve::ServedPeer;
use crate::support::reaction::{Reaction, RequestInfo};
use crate::support::server::EchoServer;

use super::rig::STREAMS;

/// The names of a rig's servers.
pub const NAMES: [&str; 3] = ["a", "b", "c"];

/// A server that counts.
pub trait Served {
    /// Its URI.
    fn place(&self) -> String;

    /// For each call id the number of times it may have been processed, not counting where it was answered with UNAVAILABLE.
    fn handled(&self) -> BTreeMap<u64, u64>;
}

impl Served for EchoServer {
    fn place(&self) -> String {
        self.uri()
    }

    fn handled(&self) -> BTreeMap<u64, u64> {
        self.journal().handled_for_good()
    }
}

impl Served for ServedPeer {
    fn place(&self) -> String {
        self.uri()
    }

    fn handled(&self) -> BTreeMap<u64, u64> {
        self.seen().handled_for_good()
    }
}

/// A server like those of a rig.
pub fn server(name: &str, delay: Duration) -> EchoServer {
    server_aging(name, delay, None)
}

/// One that retires connections at this age.
pub fn server_aging(name: &str, delay: Duration, age: Option<Duration>) -> EchoServer {
    let mut builder = EchoServer::builder(name)
        .delay(delay)
        .max_concurrent_streams(STREAMS as u32);
    if let Some(age) = age {
        builder = builder.max_connection_age(age);
    }
    builder.tcp()
}

/// The servers as endpoints.
pub fn endpoints(servers: &[impl Served]) -> Vec<Endpoint> {
    servers
        .iter()
        .map(|server| Endpoint::uri(server.place()))
        .collect()
}

/// A raw peer that answers by this rule, which is told its number.
pub fn raw_server(
    nth: usize,
    streams: usize,
    react: &Arc<impl Fn(usize, &RequestInfo) -> Reaction + Send + Sync + 'static>,
) -> ServedPeer {
    let react = Arc::clone(react);
    let settings = [(setting::MAX_CONCURRENT_STREAMS, streams as u32)];
    RawPeer::tcp().serve(&settings, move |request| react(nth, request))
}
