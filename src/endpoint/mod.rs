//! Endpoints: what is known of them, how they are connected, and the set that calls pick from.
//!
//! - [`Endpoint`] describes one: address, weight, authority, metadata.
//! - `Subchannel` is a described endpoint that is connected: its pool and its health.
//! - `EndpointSet` is the immutable snapshot that the directory publishes, with its picker.

mod description;
mod health;
mod key;
mod set;
mod subchannel;

pub use description::Endpoint;
pub(crate) use health::{Origin, Trial};
pub(crate) use key::Key;
pub(crate) use set::{Blocked, Choice, EndpointSet, Member};
pub(crate) use subchannel::Subchannel;
