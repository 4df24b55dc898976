//! Files that change.

use std::sync::Weak;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::lock::lock;

use super::context::TlsContext;

/// How long a file may take; it may lie on a network.
const FILE_LIMIT: Duration = Duration::from_secs(5);

impl TlsContext {
    /// Looks at the files again and again, and takes over what is good.
    ///
    /// # Cancel safety
    ///
    /// It can be dropped at any time.
    pub(crate) async fn follow_files(this: Weak<Self>) {
        let mut seen = None;
        loop {
            // Not kept while nothing happens: the last endpoint that uses it ends this.
            let Some(context) = this.upgrade() else {
                return;
            };
            if context.tls.files().next().is_none() {
                return;
            }
            let interval = context.tls.options.reload_interval;
            let now = context.contents().await;
            if seen.as_ref().is_some_and(|seen| *seen != now) {
                context.reload();
            }
            seen = Some(now);
            drop(context);
            sleep(interval).await;
        }
    }

    /// What is in the files. One that can't be read is as good as one with other contents.
    async fn contents(&self) -> Vec<Option<Vec<u8>>> {
        let mut all = Vec::new();
        for path in self.tls.files() {
            let read = timeout(FILE_LIMIT, tokio::fs::read(path)).await;
            all.push(read.ok().and_then(Result::ok));
        }
        all
    }

    /// Reads and checks everything; what is not good as a whole is not used.
    fn reload(&self) {
        let trouble = match self.tls.load() {
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
