//! What must be true of a Unix socket and of whoever listens on it.

use std::fmt;

/// What is checked of Unix sockets before they are used. By default nothing is: who may replace a socket's file, or
/// listen on an abstract name, is taken for the server.
///
/// The file is looked at right before each dial, the peer right after it. An endpoint that does not pass is refused like one
/// that can't be dialled: calls avoid it, the error says what is wrong and what to do, and it comes back by itself once
/// it passes. Abstract names have no file, so only the checks of the peer apply to them.
///
/// Without [`check_parents`](Self::check_parents) a file may be replaced between look and dial. Modes are looked at,
/// access control lists are not.
///
/// ```
/// use trunkline::{Connector, Endpoint, UnixOptions};
///
/// // Only root or this process's own user may be behind any of the sockets,
/// let connector = Connector::endpoints([
///     Endpoint::unix("/run/app/plugin.sock"),
///     // and at this one it is the user with the number 990.
///     Endpoint::unix("/run/db/db.sock").unix_options(UnixOptions::strict().owner(990).peer_uid(990)),
/// ])
/// .unix_options(UnixOptions::strict());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[must_use]
pub struct UnixOptions {
    pub(super) owner: Option<User>,
    pub(super) refuse_world_writable: bool,
    pub(super) check_parents: bool,
    pub(super) refuse_symlinks: bool,
    pub(super) peer: Option<User>,
    pub(super) peer_pid: Option<u32>,
}

/// Who something may belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum User {
    /// This process's effective user, and root, who could be that user anyway.
    OwnOrRoot,
    Uid(u32),
}

impl UnixOptions {
    /// Nothing is checked.
    pub fn new() -> Self {
        Self::default()
    }

    /// All that can be checked without knowing the server's user: the file belongs to this process's effective user or to
    /// root, as does the process that listens; nobody else, but for members of their groups where modes let these, may
    /// write to the file or replace it, and no part of its path is a symbolic link.
    ///
    /// For servers with a user of their own, name that: `UnixOptions::strict().owner(990).peer_uid(990)`.
    pub fn strict() -> Self {
        Self {
            owner: Some(User::OwnOrRoot),
            refuse_world_writable: true,
            check_parents: true,
            refuse_symlinks: true,
            peer: Some(User::OwnOrRoot),
            peer_pid: None,
        }
    }

    /// The number of the user that the socket's file must belong to; `None` does not look. Default: none.
    pub fn owner(mut self, uid: impl Into<Option<u32>>) -> Self {
        self.owner = uid.into().map(User::Uid);
        self
    }

    /// Whether a socket is refused that everybody may connect to (mode `o+w`). Default: no.
    pub fn refuse_world_writable(mut self, yes: bool) -> Self {
        self.refuse_world_writable = yes;
        self
    }

    /// Whether the directories that the socket lies in, up to the root, must be out of others' reach: each belongs to root
    /// or to the [`owner`](Self::owner) (without one: to this process's effective user), and not everybody may write to it,
    /// unless it is sticky like `/tmp`. Symbolic links are refused then, too: what they lead to has other directories.
    /// Default: no.
    pub fn check_parents(mut self, yes: bool) -> Self {
        self.check_parents = yes;
        self
    }

    /// Whether a path is refused of which any part, the socket included, is a symbolic link. Default: no.
    pub fn refuse_symlinks(mut self, yes: bool) -> Self {
        self.refuse_symlinks = yes;
        self
    }

    /// The number of the user that the listening process must run as, as the kernel tells it (`SO_PEERCRED`); `None` does not
    /// ask. It is the effective user of whoever called `listen`, which for a socket handed over by systemd is root.
    /// A [`Dial`](crate::Dial) of your own must dial a `tokio::net::UnixStream` for that; other streams are refused.
    /// Default: none.
    pub fn peer_uid(mut self, uid: impl Into<Option<u32>>) -> Self {
        self.peer = uid.into().map(User::Uid);
        self
    }

    /// The same for the number of that process, as this process's PID namespace counts. A server that was started anew has
    /// another one. Default: none. Refused on systems that do not tell it.
    pub fn peer_pid(mut self, pid: impl Into<Option<u32>>) -> Self {
        self.peer_pid = pid.into();
        self
    }

    /// Checks the numbers.
    ///
    /// # Errors
    ///
    /// The name of the first option that makes no sense, and what it must be.
    pub fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        // To the kernel the last number means "nobody".
        let real = |user: Option<User>| user != Some(User::Uid(u32::MAX));
        if !real(self.owner) {
            return Err(("owner", "must be the number of a user, or none"));
        }
        if !real(self.peer) {
            return Err(("peer_uid", "must be the number of a user, or none"));
        }
        let pids = 1..=i32::MAX.unsigned_abs();
        if self.peer_pid.is_some_and(|pid| !pids.contains(&pid)) {
            return Err(("peer_pid", "must be the number of a process, or none"));
        }
        Ok(())
    }

    /// Whether the file is looked at.
    pub(super) fn looks_at_files(&self) -> bool {
        self.owner.is_some()
            || self.refuse_world_writable
            || self.check_parents
            || self.refuse_symlinks
    }

    /// Whether the peer is.
    pub(super) fn looks_at_peers(&self) -> bool {
        self.peer.is_some() || self.peer_pid.is_some()
    }
}

impl User {
    pub(super) fn is(self, uid: u32, own: u32) -> bool {
        match self {
            Self::OwnOrRoot => uid == own || uid == 0,
            Self::Uid(expected) => uid == expected,
        }
    }

    /// In the words of an error.
    pub(super) fn named(self, own: u32) -> impl fmt::Display {
        match self {
            Self::OwnOrRoot if own == 0 => "uid 0".to_owned(),
            Self::OwnOrRoot => format!("uid {own} or 0"),
            Self::Uid(uid) => format!("uid {uid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_nobody_has_are_refused_by_name() {
        let new = UnixOptions::new;
        for valid in [
            new(),
            UnixOptions::strict(),
            new().owner(0).peer_uid(u32::MAX - 1).peer_pid(1),
            new().peer_pid(i32::MAX.unsigned_abs()),
            UnixOptions::strict().owner(None).peer_uid(None),
        ] {
            assert_eq!(valid.validate(), Ok(()), "{valid:?}");
        }
        for (wrong, field) in [
            (new().owner(u32::MAX), "owner"),
            (new().peer_uid(u32::MAX), "peer_uid"),
            (new().peer_pid(0), "peer_pid"),
            (new().peer_pid(1 << 31), "peer_pid"),
        ] {
            assert_eq!(wrong.validate().unwrap_err().0, field, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_not_asked_for_is_not_looked_at() {
        let looks = |it: UnixOptions| (it.looks_at_files(), it.looks_at_peers());
        assert_eq!(looks(UnixOptions::new()), (false, false));
        assert_eq!(looks(UnixOptions::strict()), (true, true));
        assert_eq!(looks(UnixOptions::new().owner(0)), (true, false));
        assert_eq!(looks(UnixOptions::new().peer_pid(1)), (false, true));
    }

    #[test]
    fn own_or_root_is_both() {
        for (user, allowed) in [
            (User::OwnOrRoot, [true, true, false]),
            (User::Uid(7), [false, true, false]),
        ] {
            assert_eq!([0, 7, 8].map(|uid| user.is(uid, 7)), allowed, "{user:?}");
        }
    }
}
