//! A connected endpoint. gRPC's word for it.

use std::sync::Arc;

use http::uri::{Authority, Scheme};

use crate::balance::Load;
use crate::classify::{Bearing, Outcome};
use crate::health::{Rules, Standing};
use crate::pool::{Pool, PoolContext, State};
use crate::time::Instant;

use super::Key;
use super::health::{EndpointHealth, Origin, Recorded};

/// One endpoint's pool and health. It outlives the sets it is in, and keeps its connections while its key
/// stays known.
#[derive(Debug)]
pub(crate) struct Subchannel {
    /// The same for the same key: see [`Key::identity`].
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
    /// Its pool does not dial yet.
    pub(crate) fn new(key: &Key, context: &PoolContext, rules: &Arc<Rules>) -> Arc<Self> {
        let address = key.address();
        let security = context
            .tls
            .security(address, key.security(), &context.tasks);
        let unix = key.unix().unwrap_or(&context.unix).clone();
        let unix = match key.peer_pid() {
            Some(pid) => unix.peer_pid(pid),
            None => unix,
        };
        Arc::new(Self {
            private: security.scheme() == Scheme::HTTPS || address.is_unix(),
            scheme: security.scheme(),
            identity: key.identity(),
            name: address.to_string().into(),
            authority: key.authority(),
            pool: Pool::new(address.clone(), &unix, security, context),
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

    /// What is said of it.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        let state = self.pool.state();
        let connected = matches!(state, State::Ready | State::Idle);
        let failing = state == State::TransientFailure;
        if failing {
            self.load.forget_reports();
        }
        let standing = Standing {
            failing,
            ..self.health.standing(now, connected)
        };
        match state {
            // Nobody can be asked there, so that probes would keep it from the call that gets it a connection for ever.
            // That call waits for it, and then for what the probes say.
            State::Idle => standing.without_probes(),
            _ => standing,
        }
    }

    /// Whether it can't be connected to, or something speaks against it.
    pub(crate) fn is_down(&self, now: Instant) -> bool {
        match self.pool.state() {
            State::TransientFailure | State::Shutdown => true,
            State::Connecting => false,
            State::Idle | State::Ready => {
                let standing = self.standing(now);
                standing.ill || standing.ejected.is_some()
            }
        }
    }

    /// Counts an attempt that ended here.
    pub(crate) fn record(&self, outcome: Outcome, origin: Origin) {
        self.record_as(outcome, outcome.bearing(), origin);
    }

    /// The same, with what it says about the endpoint, where that is not what it says by itself.
    pub(crate) fn record_as(&self, outcome: Outcome, bearing: Bearing, origin: Origin) {
        match self.health.record(outcome, bearing, origin) {
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

/// The directory closes the pools of endpoints that leave; this is for those it could not get to because
/// foreign code panicked under it. A pool that nobody closes keeps its connections and dials on.
impl Drop for Subchannel {
    fn drop(&mut self) {
        self.pool.close();
    }
}
