//! Endpoints from a Consul agent.
//!
//! | file | role |
//! |---|---|
//! | `options`, `checks` | [`Consul`]: what users set, and whether it makes sense |
//! | `target` | the same from a `consul://` text |
//! | `environment` | what is not set comes from Consul's own variables |
//! | `datacenters` | the channel's stream: the first datacenter with endpoints |
//! | `follow` | one channel's part in a watch: one leads, the others listen |
//! | `registry` | the watches of the process |
//! | `watch` | the loop: back off, publish, keep a sign of life |
//! | `asker` | one query after the other |
//! | `index`, `guard` | its rules: what to wait for, what to ask twice |
//! | `query`, `token`, `http`, `error` | one query: path, header, connection, what went wrong |
//! | `wire`, `instance`, `problems` | an answer: from bytes to instances to endpoints, and what is wrong with it |
//! | `cache` | the last good answer on disk |

mod asker;
mod cache;
mod checks;
mod datacenters;
mod environment;
mod error;
mod follow;
mod guard;
mod http;
mod index;
mod instance;
mod options;
mod problems;
mod query;
mod registry;
mod target;
mod token;
mod watch;
mod wire;

pub(crate) use environment::Environment;
pub use options::{Consistency, Consul};
pub(crate) use target::is_target;
