//! Where a server listens.

mod invalid;
mod tcp;
mod unix;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use invalid::Fault;
pub use invalid::InvalidAddress;
pub use tcp::{Host, TcpAddress};
pub use unix::{UnixAddress, UnixName};

/// Where a server listens: a TCP host and port, or a Unix socket.
///
/// An address that exists is usable: whatever no dial could succeed with is refused when the value is made.
///
/// Displays as `host:port`, `unix:/path` or `unix-abstract:name`, and [`parse`](Self::parse) makes an equal value of that
/// text. (A host called `unix` or `unix-abstract` is displayed as `tcp://unix:80`.)
///
/// ```
/// use trunkline::Address;
///
/// # fn main() -> Result<(), trunkline::InvalidAddress> {
/// let address: Address = "http://Server1.internal".parse()?;
/// assert_eq!(address.to_string(), "server1.internal:80");
/// assert_eq!(address, Address::tcp("server1.internal:80")?);
/// assert_eq!(Address::unix("/run/app.sock")?, Address::parse("unix:///run/app.sock")?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A TCP host and port.
    Tcp(TcpAddress),
    /// A Unix socket.
    Unix(UnixAddress),
}

impl Address {
    /// A TCP address: `server:50051`, `10.0.0.1:50051` or `[::1]:50051`.
    ///
    /// Host names are put in lower case. Names outside ASCII are written in their `xn--` form, and IPv6 addresses in
    /// brackets, without a zone.
    ///
    /// # Errors
    ///
    /// If the text is anything else; the error says what, and what to write instead.
    pub fn tcp(text: &str) -> Result<Self, InvalidAddress> {
        TcpAddress::parse(text, None)
            .map(Self::Tcp)
            .map_err(|fault| InvalidAddress::in_text(text, fault))
    }

    /// A Unix socket at an absolute path, or, after an `@`, with a name in Linux's abstract namespace.
    ///
    /// Empty and `.` parts of the path are dropped. Links are not followed, nor is the file looked at: that is for a dial.
    ///
    /// # Errors
    ///
    /// If the path is empty, relative, contains a NUL byte, ends in `/`, or is longer than the system's socket addresses
    /// allow (107 bytes on Linux).
    pub fn unix(path: impl AsRef<Path>) -> Result<Self, InvalidAddress> {
        let path = path.as_ref();
        UnixAddress::from_bytes(path.as_os_str().as_encoded_bytes())
            .map(Self::Unix)
            .map_err(|fault| InvalidAddress::in_path(&path.to_string_lossy(), fault))
    }

    /// Reads an address in any of its written forms:
    ///
    /// | form | meaning |
    /// |---|---|
    /// | `host:port`, `tcp://host:port` | TCP |
    /// | `http://host`, `http://host:port` | TCP; the port is 80 unless given |
    /// | `unix:/path`, `unix:///path` | Unix socket at an absolute path |
    /// | `unix:@name`, `unix://@name`, `unix-abstract:name` | Unix socket with an abstract name |
    ///
    /// A `tcp://` or `http://` address may end in one slash. In the `unix` forms, which follow gRPC's naming document, `%`
    /// codes are decoded.
    ///
    /// # Errors
    ///
    /// As for [`tcp`](Self::tcp) and [`unix`](Self::unix); also for another scheme, and for `https://`, which is
    /// more than an address (see [`Endpoint::uri`](crate::Endpoint::uri)).
    pub fn parse(text: &str) -> Result<Self, InvalidAddress> {
        parse(text).map_err(|fault| InvalidAddress::in_text(text, fault))
    }

    /// The same for `https://host:port`, which is more than an address: `None` if the text is anything else.
    #[cfg(feature = "__tls")]
    pub(crate) fn parse_https(text: &str) -> Option<Result<Self, InvalidAddress>> {
        let (scheme, rest) = text.split_once("://")?;
        scheme.eq_ignore_ascii_case("https").then(|| {
            let authority = rest.strip_suffix('/').unwrap_or(rest);
            TcpAddress::parse(authority, Some(443))
                .map(Self::Tcp)
                .map_err(|fault| InvalidAddress::in_text(text, fault))
        })
    }

    /// The TCP address, if it is one.
    pub fn as_tcp(&self) -> Option<&TcpAddress> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Unix(_) => None,
        }
    }

    /// The Unix socket's address, if it is one.
    pub fn as_unix(&self) -> Option<&UnixAddress> {
        match self {
            Self::Unix(unix) => Some(unix),
            Self::Tcp(_) => None,
        }
    }

    /// Whether this is a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// The `:authority` that requests to this address carry by default: `host:port` for TCP and `localhost` for Unix
    /// sockets, for which there is no other value that servers agree to take.
    pub fn authority(&self) -> String {
        match self {
            Self::Tcp(tcp) => tcp.to_string(),
            Self::Unix(_) => String::from("localhost"),
        }
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        Self::parse(text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(tcp) => {
                if matches!(tcp.host(), Host::Name("unix" | "unix-abstract")) {
                    f.write_str("tcp://")?;
                }
                tcp.fmt(f)
            }
            Self::Unix(unix) => unix.fmt(f),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

fn parse(text: &str) -> Result<Address, Fault> {
    if text.is_empty() {
        return Err(Fault::new("it is empty", "write host:port or unix:/path"));
    }
    let (scheme, rest) = text.split_once(':').unwrap_or(("", text));
    match scheme.to_ascii_lowercase().as_str() {
        "unix" => return UnixAddress::parse(rest).map(Address::Unix),
        "unix-abstract" => return UnixAddress::parse_name(rest).map(Address::Unix),
        _ => {}
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return TcpAddress::parse(text, None).map(Address::Tcp);
    };
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "tcp" => None,
        "http" => Some(80),
        "https" => {
            return Err(Fault::new(
                "an address says nothing about TLS",
                "give it to Endpoint::uri, with the feature tls of this crate",
            ));
        }
        _ => {
            return Err(Fault::new(
                "its scheme is unknown",
                "use tcp://, http:// or unix:",
            ));
        }
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    TcpAddress::parse(authority, default_port).map(Address::Tcp)
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
