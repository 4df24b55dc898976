//! What the files of an option hold at one moment.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::small_file;

use super::pem;

/// Files by their paths: what is in them, or why they can't be read. All that is made of them is made of one such
/// reading, so that what was checked is what is used. `Debug` shows no contents, among which are keys.
#[derive(Clone, Default)]
pub(super) struct Files(BTreeMap<PathBuf, Result<Vec<u8>, String>>);

/// How long they may take; they may lie on a network.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

impl Files {
    /// Reads the disk without telling the runtime, as making a channel may. The first file that takes more than the limit
    /// is the last one that is read.
    pub(super) fn read_now<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Self {
        let mut files = BTreeMap::new();
        for path in paths {
            let read = small_file::read_within(path, pem::MAX_BYTES, LIMIT);
            let hangs = read.is_none();
            let text = read.map_or_else(
                || Err(format!("reading it takes more than {LIMIT:?}")),
                pem::checked,
            );
            files.insert(path.clone(), text);
            if hangs {
                break;
            }
        }
        Self(files)
    }

    /// The same for a runtime. The caller limits the time.
    pub(super) async fn read(paths: Vec<PathBuf>) -> Self {
        let mut files = BTreeMap::new();
        for path in paths {
            let text = small_file::read(&path, pem::MAX_BYTES).await;
            files.insert(path, pem::checked(text));
        }
        Self(files)
    }

    pub(super) fn get(&self, path: &Path) -> Result<&[u8], String> {
        match self.0.get(path) {
            Some(Ok(text)) => Ok(text),
            Some(Err(problem)) => Err(problem.clone()),
            None => Err("it was not read".to_owned()),
        }
    }

    /// Tells one reading from another, without keeping keys to compare with.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}
