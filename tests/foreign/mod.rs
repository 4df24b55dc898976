//! Servers that share no code with the crate: grpcio, which is Python over gRPC's C core, in a process of its own.
//!
//! | file | role |
//! |---|---|
//! | `server` | the process: started, asked what it counted, ended |
//! | `server.py` | what runs in it, with `echo.py`, `interop.py`, `clinic.py` and `wire.py` |
//! | `plugin`, `plugin.py` | a plugin of go-plugin's kind: pyvider-rpcplugin, over the same core |
//! | `requirements.txt` | the packages it needs; `scripts/foreign-python` fetches them |

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "as in `support`: each test compiles this anew and uses a part of it"
)]

pub mod plugin;
pub mod server;
