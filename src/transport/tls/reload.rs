//! Files that change.

use std::path::Path;
use std::sync::Weak;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::time::{sleep, timeout};

use crate::lock::lock;

use super::context::TlsContext;
use super::pem::MAX_BYTES;

/// How long a file may take; it may lie on a network.
const FILE_LIMIT: Duration = Duration::from_secs(5);

/// What is in the files. One that can't be read is as good as one with other contents.
pub(super) type Contents = Vec<Option<Vec<u8>>>;

impl TlsContext {
    /// Looks at the files again and again, until nobody uses the context any more.
    ///
    /// # Cancel safety
    ///
    /// It can be dropped at any time.
    pub(crate) async fn follow_files(this: Weak<Self>) {
        while let Some(context) = this.upgrade() {
            if context.tls.files().next().is_none() {
                return;
            }
            let interval = context.tls.options.reload_interval;
            context.refresh().await;
            drop(context);
            sleep(interval).await;
        }
    }

    /// Looks at the files, and takes over what has changed and is good.
    ///
    /// # Cancel safety
    ///
    /// It can be dropped at any time.
    pub(crate) async fn refresh(&self) {
        let mut now = Contents::new();
        for path in self.tls.files() {
            let read = timeout(FILE_LIMIT, read(path)).await;
            now.push(read.ok().flatten());
        }
        let changed = std::mem::replace(&mut *lock(&self.seen), now.clone()) != now;
        if changed {
            self.reload();
        }
    }

    /// Reads and checks everything; what is not good as a whole is not used.
    fn reload(&self) {
        let trouble = match self.tls.load(self.protocol) {
            Ok(material) => {
                self.replace(material);
                tracing::info!("TLS files have changed; new connections use them");
                None
            }
            Err(error) => {
                tracing::error!(%error, "TLS files have changed and can't be used; the old ones stay in use");
                Some(error.to_string().into())
            }
        };
        *lock(&self.trouble) = trouble;
    }
}

/// As [`pem::read`](super::pem::read), for a runtime. A file may have become a pipe or a device: nothing would end the
/// thread that waits for one, or the text of the other.
async fn read(path: &Path) -> Option<Vec<u8>> {
    if !tokio::fs::metadata(path).await.ok()?.is_file() {
        return None;
    }
    let file = tokio::fs::File::open(path).await.ok()?;
    let mut text = Vec::new();
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut text).await;
    read.ok().map(|_| text)
}
