//! Connectivity states.

use std::fmt;

/// How an endpoint, or the whole channel, is connected: the states of gRPC's
/// `connectivity-semantics-and-api.md`.
///
/// A channel is `Ready` if any endpoint is, else `Connecting` if any is trying for the first time, else
/// `TransientFailure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// No connection, and none being made: the next call makes one.
    Idle,
    /// The first connection is being made, or a new one after a loss.
    Connecting,
    /// There is a connection that takes calls.
    Ready,
    /// The last try to connect failed. It is tried again with backoff, and stays so until one succeeds.
    TransientFailure,
    /// Closed for good.
    Shutdown,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Ready => "ready",
            Self::TransientFailure => "transient failure",
            Self::Shutdown => "shutdown",
        })
    }
}
