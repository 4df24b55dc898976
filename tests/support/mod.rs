//! What the integration tests stand on: servers that count, peers that misbehave on demand, a check for leaks and a
//! source of load.
//!
//! Nothing here uses the crate under test, so a fault in the crate cannot hide itself. Counts are taken where the calls
//! arrive: a test asks the servers what they handled instead of believing the client.
//!
//! | file | role |
//! |---|---|
//! | `server` | the echo service on a real tonic server: start, kill, shut down, restart |
//! | `health` | a health service beside it, which does what the test says |
//! | `raw_peer`, `raw_conn`, `raw_send`, `raw_echo` | an HTTP/2 server made of hand-written frames, scripted by the test |
//! | `raw_serve`, `reaction` | the same peer answering by itself, one reaction per request |
//! | `h2_server` | a real `h2` server, where the test sees decoded requests |
//! | `frames`, `response` | frames as bytes; the frames of a gRPC response |
//! | `journal`, `seen` | what a server, and what a raw peer, counted |
//! | `leak` | tasks and sockets back to where they were |
//! | `load`, `report` | calls at a steady rate; what became of them |
//! | `calls` | calls through tonic's own client |
//! | `burst`, `body` | calls at once through any client; raw requests fed frame by frame |
//! | `chaos`, `chaos_link` | a proxy with latency, jitter, rates, small writes, resets, black holes and half-closes |
//! | `cutter` | a proxy that cuts connections after a number of bytes |
//! | `wait` | waiting for a condition, with a limit |
//! | `echo`, `behaviour`, `incoming`, `net`, `place`, `scratch`, `thread` | what the above are made of |

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

pub mod behaviour;
pub mod body;
pub mod burst;
pub mod calls;
pub mod chaos;
pub mod chaos_link;
pub mod cutter;
pub mod echo;
pub mod frames;
pub mod h2_server;
pub mod health;
pub mod incoming;
pub mod journal;
pub mod leak;
pub mod load;
pub mod net;
pub mod place;
pub mod raw_conn;
pub mod raw_echo;
pub mod raw_peer;
pub mod raw_send;
pub mod raw_serve;
pub mod reaction;
pub mod report;
pub mod response;
pub mod scratch;
pub mod seen;
pub mod server;
pub mod thread;
pub mod wait;
