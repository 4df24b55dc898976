//! Discovery through a real Consul agent: what a channel follows, what it refuses, and what it survives.
#![cfg(feature = "consul")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod client;
mod consul;
mod support;

#[path = "consul_discovery/access.rs"]
mod access;
#[path = "consul_discovery/cache.rs"]
mod cache;
#[path = "consul_discovery/datacenters.rs"]
mod datacenters;
#[path = "consul_discovery/following.rs"]
mod following;
#[path = "consul_discovery/outages.rs"]
mod outages;
#[path = "consul_discovery/seen.rs"]
mod seen;
#[path = "consul_discovery/sharing.rs"]
mod sharing;
#[path = "consul_discovery/start.rs"]
mod start;
