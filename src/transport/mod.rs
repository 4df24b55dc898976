//! From an address to calls on a connection: dialling, TLS, and HTTP/2 on top.

pub(crate) mod connection;
pub(crate) mod dial;
pub(crate) mod security;
#[cfg(feature = "__tls")]
pub(crate) mod tls;
