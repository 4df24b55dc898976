//! The breaker and outlier detection: which calls count, who gets calls then, and how an endpoint comes back.
//!
//! | file | role |
//! |---|---|
//! | `faults` | what counts as a fault, and what does not |
//! | `lateness` | calls that pass their deadline, connections that are lost |
//! | `recovery` | the trial |
//! | `sets` | the last endpoint, panic, what a word is worth, outliers |
//! | `rig` | servers under one channel |

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
#![allow(
    unreachable_pub,
    reason = "`pub` marks what the other modules use; a test crate exports nothing"
)]

mod client;
mod support;

#[path = "health_breaker/faults.rs"]
mod faults;
#[path = "health_breaker/lateness.rs"]
mod lateness;
#[path = "health_breaker/recovery.rs"]
mod recovery;
#[path = "health_breaker/rig.rs"]
mod rig;
#[path = "health_breaker/sets.rs"]
mod sets;
