//! TLS: what works, who is refused and with which words, and certificates that are replaced under load.
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod client;
mod foreign;
#[path = "rows/memory.rs"]
#[allow(dead_code, unreachable_pub, reason = "as in `support`")]
mod memory;
mod support;
#[path = "tls/mod.rs"]
mod tls;

#[path = "tls/bad_config.rs"]
mod bad_config;
#[path = "tls/bad_values.rs"]
mod bad_values;
#[path = "tls/close.rs"]
mod close;
#[path = "tls/connected.rs"]
mod connected;
#[path = "tls/hanging.rs"]
mod hanging;
#[path = "tls/interop.rs"]
mod interop;
#[path = "tls/kinds.rs"]
mod kinds;
#[path = "tls/refused_certificates.rs"]
mod refused_certificates;
#[path = "tls/refused_peers.rs"]
mod refused_peers;
#[path = "tls/renewal.rs"]
mod renewal;
#[cfg(all(feature = "native-roots", feature = "webpki-roots"))]
#[path = "tls/roots.rs"]
mod roots;
#[path = "tls/rotation.rs"]
mod rotation;
#[path = "tls/secrets.rs"]
mod secrets;
#[path = "tls/trust.rs"]
mod trust;
#[path = "tls/warnings.rs"]
mod warnings;
#[path = "tls/works.rs"]
mod works;
