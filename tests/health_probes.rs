//! Health checks: what servers and their health services do, and which endpoints get calls then.
//!
//! | file | role |
//! |---|---|
//! | `real` | tonic-health's service: calls follow what it says |
//! | `grpcio` | the same with a server that shares no code with the crate |
//! | `trouble` | health services that are missing, stuck, dying, forbidden or restless |
//! | `kinds` | probes over HTTP, over TCP and of one's own |
//! | `streams` | what a health check costs, and how it ends |
//! | `load` | that a question which stays open is no call |
//! | `rhythm` | how often endpoints are asked, how many answers it takes, and by how many tasks |
//! | `sets` | the first answer, discovery, panic, and what a word is worth |
//! | `clinic`, `rig` | health services that count; servers with them, under one channel |

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
mod foreign;
mod support;

#[path = "health_probes/clinic.rs"]
mod clinic;
#[path = "health_probes/grpcio.rs"]
mod grpcio;
#[path = "health_probes/kinds.rs"]
mod kinds;
#[path = "health_probes/load.rs"]
mod load;
#[path = "tls/log.rs"]
mod log;
#[path = "health_probes/real.rs"]
mod real;
#[path = "health_probes/rhythm.rs"]
mod rhythm;
#[path = "health_probes/rig.rs"]
mod rig;
#[path = "health_probes/sets.rs"]
mod sets;
#[path = "health_probes/streams.rs"]
mod streams;
#[path = "health_probes/trouble.rs"]
mod trouble;
