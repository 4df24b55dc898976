//! Opening a byte stream to an [`Address`].
//!
//! [`Dial`] is an extension point: a simulated network, a proxy or an in-memory pipe can stand in for sockets.
//! [`SocketDialer`] is what is used otherwise.

mod error;
mod race;
mod resolve;
mod socket;
mod tcp;
mod tcp_options;
#[cfg(unix)]
mod unix;

use std::fmt;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::address::Address;

pub use error::DialError;
pub use socket::SocketDialer;
pub use tcp_options::TcpOptions;

/// Opens byte streams to addresses.
///
/// A dial is one try: whoever calls limits its time, and decides when to try again.
pub trait Dial: Send + Sync + fmt::Debug + 'static {
    /// Opens a stream to `address`.
    ///
    /// # Errors
    ///
    /// A [`DialError`], which says whether the name could not be resolved or the stream not be opened.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future must give the dial up and close whatever it has opened.
    fn dial<'a>(&'a self, address: &'a Address) -> Dialing<'a>;
}

/// A dial under way.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = Result<BoxIo, DialError>> + Send + 'a>>;

/// A byte stream that a connection can run on. Every type that fits is one.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

impl fmt::Debug for dyn Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Io")
    }
}

/// A byte stream of any type.
pub type BoxIo = Box<dyn Io>;

#[cfg(test)]
#[cfg(unix)]
mod tests;
