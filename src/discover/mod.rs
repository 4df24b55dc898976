//! Where endpoints come from.

#[cfg(feature = "consul")]
pub(crate) mod consul;
mod outage;
#[cfg(feature = "tower")]
mod tower;

use std::error::Error as StdError;
use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;

use crate::endpoint::Endpoint;

#[cfg(feature = "consul")]
pub use consul::{Consistency, Consul};
pub(crate) use outage::Empty;
pub use outage::Outage;
#[cfg(feature = "tower")]
pub use tower::TowerDiscover;

/// A source of endpoints: Consul, DNS, a file, a test.
///
/// Each item is a full set, not a change; the channel finds out what changed, and keeps the connections of
/// endpoints that stayed. An error or the end of the stream leaves the last set in use, so a source reports trouble
/// and goes on; it does its own waiting between tries. [`outage`](Self::outage) says what an empty set does.
///
/// The stream is polled by a task of the channel's own, with or without traffic, and is dropped when the
/// channel closes.
pub trait Discover: Send + Debug + 'static {
    /// The source's name in status and errors: `consul://…/payments`. Without secrets.
    fn name(&self) -> String;

    /// Starts to look.
    fn resolutions(self: Box<Self>) -> Resolutions;

    /// How far the source is believed that says that endpoints are gone.
    ///
    /// Default: an answer without endpoints is not believed, every other one is.
    fn outage(&self) -> Outage {
        Outage::keep().guard(1.0)
    }
}

/// The answers of a source.
pub type Resolutions =
    Pin<Box<dyn Stream<Item = Result<Resolution, Box<dyn StdError + Send + Sync>>> + Send>>;

/// One answer: all endpoints there are.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Resolution {
    /// The endpoints. One whose address is wrong, or that stands here twice, is reported and left out; the
    /// others are used.
    pub endpoints: Vec<Endpoint>,
    /// The source's own mark of this answer, for [`ChannelStatus`](crate::ChannelStatus): Consul's index.
    pub revision: Option<String>,
    /// The source is certain that what is missing here is gone, and the [`Outage`] rules have no say: it has moved to
    /// another datacenter.
    pub certain: bool,
    /// Why there are no endpoints, for errors and status: one sentence, without secrets.
    pub note: Option<String>,
    /// What is wrong with the source although it answers, for status: one sentence, without secrets.
    pub warning: Option<String>,
    /// How old the answer is: not 0 if it was stored.
    pub age: Duration,
}

impl Resolution {
    /// An answer with these endpoints, made just now.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self {
            endpoints: endpoints.into_iter().collect(),
            ..Self::default()
        }
    }
}
