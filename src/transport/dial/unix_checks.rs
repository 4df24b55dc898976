//! Whether a Unix socket, and whoever listens on it, is what [`UnixOptions`] ask for.

use std::any::Any;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use tokio::net::UnixStream;

use crate::file_thread;

use super::unix::{describe, explain};
use super::unix_options::User;
use super::{BoxIo, UnixOptions};

/// Bits of a mode.
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Looks at a socket's file and the directories on its path.
///
/// # Errors
///
/// What is wrong with it, and what to do.
pub(super) async fn check_file(path: &Path, options: &UnixOptions) -> io::Result<()> {
    if !options.looks_at_files() {
        return Ok(());
    }
    let own = own_uid()?;
    let (of, options) = (path.to_owned(), options.clone());
    file_thread::run(path, move || look_at_all(&of, &options, own)).await
}

fn look_at_all(path: &Path, options: &UnixOptions, own: u32) -> io::Result<()> {
    // From the root down: whoever can't change what was looked at can't change what follows from it.
    let mut parents: Vec<_> = path.ancestors().skip(1).collect();
    parents.reverse();
    for parent in parents {
        let found = look(parent, options)?;
        if options.check_parents {
            check_parent(parent, &found, options, own)?;
        }
    }
    let found = look(path, options)?;
    if !found.file_type().is_socket() {
        let what = describe(found.file_type());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let (uid, mode) = (found.uid(), found.mode());
    if let Some(owner) = options.owner.filter(|it| !it.is(uid, own)) {
        return Err(refused(format!(
            "{path:?} belongs to uid {uid}, not to {}; let that user make the socket, or allow the other with UnixOptions::owner",
            owner.named(own)
        )));
    }
    if options.refuse_world_writable && mode & OTHERS_WRITE != 0 {
        return Err(refused(format!(
            "everybody may write to {path:?} (mode {:04o}); take that away (chmod o-w), or set UnixOptions::refuse_world_writable to false",
            mode & 0o7777
        )));
    }
    Ok(())
}

fn check_parent(path: &Path, found: &Metadata, options: &UnixOptions, own: u32) -> io::Result<()> {
    let (uid, mode) = (found.uid(), found.mode());
    let owner = options.owner.unwrap_or(User::OwnOrRoot);
    if uid != 0 && !owner.is(uid, own) {
        return Err(refused(format!(
            "{path:?} belongs to uid {uid}, not to root or {}, and its owner can replace the socket; give the directory to one of them (chown)",
            owner.named(own)
        )));
    }
    if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        return Err(refused(format!(
            "everybody may write to {path:?} (mode {:04o}) and replace the socket; take that away (chmod o-w), or make the directory sticky (chmod +t)",
            mode & 0o7777
        )));
    }
    Ok(())
}

/// What is at `path`; behind it, if it is a link that is allowed.
fn look(path: &Path, options: &UnixOptions) -> io::Result<Metadata> {
    let explained = |error| explain(error, None);
    let found = fs::symlink_metadata(path).map_err(explained)?;
    if !found.is_symlink() {
        return Ok(found);
    }
    if options.refuse_symlinks || options.check_parents {
        return Err(refused(format!(
            "{path:?} is a symbolic link; use the path that it leads to (realpath)"
        )));
    }
    fs::metadata(path).map_err(explained)
}

/// Asks the kernel who listens at the other end of a stream that was just opened.
///
/// # Errors
///
/// If that is somebody else, or can't be asked.
pub(super) fn check_peer(io: &BoxIo, options: &UnixOptions) -> io::Result<()> {
    if !options.looks_at_peers() {
        return Ok(());
    }
    let io: &dyn Any = &**io;
    let Some(stream) = io.downcast_ref::<UnixStream>() else {
        return Err(refused(
            "the dialler's stream can't be asked who is at its other end; dial a tokio::net::UnixStream, or leave \
             UnixOptions::peer_uid and peer_pid out"
                .to_owned(),
        ));
    };
    let peer = stream.peer_cred()?;
    if let Some(expected) = options.peer {
        let own = own_uid()?;
        let uid = peer.uid();
        if !expected.is(uid, own) {
            return Err(refused(format!(
                "the process that listens runs as uid {uid}, not as {}; start it as that user, or allow the other with UnixOptions::peer_uid",
                expected.named(own)
            )));
        }
    }
    let Some(expected) = options.peer_pid else {
        return Ok(());
    };
    match peer.pid().map(i32::unsigned_abs) {
        Some(pid) if pid == expected => Ok(()),
        Some(pid) => Err(refused(format!(
            "the process that listens has pid {pid}, not {expected}; set UnixOptions::peer_pid anew when the server was restarted"
        ))),
        None => Err(refused(
            "this system does not tell which process listens; leave UnixOptions::peer_pid out"
                .to_owned(),
        )),
    }
}

/// This process's effective user. The kernel notes it on every socket, and the standard library does not tell it.
fn own_uid() -> io::Result<u32> {
    let (socket, _other) = UnixStream::pair()?;
    Ok(socket.peer_cred()?.uid())
}

fn refused(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, problem)
}
