//! A connected endpoint. gRPC's word for it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::uri::{Authority, Scheme};
use tonic::Code;

use crate::classify::Outcome;
use crate::error::Delivery;
use crate::pool::{Pool, PoolContext};

use super::description::Key;

/// One endpoint's pool and counters. It outlives the sets it is in, and keeps its connections while its key
/// stays known.
#[derive(Debug)]
pub(crate) struct Subchannel {
    /// The same for the same key, in all sets of the process.
    pub(crate) identity: u64,
    /// The address as text, for errors and logs.
    pub(crate) name: Arc<str>,
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
    /// Nobody on a network reads along.
    pub(crate) private: bool,
    pub(crate) pool: Arc<Pool>,
    answered: AtomicU64,
    failed: AtomicU64,
}

impl Subchannel {
    pub(crate) fn start(key: &Key, context: &PoolContext) -> Arc<Self> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
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
            identity: hasher.finish(),
            name: key.address.to_string().into(),
            authority: key.authority.clone(),
            pool: Pool::start(key.address.clone(), &unix, security, context),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    /// Counts an attempt that ended here. Work that never left is not the endpoint's doing.
    pub(crate) fn record(&self, outcome: Outcome) {
        match outcome {
            Outcome {
                delivery: Delivery::Answered,
                ..
            }
            | Outcome { code: Code::Ok, .. } => {
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            Outcome {
                delivery: Delivery::NotSent,
                ..
            } => {}
            Outcome { .. } => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// The directory closes the pools of endpoints that leave; this is for those it could not get to because
/// foreign code panicked under it. A pool that nobody closes keeps its connections and dials on.
impl Drop for Subchannel {
    fn drop(&mut self) {
        self.pool.close();
    }
}
