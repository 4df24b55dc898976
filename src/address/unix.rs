//! Unix socket addresses: a path, or a name in Linux's abstract namespace.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::invalid::Fault;

/// The most bytes a socket's path or name may have: `sun_path` holds 108 on Linux and 104 on other systems, and a NUL
/// ends a path or begins a name.
const LONGEST: usize = if cfg!(any(target_os = "linux", target_os = "android")) {
    107
} else {
    103
};

/// Where a Unix socket listens: an absolute path, or a name in Linux's abstract namespace.
///
/// Displays as `unix:/path` or `unix-abstract:name`, with a `%` code for every byte that is not a letter, a digit, or one
/// of `-._~/@:+=`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixAddress(OwnedName);

/// The two name spaces of Unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnixName<'a> {
    /// An absolute path, without empty or `.` parts.
    Path(&'a Path),
    /// A name in Linux's abstract namespace, without the NUL byte that marks it for the kernel. No file stands for it, and
    /// no permissions guard it.
    Abstract(&'a [u8]),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum OwnedName {
    Path(Arc<Path>),
    Abstract(Arc<[u8]>),
}

impl UnixAddress {
    /// The path or name.
    pub fn name(&self) -> UnixName<'_> {
        match &self.0 {
            OwnedName::Path(path) => UnixName::Path(path),
            OwnedName::Abstract(name) => UnixName::Abstract(name),
        }
    }

    /// Takes a path, or a name after an `@`.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Fault> {
        match bytes.strip_prefix(b"@") {
            Some(name) => Self::from_name(name),
            None => Self::from_path(bytes),
        }
    }

    /// Reads what follows `unix:` in a URI.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        Self::from_bytes(&decode(without_authority(text, &['/', '@'])?)?)
    }

    /// Reads what follows `unix-abstract:` in a URI.
    pub(super) fn parse_name(text: &str) -> Result<Self, Fault> {
        Self::from_name(&decode(without_authority(text, &['/'])?)?)
    }

    fn from_path(path: &[u8]) -> Result<Self, Fault> {
        match path {
            [] => {
                return Err(Fault::new(
                    "the socket's path is empty",
                    "write one, as in unix:/run/server.sock",
                ));
            }
            [b'/', ..] => {}
            _ => {
                return Err(Fault::new(
                    "the socket's path is relative",
                    "write it from the root, as in /run/server.sock",
                ));
            }
        }
        if path.ends_with(b"/") {
            return Err(Fault::new(
                "the socket's path ends in '/' like a directory's",
                "append the socket's file name",
            ));
        }
        // One spelling per path, so that equal addresses are equal values.
        let parts: Vec<&[u8]> = path
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
            .collect();
        if parts.is_empty() {
            return Err(Fault::new(
                "the socket's path is the root directory",
                "append the socket's file name",
            ));
        }
        let path = [b"/", parts.join(&b'/').as_slice()].concat();
        check(&path)?;
        match into_os_string(path) {
            Some(path) => Ok(Self(OwnedName::Path(PathBuf::from(path).into()))),
            None => Err(Fault::new(
                "the socket's path is not Unicode, as this system requires",
                "use another path",
            )),
        }
    }

    fn from_name(name: &[u8]) -> Result<Self, Fault> {
        if name.is_empty() {
            return Err(Fault::new(
                "the socket's abstract name is empty",
                "write one, as in unix-abstract:server",
            ));
        }
        check(name)?;
        Ok(Self(OwnedName::Abstract(name.into())))
    }
}

impl fmt::Display for UnixAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, bytes) = match self.name() {
            UnixName::Path(path) => ("unix:", path.as_os_str().as_encoded_bytes()),
            // Without its own `//`, the one of such a name would be taken for it.
            UnixName::Abstract(name) if name.starts_with(b"//") => ("unix-abstract://", name),
            UnixName::Abstract(name) => ("unix-abstract:", name),
        };
        f.write_str(scheme)?;
        for &byte in bytes {
            if is_plain(byte) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

fn check(name: &[u8]) -> Result<(), Fault> {
    if name.contains(&0) {
        return Err(Fault::new(
            "the socket's path or name contains a NUL byte",
            "remove it",
        ));
    }
    if name.len() > LONGEST {
        return Err(Fault::new(
            "the socket's path or name is longer than the system allows (107 bytes on Linux, 103 elsewhere)",
            "use a shorter one",
        ));
    }
    Ok(())
}

/// Strips the `//` of a URI with an empty authority; what follows must be one of `starts`.
fn without_authority<'a>(text: &'a str, starts: &[char]) -> Result<&'a str, Fault> {
    match text.strip_prefix("//") {
        Some(rest) if rest.is_empty() || rest.starts_with(starts) => Ok(rest),
        Some(_) => Err(Fault::new(
            "a host name stands where only a path may follow",
            "write three slashes before an absolute path, as in unix:///run/server.sock",
        )),
        None => Ok(text),
    }
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<Vec<u8>, Fault> {
    let mut decoded = Vec::with_capacity(text.len().min(LONGEST));
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => match (bytes.next().and_then(hex), bytes.next().and_then(hex)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => {
                    return Err(Fault::new(
                        "a '%' is not followed by two hexadecimal digits",
                        "write a plain '%' as %25",
                    ));
                }
            },
            0 => {
                return Err(Fault::new(
                    "the socket's path or name contains a NUL byte",
                    "remove it",
                ));
            }
            b'\r' | b'\n' => return Err(Fault::new("it contains a line break", "remove it")),
            b'?' => {
                return Err(Fault::new(
                    "it has a query",
                    "remove it, or write a '?' of the path as %3F",
                ));
            }
            b'#' => {
                return Err(Fault::new(
                    "it has a fragment",
                    "remove it, or write a '#' of the path as %23",
                ));
            }
            b' ' => {
                return Err(Fault::new(
                    "it contains a space",
                    "remove it, or write a space of the path as %20",
                ));
            }
            _ if byte.is_ascii_control() => {
                return Err(Fault::new(
                    "it contains a control character",
                    "remove it, or write its % code",
                ));
            }
            _ => byte,
        });
    }
    Ok(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// Bytes that stand for themselves: all that is legal in a URI's path, less what ends an address in lists and sentences.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~/@:+=".contains(&byte)
}

#[cfg(unix)]
fn into_os_string(bytes: Vec<u8>) -> Option<OsString> {
    Some(std::os::unix::ffi::OsStringExt::from_vec(bytes))
}

#[cfg(not(unix))]
fn into_os_string(bytes: Vec<u8>) -> Option<OsString> {
    String::from_utf8(bytes).ok().map(OsString::from)
}
