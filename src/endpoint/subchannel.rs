//! A connected endpoint. gRPC's word for it.

use std::hash::Hash;
use std::sync::Arc;

use http::uri::{Authority, Scheme};
use xxhash_rust::xxh64::Xxh64;

use crate::balance::Load;
use crate::classify::{Bearing, Outcome};
use crate::health::Rules;
use crate::pool::{Pool, PoolContext, State};
use crate::transport::security::Wanted;

use super::description::Key;
use super::health::{EndpointHealth, Recorded};

/// One endpoint's pool and health. It outlives the sets it is in, and keeps its connections while its key
/// stays known.
#[derive(Debug)]
pub(crate) struct Subchannel {
    /// The same for the same key: see [`identity_of`].
    pub(crate) identity: u64,
    /// The address as text, for errors and logs.
    pub(crate) name: Arc<str>,
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
    /// Nobody on a network reads along.
    pub(crate) private: bool,
    pub(crate) pool: Arc<Pool>,
    pub(crate) health: Arc<EndpointHealth>,
    /// What pickers see of it.
    pub(crate) load: Arc<Load>,
}

impl Subchannel {
    pub(crate) fn start(key: &Key, context: &PoolContext, rules: &Arc<Rules>) -> Arc<Self> {
        let security = context
            .tls
            .security(&key.address, &key.security, &context.tasks);
        let unix = key.unix.as_ref().unwrap_or(&context.unix).clone();
        let unix = match key.peer_pid {
            Some(pid) => unix.peer_pid(pid),
            None => unix,
        };
        Arc::new(Self {
            private: security.scheme() == Scheme::HTTPS || key.address.is_unix(),
            scheme: security.scheme(),
            identity: identity_of(key),
            name: key.address.to_string().into(),
            authority: key.authority.clone(),
            pool: Pool::start(key.address.clone(), &unix, security, context),
            health: EndpointHealth::new(Arc::clone(rules), Arc::clone(&context.flips)),
            load: Arc::default(),
        })
    }

    /// Whether it may soon be ready for the first time.
    pub(crate) fn is_connecting(&self) -> bool {
        match self.pool.state() {
            State::Connecting => true,
            State::Ready => self.health.is_pending(),
            _ => false,
        }
    }

    /// Counts an attempt that ended here, on that connection.
    pub(crate) fn record(&self, outcome: Outcome, connection: u64) {
        self.record_as(outcome, outcome.bearing(), connection);
    }

    /// The same, with what it says about the endpoint, where that is not what it says by itself.
    pub(crate) fn record_as(&self, outcome: Outcome, bearing: Bearing, connection: u64) {
        match self.health.record(outcome, bearing, connection) {
            Recorded::Quietly => {}
            // From here on any byte shows that the peer is alive.
            Recorded::FirstFault | Recorded::Tripped => self.pool.listen(),
            // A peer that is silent, too, has to show that it answers: a new connection is ready once it has. If it is
            // the path that lost a packet too many, that one works.
            Recorded::Unanswered if self.pool.retire_silent() => self.health.excuse(),
            Recorded::Unanswered => {
                self.health.blame();
                self.pool.listen();
            }
            // A peer that failed, and then froze, or was cut off: nobody else would ever find that out.
            Recorded::StillUnanswered => {
                self.pool.retire_silent();
                self.pool.listen();
            }
        }
    }
}

/// A hash of the key: XXH64 of address and authority, so that all clients agree on it, and restarted ones too. Other parts
/// of a key are rare; then it is the same in programs that were built alike.
fn identity_of(key: &Key) -> u64 {
    let mut hasher = Xxh64::new(0);
    hasher.update(key.address.to_string().as_bytes());
    hasher.update(&[0]);
    hasher.update(key.authority.as_str().as_bytes());
    let rest = (&key.security, &key.unix, key.peer_pid);
    if rest != (&Wanted::default(), &None, None) {
        rest.hash(&mut hasher);
    }
    hasher.digest()
}

/// The directory closes the pools of endpoints that leave; this is for those it could not get to because
/// foreign code panicked under it. A pool that nobody closes keeps its connections and dials on.
impl Drop for Subchannel {
    fn drop(&mut self) {
        self.pool.close();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Endpoint;
    use super::*;

    fn identity(endpoint: &Endpoint) -> u64 {
        identity_of(&endpoint.key().unwrap())
    }

    #[test]
    fn identities_are_the_same_in_all_processes_and_versions() {
        let text = b"server1.internal:50051\0server1.internal:50051";
        let server = Endpoint::tcp("server1.internal:50051");
        assert_eq!(identity(&server), xxhash_rust::xxh64::xxh64(text, 0));
        assert_eq!(identity(&server), 11_791_888_516_977_837_357);
        let weighty = server.clone().weight(7).metadata("zone", "eu-1");
        assert_eq!(identity(&weighty), identity(&server));
    }

    #[test]
    fn other_keys_are_others() {
        let socket = Endpoint::unix("/run/app/plugin.sock");
        let all = [
            Endpoint::tcp("a:1"),
            Endpoint::tcp("a:2"),
            Endpoint::tcp("a:1").authority("b"),
            socket.clone(),
            socket.clone().peer_pid(1),
            socket.peer_pid(2),
        ];
        let mut identities = all.each_ref().map(identity).to_vec();
        identities.sort_unstable();
        identities.dedup();
        assert_eq!(identities.len(), all.len());
    }
}
