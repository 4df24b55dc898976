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
#[cfg(unix)]
mod unix_checks;
mod unix_options;

use std::any::Any;
use std::fmt;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::address::Address;
#[cfg(unix)]
use crate::address::UnixName;

pub use error::DialError;
pub use socket::SocketDialer;
pub use tcp_options::TcpOptions;
pub use unix_options::UnixOptions;

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

/// Dials, and makes sure that a Unix socket is what `options` ask for: its file before the dial, the peer after it. The
/// dialler may be anybody's.
///
/// # Errors
///
/// As [`Dial::dial`], or if it is something else.
#[cfg(unix)]
pub(crate) async fn dial_checked(
    dialer: &dyn Dial,
    address: &Address,
    options: &UnixOptions,
) -> Result<BoxIo, DialError> {
    let Address::Unix(unix) = address else {
        return dialer.dial(address).await;
    };
    if let UnixName::Path(path) = unix.name() {
        let checked = unix_checks::check_file(path, options).await;
        checked.map_err(DialError::connect)?;
    }
    let io = dialer.dial(address).await?;
    unix_checks::check_peer(&io, options).map_err(DialError::connect)?;
    Ok(io)
}

/// The same for systems that know nothing of owners and modes.
#[cfg(not(unix))]
pub(crate) async fn dial_checked(
    dialer: &dyn Dial,
    address: &Address,
    options: &UnixOptions,
) -> Result<BoxIo, DialError> {
    if address.is_unix() && (options.looks_at_files() || options.looks_at_peers()) {
        return Err(DialError::connect(std::io::Error::new(
            std::io::ErrorKind::Unsupported,
            "UnixOptions can't be checked on this system",
        )));
    }
    dialer.dial(address).await
}

/// A byte stream that a connection can run on. Every type that fits is one. (As [`Any`], it can be asked for its type:
/// [`UnixOptions`] look at `tokio::net::UnixStream`s.)
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + Any {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + Any> Io for T {}

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
