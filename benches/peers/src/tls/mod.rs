//! TLS under the calls: what both sides need, made anew for each run and handed over in a directory.
//!
//! rustls with ring on all sides; tonic takes the same when nobody has chosen another.

mod client;
mod make;
mod server;

pub use client::ClientTls;
pub use make::make;
pub use server::{Acceptor, tonic_config};

/// The root that clients trust.
const CA: &str = "ca.pem";
/// The server's certificate, for 127.0.0.1.
const CHAIN: &str = "server.pem";
const KEY: &str = "server.key";

/// What ALPN calls HTTP/2.
const H2: &[u8] = b"h2";
