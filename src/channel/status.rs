//! Snapshots for people, tests and dashboards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::balance::Policy as _;
use crate::endpoint::{EndpointSet, Member, Subchannel};
use crate::health::{Fate, Health, HealthStatus};
use crate::pool::State;
use crate::time::Instant;
#[cfg(feature = "__tls")]
use crate::transport::tls::Certificate;

use super::handle::Inner;

/// A channel and its endpoints at one moment. The numbers of different endpoints are read one after the
/// other, so sums may be off by calls that began or ended meanwhile.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChannelStatus {
    /// The state of the whole.
    pub state: State,
    /// The source of the endpoints.
    pub source: String,
    /// The name of the balancing policy.
    pub policy: String,
    /// How long ago discovery confirmed the endpoints in use; `None` before its first answer.
    pub resolution_age: Option<Duration>,
    /// The source's own mark of that answer: Consul's index.
    pub resolution_revision: Option<String>,
    /// What has gone wrong with discovery since then, or is wrong although it answered: a Consul agent's new TLS files can't
    /// be used, say.
    pub discovery_error: Option<String>,
    /// So few endpoints are well that all connected ones get calls: see
    /// [`EjectionLimits::panic_threshold`](crate::EjectionLimits::panic_threshold).
    pub panic: bool,
    /// All known endpoints, in discovery's order.
    pub endpoints: Vec<EndpointStatus>,
}

/// One endpoint at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointStatus {
    /// Its address.
    pub address: String,
    /// Its weight; 0 means drained.
    pub weight: u32,
    /// It is not left out because this channel uses a [`Subset`](crate::Subset) of so many endpoints. One that is has no
    /// connection, and [`state`](Self::state) is [`State::Shutdown`].
    pub in_subset: bool,
    /// Its metadata.
    pub metadata: BTreeMap<String, String>,
    /// Whether discovery's last answer lists it. If not, it stays in use under the source's
    /// [`Outage`](crate::Outage) rules.
    pub listed: bool,
    /// In what time it leaves, if it is not listed; `None` if no end is set.
    pub leaves_in: Option<Duration>,
    /// Whether it gets calls, who decided that, and why.
    pub health: HealthStatus,
    /// What it gets of the calls that are its due by weight and policy: 1 is all of them, 0 none. Less than 1 while it
    /// starts ([`SlowStart`](crate::SlowStart)), or while a source of health has it get less.
    pub share: f64,
    /// How it is connected.
    pub state: State,
    /// For how long it has been in that state.
    pub for_how_long: Duration,
    /// The last thing that went wrong with connecting.
    pub last_error: Option<String>,
    /// Failed dials in a row; 0 once one succeeded.
    pub failed_dials: u32,
    /// Dials that succeeded since the endpoint became known.
    pub connection_attempts_succeeded: u64,
    /// Dials that failed since then.
    pub connection_attempts_failed: u64,
    /// When it is dialled next, from now.
    pub next_dial: Option<Duration>,
    /// Connections that take calls.
    pub connections: usize,
    /// Connections kept in reserve until their idle timeout.
    pub idle_connections: usize,
    /// Connections that only finish their calls.
    pub draining_connections: usize,
    /// Calls on its connections. Health checks are none.
    pub in_flight: usize,
    /// Calls that its connections have room for; a health check under way takes the room of one.
    pub free_streams: usize,
    /// Calls that wait for a stream.
    pub waiting: usize,
    /// The certificate that it showed, on its oldest connection; `None` if that is not encrypted.
    #[cfg(feature = "__tls")]
    pub peer: Option<Certificate>,
    /// The certificate that this side shows to it, if it asks.
    #[cfg(feature = "__tls")]
    pub identity: Option<Certificate>,
    /// Why certificate files that have changed are not in use.
    pub tls_error: Option<String>,
    /// Attempts it answered.
    pub answered: u64,
    /// Attempts that reached it and got no answer.
    pub failed: u64,
}

/// Counts since a channel was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelStats {
    /// Calls begun.
    pub calls: u64,
    /// Calls that ended without an answer.
    pub failed: u64,
    /// Attempts repeated under the retry policy.
    pub retries: u64,
    /// Attempts sent beside others of the same call, under [`Hedge`](crate::Hedge).
    pub hedges: u64,
    /// Those of them that gave the call's response.
    pub hedges_won: u64,
    /// Attempts resent because the endpoint provably had not processed them.
    pub resends: u64,
    /// Times that TLS files that had changed could not be used; [`EndpointStatus::tls_error`] says why.
    pub tls_failures: u64,
    /// Certificates of this side that were warned of because they are about to expire.
    pub tls_expiring: u64,
    /// Certificates of servers that were warned of because of that, while there was a connection to one.
    pub tls_peers_expiring: u64,
}

