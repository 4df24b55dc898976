//! The rules of retries, one by one: what makes a call idempotent, the limit of one attempt, what a server says about
//! when to retry, what commits a call, and what is told about attempts. Counted at the servers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod client;
mod support;

#[path = "retry_rules/commit.rs"]
mod commit;
#[path = "retry_rules/history.rs"]
mod history;
#[path = "retry_rules/idempotent.rs"]
mod idempotent;
#[path = "retry_rules/per_try.rs"]
mod per_try;
#[path = "retry_rules/previous_attempts.rs"]
mod previous_attempts;
#[path = "retry_rules/pushback.rs"]
mod pushback;

use std::time::Duration;

use trunkline::{CallOptions, Channel, Error, ResponseBody};

use client::calls::raw;
use support::wait::within;

/// How long anything may take that is not a test's subject.
const LIMIT: Duration = Duration::from_secs(5);

/// A raw request of the echo service.
async fn send(channel: &Channel, id: u64) -> Result<http::Response<ResponseBody>, Error> {
    let request = raw(id, CallOptions::new());
    within(LIMIT, "the call", channel.send(request)).await
}
