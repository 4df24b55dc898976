//! The check that a test leaves nothing behind: no task, no socket.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Mutex, MutexGuard};

use super::wait::holds_within;

/// How long tasks and sockets may take to go after a test let go of what owns them.
const LIMIT: Duration = Duration::from_secs(2);

/// Held by the test that is checking: sockets belong to the process, so two tests at once would see each other's.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Notes what is alive at the start of a test and, at its end, waits until nothing else is.
///
/// Tasks are those of the current runtime. Sockets are those of the whole process, so the tests of a binary that check
/// for leaks run one after the other: each holds a lock from [`start`](Self::start) to its end. **A test of the same
/// binary that opens sockets without a check of its own must hold [`alone`]**, or it is counted as a leak of another.
///
/// Start it before the test's servers and drop those before finishing, or start it after them. Sockets are counted on
/// Linux only.
#[derive(Debug)]
#[must_use = "a leak check does nothing until it is finished"]
pub struct LeakCheck {
    tasks: usize,
    sockets: BTreeSet<PathBuf>,
    finished: bool,
    _alone: MutexGuard<'static, ()>,
}

/// Keeps leak checks of this binary away for as long as the guard lives.
pub async fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().await
}

impl LeakCheck {
    /// Waits for its turn, then notes the tasks and sockets that are there already.
    pub async fn start() -> Self {
        let alone = alone().await;
        Self {
            tasks: tasks(),
            sockets: sockets(),
            finished: false,
            _alone: alone,
        }
    }

    /// Waits until no more tasks are alive than at the start, and no sockets but those of the start. Panics with the
    /// numbers when that takes more than 2 s.
    pub async fn finish(mut self) {
        let leak = self.wait().await;
        assert!(
            leak == Leak::default(),
            "leaked after {LIMIT:?}: {leak:?} (at the start {} tasks, {} sockets)",
            self.tasks,
            self.sockets.len(),
        );
    }

    /// Like [`finish`](Self::finish), but gives what leaked instead of panicking.
    pub async fn leaked(mut self) -> Leak {
        self.wait().await
    }

    async fn wait(&mut self) -> Leak {
        self.finished = true;
        holds_within(LIMIT, || self.leak() == Leak::default()).await;
        self.leak()
    }

    fn leak(&self) -> Leak {
        Leak {
            tasks: tasks().saturating_sub(self.tasks),
            sockets: sockets().difference(&self.sockets).count(),
        }
    }
}

impl Drop for LeakCheck {
    fn drop(&mut self) {
        assert!(
            self.finished || thread::panicking(),
            "a leak check was started and never finished"
        );
    }
}

/// What a test left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leak {
    pub tasks: usize,
    pub sockets: usize,
}

impl Leak {
    /// Everything together.
    pub fn total(&self) -> usize {
        self.tasks + self.sockets
    }
}

/// Tasks of this runtime that have not ended.
fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// The process's sockets, each by its inode: `socket:[123]`. A number is not used twice, and a socket open under two
/// descriptors counts once.
fn sockets() -> BTreeSet<PathBuf> {
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else {
        return BTreeSet::new();
    };
    descriptors
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .collect()
}
