//! Active health checks: questions to endpoints, beside the calls.
//!
//! One task asks all endpoints of a channel, over their pools' own connections. What comes of it goes to the
//! endpoint's health; what follows from that is decided there.
//!
//! - [`HealthCheck`] is what users set; [`Probe`] is for questions of their own.
//! - `scheduler` is the task: it attends to each endpoint that is connected.
//! - `attend` asks one endpoint, again and again; `watch` is told by it.
//! - `exchange` sends one request over a pool's connection; `wire` has the messages of `grpc.health.v1`.

mod attend;
mod check;
mod exchange;
mod scheduler;
mod watch;
mod wire;

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use crate::address::Address;

pub use check::HealthCheck;
pub(crate) use scheduler::{Means, watch_over};

/// Asks an endpoint in a way of your own whether it is well.
pub trait Probe: Send + Sync + fmt::Debug + 'static {
    /// Asks it. An error says that it is not well; so does no answer within [`HealthCheck::timeout`]. One task polls all
    /// probes of a channel: what blocks its thread holds up all of them.
    ///
    /// # Errors
    ///
    /// What status reports are to show. Without secrets.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when its time is over, or the endpoint loses its connection. It must leave nothing behind.
    fn probe<'a>(&'a self, target: &'a ProbeTarget) -> ProbeFuture<'a>;
}

/// A probe under way.
pub type ProbeFuture<'a> =
    Pin<Box<dyn Future<Output = Result<(), Box<dyn StdError + Send + Sync>>> + Send + 'a>>;

/// The endpoint that is to be asked.
#[derive(Clone, Debug)]
pub struct ProbeTarget {
    address: Address,
    metadata: Arc<BTreeMap<String, String>>,
}

impl ProbeTarget {
    /// Its address.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What is known of it under `key`.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }
}
