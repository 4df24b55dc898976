//! What the tests of the crate's behaviour share: the crate as its users meet it. It stands beside `support`, which does
//! not know the crate.
//!
//! | file | role |
//! |---|---|
//! | `calls` | calls through a generated client, and as raw requests |
//! | `came` | what a raw call came to |
//! | `counting` | a dialler that counts writes |
//! | `expected` | all that an error says |
//! | `first`, `pair` | a policy that can be foreseen; two raw peers under it |
//! | `health` | how endpoints stand, and who gets the calls |
//! | `told` | a source of endpoints that the test speaks through |

#![allow(
    dead_code,
    reason = "each integration test compiles these files anew and uses only part of them"
)]
#![allow(
    unreachable_pub,
    reason = "`pub` marks what a test may use; a test crate exports nothing"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the bans are for the crate: here a task belongs to its test, whose leak check sees it"
)]

pub mod calls;
pub mod came;
pub mod counting;
pub mod expected;
pub mod first;
pub mod health;
pub mod pair;
pub mod told;
