//! The one error of the crate.

use std::fmt;

/// How far an attempt had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Turning a host name into addresses.
    Resolve,
    /// Opening the socket.
    Connect,
    /// The HTTP/2 handshake, until the peer's SETTINGS frame.
    Handshake,
    /// Choosing an endpoint.
    Pick,
    /// Waiting for a free stream on a connection of the endpoint.
    Pool,
    /// Sending the request.
    Send,
    /// Waiting for the response's headers.
    Response,
    /// Reading the response's body and trailers.
    Body,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Handshake => "handshake",
            Self::Pick => "pick",
            Self::Pool => "pool",
            Self::Send => "send",
            Self::Response => "response",
            Self::Body => "body",
        })
    }
}
