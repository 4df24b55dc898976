//! A real Consul agent in a process of its own, and its HTTP API for tests. Nothing here uses the crate under test.
//!
//! | file | role |
//! |---|---|
//! | `agent` | a running agent: killed, restarted, frozen |
//! | `options` | what an agent may be told before it starts |
//! | `program` | where the `consul` program is; `scripts/consul` fetches it |
//! | `ports` | the ports of one agent |
//! | `kept` | a process that can't outlive the test |
//! | `api` | requests to an agent's HTTP API |
//! | `services` | services by that API: registered, checked, taken out, looked up |
//! | `tokens` | its ACL tokens |
//! | `registration` | one service as it is registered |
//! | `http` | one HTTP request on a connection of its own |
//! | `fake` | in place of a real agent: a server that does what the test says |
//!
//! ```ignore
//! let server = EchoServer::start_tcp("a");
//! let agent = Agent::start().await;
//! agent.api().register(&Registration::of("echo", &server)).await;
//! agent.api().shows("echo", &[("a", Health::Passing)]).await;
//! ```

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "as in `support`: each test compiles this anew and uses a part of it"
)]

pub mod agent;
pub mod api;
pub mod fake;
pub mod http;
pub mod kept;
pub mod options;
pub mod ports;
pub mod program;
pub mod registration;
pub mod services;
pub mod tokens;
