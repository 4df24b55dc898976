//! Unix socket connections.

use std::ffi::OsString;
use std::fs::FileType;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::{error, fmt, fs, io};

use tokio::net::UnixStream;

use crate::address::{UnixAddress, UnixName};

/// Connects to a Unix stream socket.
///
/// # Errors
///
/// The kinds of the usual mistakes: `NotFound` where there is no such file, `InvalidInput` where it is no socket,
/// `ConnectionRefused` where nothing listens, `PermissionDenied`, and `ResourceBusy` where the listener's queue is full,
/// which passes.
///
/// # Cancel safety
///
/// Dropping the future closes the socket.
pub(super) async fn connect(address: &UnixAddress) -> io::Result<UnixStream> {
    match address.name() {
        UnixName::Path(path) => UnixStream::connect(path)
            .await
            .map_err(|error| explain(error, Some(path))),
        UnixName::Abstract(name) if cfg!(any(target_os = "linux", target_os = "android")) => {
            // To Tokio, as to the kernel, a NUL marks the abstract namespace.
            let path = PathBuf::from(OsString::from_vec([b"\0", name].concat()));
            UnixStream::connect(path)
                .await
                .map_err(|error| explain(error, None))
        }
        UnixName::Abstract(_) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "abstract Unix socket names exist on Linux only; use a path",
        )),
    }
}

/// Says in words what the kernel's error means for a Unix socket.
pub(super) fn explain(cause: io::Error, path: Option<&Path>) -> io::Error {
    let (kind, problem) = match cause.kind() {
        io::ErrorKind::NotFound => (
            io::ErrorKind::NotFound,
            "there is no such file: its server has not started, or has ended",
        ),
        // The kernel gives the same error for a file that is no socket.
        io::ErrorKind::ConnectionRefused => match path.and_then(file_type) {
            Some(other) if !other.is_socket() => (io::ErrorKind::InvalidInput, describe(other)),
            _ => (
                io::ErrorKind::ConnectionRefused,
                "nothing listens on this socket: its server has not started, or has ended",
            ),
        },
        // Unlike TCP, no later event tells when there is room.
        io::ErrorKind::WouldBlock => (
            io::ErrorKind::ResourceBusy,
            "the server accepts connections too slowly and its queue is full, which passes: try again later",
        ),
        io::ErrorKind::PermissionDenied => (
            io::ErrorKind::PermissionDenied,
            "this process may not write to the socket, or not enter a directory on its path",
        ),
        _ => return cause,
    };
    io::Error::new(kind, Explained { problem, cause })
}

/// Reads the disk without telling the runtime: on the way of an error only, and the kernel has just read the same entry.
fn file_type(path: &Path) -> Option<FileType> {
    fs::metadata(path).ok().map(|metadata| metadata.file_type())
}

pub(super) fn describe(other: FileType) -> &'static str {
    if other.is_dir() {
        "the path is a directory, not a socket"
    } else if other.is_file() {
        "the path is a regular file, not a socket"
    } else {
        "the path is a special file, not a socket"
    }
}

#[derive(Debug)]
struct Explained {
    problem: &'static str,
    cause: io::Error,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.problem)
    }
}

impl error::Error for Explained {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_has_its_kind_and_words() {
        use io::ErrorKind as Kind;
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let file = here.join("Cargo.toml");
        let cases = [
            (Kind::NotFound, here, Kind::NotFound, "no such file"),
            (
                Kind::ConnectionRefused,
                here,
                Kind::InvalidInput,
                "is a directory, not a socket",
            ),
            (
                Kind::ConnectionRefused,
                &file,
                Kind::InvalidInput,
                "is a regular file, not a socket",
            ),
            (
                Kind::ConnectionRefused,
                Path::new("/dev/null"),
                Kind::InvalidInput,
                "is a special file, not a socket",
            ),
            (
                Kind::WouldBlock,
                here,
                Kind::ResourceBusy,
                "try again later",
            ),
            (
                Kind::PermissionDenied,
                here,
                Kind::PermissionDenied,
                "may not write",
            ),
        ];
        for (cause, path, kind, words) in cases {
            let error = explain(cause.into(), Some(path));
            assert_eq!(error.kind(), kind, "{cause}: {error}");
            assert!(error.to_string().contains(words), "{cause}: {error}");
            let source = error::Error::source(&error).unwrap();
            assert_eq!(source.downcast_ref::<io::Error>().unwrap().kind(), cause);
        }
    }

    #[test]
    fn other_errors_stay_as_they_are() {
        let error = explain(io::Error::from_raw_os_error(24), None);
        assert_eq!(error.raw_os_error(), Some(24));
    }
}
