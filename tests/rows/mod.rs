//! What the rows of the score card share: the channels under test, the calls of the load, and where faults are
//! made or seen from inside the client.
//!
//! | file | role |
//! |---|---|
//! | `rig` | three servers, two channels over them, the load on both, and the row's line at the end |
//! | `policies` | the policies, and two channels under each of them |
//! | `passing` | under each of them, whether calls pass a slow endpoint by |
//! | `shares` | when an endpoint loses its share |
//! | `apart` | a part of a test in a process of its own |
//! | `calls` | one call with a nonce, and what counts as a wrong answer |
//! | `served` | what a rig may have for a server: real ones, and raw peers |
//! | `side` | one of a rig's channels |
//! | `process` | servers in processes of their own |
//! | `netns` | a network of their own, in which packets can be lost |
//! | `timings` | how long the servers took, each for itself |
//! | `beside` | whether endpoints suffer beside a slow one |
//! | `budget` | how much load retries add |
//! | `cpu` | processor time |
//! | `dials` | a dialler that notes each dial |
//! | `source` | endpoints that the test changes |
//! | `switch` | when a raw peer's fault strikes |
//! | `stall` | listeners that never get a client connected |
//! | `flips` | how often an endpoint comes and goes |
//! | `ends` | how calls ended, as their callers saw it |
//! | `warnings` | what the log warns of |
//! | `memory` | how much of it the process uses |
//! | `panics` | panics of the whole process, counted |
//!
//! A row takes `TRUNKLINE_ROW_SECONDS` (default 6): its fault lasts from one third of that time to two thirds. From
//! 60 s on, limits on times are the score card's own; in shorter runs, which share a busy machine with others, they are
//! far longer and only show that nothing hangs.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "as in `support`: each test compiles this anew and uses a part of it"
)]

pub mod apart;
pub mod beside;
pub mod budget;
pub mod calls;
pub mod cpu;
pub mod dials;
pub mod ends;
pub mod flips;
pub mod memory;
pub mod netns;
pub mod panics;
pub mod passing;
pub mod policies;
pub mod process;
pub mod rig;
pub mod served;
pub mod shares;
pub mod side;
pub mod source;
pub mod stall;
pub mod switch;
pub mod timings;
pub mod warnings;

use std::time::Duration;

/// How long the load of a row lasts.
pub fn duration() -> Duration {
    Duration::from_secs(number("TRUNKLINE_ROW_SECONDS", 6))
}

/// Whether this run is long enough for the score card's own limits.
pub fn is_strict() -> bool {
    duration() >= Duration::from_secs(60)
}

/// A limit of the score card on a time, as this run asserts it.
pub fn limit(limit: Duration) -> Duration {
    if is_strict() {
        limit
    } else {
        Duration::from_secs(1).max(limit * 10)
    }
}

/// A number from the environment.
pub fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect("the variable holds a number"),
        Err(_) => default,
    }
}
