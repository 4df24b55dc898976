//! Files that change, and certificates that grow old.

use std::pin::Pin;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::lock::lock;

use super::context::TlsContext;
use super::files::{Files, LIMIT};
use super::material::Material;

/// How often certificates are looked at that are in no file.
const NO_FILES: Duration = Duration::from_secs(60);

/// A reading under way. One that takes longer than somebody waits is not begun anew: the next look has what comes of it.
pub(super) type Reading = Pin<Box<dyn Future<Output = Files> + Send>>;

impl TlsContext {
    /// Looks at the files again and again, until nobody uses the context any more.
    ///
    /// # Cancel safety
    ///
    /// It can be dropped at any time.
    pub(crate) async fn follow_files(this: Weak<Self>) {
        while let Some(context) = this.upgrade() {
            let files = context.tls.files().next().is_some();
            let interval = if files {
                context.tls.options.reload_interval
            } else {
                NO_FILES
            };
            context.refresh().await;
            context.warn_of_expiry();
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
        let mut reading = self.reading.lock().await;
        let start = || Box::pin(Files::read(self.tls.files().cloned().collect())) as Reading;
        let running = reading.get_or_insert_with(start);
        let Ok(files) = timeout(LIMIT, running).await else {
            return self.set_trouble(Some(format!("reading the files takes more than {LIMIT:?}")));
        };
        *reading = None;
        let digest = files.digest();
        if self.loaded() == Some(digest) {
            return self.set_trouble(None);
        }
        match Material::of(&self.tls, self.protocol, &files) {
            Ok(material) => {
                self.replace(material, digest);
                self.set_trouble(None);
            }
            // What has failed may succeed at the next look, though nothing has changed.
            Err(error) => self.set_trouble(Some(error.to_string())),
        }
    }

    fn set_trouble(&self, trouble: Option<String>) {
        let mut last = lock(&self.trouble);
        if last.as_deref() == trouble.as_deref() {
            return;
        }
        *last = trouble.clone().map(Into::into);
        drop(last);
        if let Some(trouble) = trouble {
            self.counts.failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                trouble,
                "TLS files can't be used; what was good before stays in use"
            );
        }
    }
}
