//! The default dialler.

use super::{BoxIo, Dial, DialError, Dialing, TcpOptions, tcp};
use crate::address::{Address, UnixAddress};

/// Opens TCP and Unix sockets of the operating system.
///
/// Host names are resolved at every dial. If a name has several IP addresses, the dial takes the first one that answers:
/// IPv4 and IPv6 addresses alternate, beginning with the family that the system's resolver prefers; an attempt that
/// has not succeeded after 250 ms is joined by one to the next address, and one that fails is followed at once (RFC 8305).
///
/// A dial has no time limit of its own and must run inside a Tokio runtime with I/O and time enabled. Dropping it closes
/// all its sockets; only a lookup that has begun ends by itself, in a thread of the runtime's blocking pool.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct SocketDialer {
    tcp: TcpOptions,
}

impl SocketDialer {
    /// A dialler with default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// The options of TCP sockets. Check them with [`TcpOptions::validate`]: a dial does not.
    pub fn tcp(mut self, options: TcpOptions) -> Self {
        self.tcp = options;
        self
    }
}

impl Dial for SocketDialer {
    fn dial<'a>(&'a self, address: &'a Address) -> Dialing<'a> {
        match address {
            Address::Tcp(address) => {
                Box::pin(async { Ok(Box::new(tcp::connect(address, &self.tcp).await?) as BoxIo) })
            }
            Address::Unix(address) => Box::pin(dial_unix(address)),
        }
    }
}

#[cfg(unix)]
async fn dial_unix(address: &UnixAddress) -> Result<BoxIo, DialError> {
    match super::unix::connect(address).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(DialError::connect(error)),
    }
}

#[cfg(not(unix))]
async fn dial_unix(_: &UnixAddress) -> Result<BoxIo, DialError> {
    Err(DialError::connect(std::io::Error::new(
        std::io::ErrorKind::Unsupported,
        "Unix sockets are not supported on this system",
    )))
}
