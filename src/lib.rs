//! Client-side service connectivity for [tonic]: endpoints, pools of HTTP/2 connections, balancing, retries.

mod address;
pub mod balance;
mod channel;
mod classify;
mod connector;
mod deadline;
mod directory;
mod discover;
mod endpoint;
mod error;
mod lock;
mod pool;
mod retry;
mod task;
mod time;
mod transport;

#[cfg(feature = "__bench")]
#[doc(hidden)]
pub mod bench;

pub use address::{Address, Host, InvalidAddress, TcpAddress, UnixAddress, UnixName};
pub use balance::{Balance, Candidate, Pick, PickRequest, Picker, Policy};
pub use channel::{
    CallOptions, Channel, ChannelStats, ChannelStatus, EndpointStatus, PinnedChannel, ResponseBody,
};
pub use connector::Connector;
pub use discover::{Discover, Resolution, Resolutions};
pub use endpoint::Endpoint;
pub use error::{Delivery, Error, Stage};
pub use pool::{PoolOptions, State};
pub use retry::{Backoff, BudgetLimits, Retry};
pub use transport::connection::{Http2Options, Keepalive};
pub use transport::dial::{BoxIo, Dial, DialError, Dialing, Io, SocketDialer, TcpOptions};
