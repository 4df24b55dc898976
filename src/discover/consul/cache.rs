//! The last good answer on disk, for a start while no agent can be reached.
#![allow(
    clippy::disallowed_types,
    reason = "how old a file is when a process starts, no monotonic clock knows"
)]

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::file_thread;
use crate::small_file;

use super::instance::Instance;

/// A file, and how old it may be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cache {
    pub(super) path: PathBuf,
    pub(super) max_age: Duration,
    /// What it is about: a file of something else is not used.
    pub(super) subject: String,
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    subject: String,
    saved_at_unix: u64,
    instances: Vec<Instance>,
}

/// Grows with every change that an older release could not read.
const VERSION: u32 = 1;
/// The file may lie on a network.
const FILE_LIMIT: Duration = Duration::from_secs(5);
const MAX_FILE: u64 = 64 * 1024 * 1024;

impl Cache {
    /// Replaces the file. A failure is logged, and told: calls do not depend on it.
    ///
    /// # Cancel safety
    ///
    /// The old file or the new one is there, whole. A writing that has begun goes on.
    pub(super) async fn store(&self, instances: &[Instance]) -> bool {
        let content = Content {
            version: VERSION,
            subject: self.subject.clone(),
            saved_at_unix: now(),
            instances: instances.to_vec(),
        };
        let of = self.path.clone();
        let writing = file_thread::run(&self.path, move || replace(&of, &content));
        let stored = timeout(FILE_LIMIT, writing).await;
        let stored = stored.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if let Err(error) = &stored {
            let path = self.path.display();
            tracing::warn!(%path, %error, "what Consul answers can't be kept for the next start");
        }
        stored.is_ok()
    }

    /// What was stored, and how long ago, if it can be used.
    pub(super) async fn load(&self) -> Option<(Vec<Instance>, Duration)> {
        let path = self.path.display();
        let loaded = timeout(FILE_LIMIT, read(&self.path)).await;
        let content = match loaded.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%path, %error, "the cached endpoints can't be used");
                return None;
            }
        };
        // A clock that was set back makes a file from the future; it is as good as new.
        let age = Duration::from_secs(now().saturating_sub(content.saved_at_unix));
        let problem = if content.version != VERSION {
            "another release wrote them"
        } else if content.subject != self.subject {
            "they are those of another service, agent or datacenter"
        } else if age > self.max_age {
            "they are too old"
        } else {
            tracing::warn!(%path, ?age, "Consul has not answered; the endpoints of the last run are used");
            return Some((content.instances, age));
        };
        tracing::warn!(%path, problem, ?age, "the cached endpoints can't be used");
        None
    }
}

fn replace(path: &Path, content: &Content) -> io::Result<()> {
    let text = serde_json::to_vec(content)?;
    // Beside the file, since a file can't be renamed across file systems. Nobody else has this name, and whoever can't
    // read the file's folder can't read the file.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{:016x}.new", fastrand::u64(..)));
    let temporary = Temporary(temporary.into());
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary.0)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&temporary.0, path)
}

/// Does not stay, whatever happens. After the renaming there is nothing of its name.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

async fn read(path: &Path) -> io::Result<Content> {
    let text = small_file::read(path, MAX_FILE).await?;
    Ok(serde_json::from_slice(&text)?)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
