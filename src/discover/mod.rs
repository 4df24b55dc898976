//! Where endpoints come from.

mod fixed;

use std::error::Error as StdError;
use std::fmt::Debug;
use std::pin::Pin;

use futures_core::Stream;

use crate::endpoint::Endpoint;

pub(crate) use fixed::Fixed;

/// A source of endpoints: Consul, DNS, a file, a test.
///
/// Each item is a full set, not a change; the channel finds out what changed, and keeps the connections of
/// endpoints that stayed. An error, an empty set or the end of the stream leaves the last set in use, so a
/// source reports trouble and goes on; it does its own waiting between tries.
///
/// The stream is polled by a task of the channel's own, with or without traffic, and is dropped when the
/// channel closes.
pub trait Discover: Send + Debug + 'static {
    /// The source's name in status and errors: `consul://…/payments`. Without secrets.
    fn name(&self) -> String;

    /// Starts to look.
    fn resolutions(self: Box<Self>) -> Resolutions;
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
}

impl Resolution {
    /// An answer with these endpoints.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self {
            endpoints: endpoints.into_iter().collect(),
        }
    }
}
