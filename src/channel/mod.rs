//! The channel: what users call, and the loop that repeats attempts.
//!
//! - [`Channel`] is the handle; `call` is the attempt loop, `attempt` one try of it.
//! - `first_message` times the attempts, for policies that see latency.
//! - [`ResponseBody`] holds the lease until the response has ended.
//! - [`PinnedChannel`] keeps a sequence of calls on one connection.
//! - [`ChannelStatus`] is a snapshot of everything.

mod attempt;
mod body;
mod call;
mod concurrency;
mod first_message;
mod handle;
mod options;
mod past;
mod pinned;
mod status;
#[cfg(feature = "tower")]
mod tower;

pub use body::ResponseBody;
pub(crate) use concurrency::Concurrency;
pub use concurrency::ConcurrencyLimits;
pub use handle::Channel;
pub(crate) use handle::Parts;
pub(crate) use options::CallDefaults;
pub use options::CallOptions;
pub use pinned::PinnedChannel;
pub use status::{ChannelStats, ChannelStatus, EndpointStatus};