/// What the attempt loop counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    calls: AtomicU64,
    failed: AtomicU64,
    retries: AtomicU64,
    resends: AtomicU64,
    hedges: AtomicU64,
    hedges_won: AtomicU64,
}

impl Counters {
    pub(super) fn started(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn hedged(&self) {
        self.hedges.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn hedge_won(&self) {
        self.hedges_won.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn resent(&self) {
        self.resends.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> ChannelStats {
        ChannelStats {
            calls: self.calls.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            resends: self.resends.load(Ordering::Relaxed),
            hedges: self.hedges.load(Ordering::Relaxed),
            hedges_won: self.hedges_won.load(Ordering::Relaxed),
            ..ChannelStats::default()
        }
    }
}

impl ChannelStatus {
    pub(super) fn of(inner: &Inner) -> Self {
        let directory = &inner.directory;
        let now = Instant::now();
        let news = directory.news();
        let set = Arc::clone(&directory.set());
        Self {
            state: set.state(),
            source: directory.source.clone(),
            policy: directory.policy.name().to_owned(),
            resolution_age: news
                .answered
                .map(|at| now.saturating_duration_since(at) + news.age),
            resolution_revision: news.revision.map(|revision| revision.to_string()),
            discovery_error: news.error.map(|error| error.to_string()),
            panic: set.admission.panic,
            endpoints: EndpointStatus::of_all(&set, now),
        }
    }
}

impl EndpointStatus {
    fn of_all(set: &EndpointSet, now: Instant) -> Vec<Self> {
        let admission = &set.admission;
        let mut decided = admission.fates.iter().zip(&admission.words);
        let status = |member: &Member| match &member.subchannel {
            None => Self::of_unused(member, now),
            Some(subchannel) => {
                // A set that only says why nothing can be picked decides nothing.
                let (fate, word) = decided.next().unwrap_or((&Fate::Unusable, &None));
                let health = subchannel.health.report(now, *fate, *word);
                Self::of_used(member, subchannel, health, fate.share(), now)
            }
        };
        set.members.iter().map(status).collect()
    }

    fn of_unused(member: &Member, now: Instant) -> Self {
        let weight = member.endpoint.weight_or_default();
        let in_subset = weight == 0;
        Self {
            address: member.endpoint.to_string(),
            weight,
            in_subset,
            metadata: BTreeMap::clone(member.endpoint.facts()),
            listed: member.listed,
            leaves_in: member.until.map(|at| at.saturating_duration_since(now)),
            health: HealthStatus::disconnected(match in_subset {
                true => "its weight is 0",
                false => "it is outside of the subset that this channel uses",
            }),
            share: 0.0,
            state: State::Shutdown,
            for_how_long: Duration::ZERO,
            last_error: None,
            failed_dials: 0,
            connection_attempts_succeeded: 0,
            connection_attempts_failed: 0,
            next_dial: None,
            connections: 0,
            idle_connections: 0,
            draining_connections: 0,
            in_flight: 0,
            free_streams: 0,
            waiting: 0,
            #[cfg(feature = "__tls")]
            peer: None,
            #[cfg(feature = "__tls")]
            identity: None,
            tls_error: None,
            answered: 0,
            failed: 0,
        }
    }

    fn of_used(
        member: &Member,
        subchannel: &Subchannel,
        mut health: HealthStatus,
        share: f64,
        now: Instant,
    ) -> Self {
        let pool = subchannel.pool.status();
        if health.health == Health::Disconnected {
            health = HealthStatus {
                for_how_long: now.saturating_duration_since(pool.since),
                changes_in: pool.next_dial.map(|at| at.saturating_duration_since(now)),
                ..HealthStatus::disconnected(pool.state)
            };
        }
        Self {
            in_subset: true,
            health,
            share,
            state: pool.state,
            for_how_long: now.saturating_duration_since(pool.since),
            last_error: pool.last_error.map(|error| error.to_string()),
            failed_dials: pool.failed_dials,
            connection_attempts_succeeded: pool.dials.0,
            connection_attempts_failed: pool.dials.1,
            next_dial: pool.next_dial.map(|at| at.saturating_duration_since(now)),
            connections: pool.open,
            idle_connections: pool.idle,
            draining_connections: pool.draining,
            in_flight: pool.in_flight,
            free_streams: pool.room,
            waiting: pool.waiting,
            #[cfg(feature = "__tls")]
            peer: pool.peer.certificate.map(Arc::unwrap_or_clone),
            #[cfg(feature = "__tls")]
            identity: pool.identity,
            tls_error: pool.security_trouble.map(|it| it.to_string()),
            answered: subchannel.health.answered(),
            failed: subchannel.health.failed(),
            ..Self::of_unused(member, now)
        }
    }
}
