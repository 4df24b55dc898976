//! From settings to a channel.

mod builder;
mod connect;

pub use builder::Connector;
