//! The connections of one endpoint.
//!
//! [deadpool] owns the connections: it creates them, checks them before reuse, and bounds their number. It
//! lends each one exclusively, and HTTP/2 connections are shared; so this pool takes a connection out for as
//! long as it serves calls, and calls take *stream slots* on it. What calls wait in is one fair semaphore
//! whose permits are the room of all open connections (see [`slots`](crate::transport::connection::slots)):
//! deadpool itself stays off the way of a call.
//!
//! - `connections`: the open connections, and the endpoint's [`State`] that follows from them.
//! - `dialling`: one task at a time that opens connections, with backoff.
//! - `gate`: how many of them open connections at once.
//! - `lease`: the right to one slot.
//! - `room`: the permits.
//! - `upkeep`: sends surplus connections home to deadpool, closes idle ones, replaces old ones.
//! - `manager`: what deadpool calls to create and check a connection.

mod connections;
mod dialling;
mod gate;
mod lease;
mod manager;
mod options;
mod room;
mod state;
mod upkeep;

pub(crate) use connections::{Pool, PoolContext};
pub(crate) use gate::DialGate;
pub(crate) use lease::{Lease, LeaseError};
pub use options::PoolOptions;
pub use state::State;
