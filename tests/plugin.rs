//! Plugins of go-plugin's kind: their handshake lines, automatic mutual TLS, reattaching, and a real one.
#![cfg(feature = "plugin")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod client;
mod foreign;
mod support;
#[path = "tls/mod.rs"]
mod tls;

#[path = "plugin/attach.rs"]
mod attach;
#[path = "tls/connected.rs"]
#[allow(dead_code, reason = "it is made for the tests of TLS")]
mod connected;
#[path = "plugin/go.rs"]
mod go;
#[path = "plugin/identity.rs"]
mod identity;
#[path = "plugin/line.rs"]
mod line;
#[path = "plugin/p521.rs"]
mod p521;
#[path = "plugin/parse.rs"]
mod parse;
#[path = "plugin/real.rs"]
mod real;
#[path = "plugin/reattach.rs"]
mod reattach;
