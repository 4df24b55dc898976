//! From an address to calls on a connection: dialling, and HTTP/2 on top.

pub(crate) mod connection;
pub(crate) mod dial;
