//! From settings to a channel.

mod builder;
mod connect;
mod health;

pub use builder::Connector;
