//! The only place that spawns: every task has an owner, and ends with it.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::{Error, Kind};

/// The tasks of one channel.
///
/// They run on the runtime where the channel was made, whichever thread asks for them.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    runtime: Handle,
    tracker: TaskTracker,
    cancelled: CancellationToken,
    /// A child of it.
    stopped: CancellationToken,
}

impl Tasks {
    /// # Errors
    ///
    /// Outside a tokio runtime.
    pub(crate) fn new() -> Result<Self, Error> {
        let runtime = Handle::try_current().map_err(|cause| {
            Error::new(
                Kind::Config,
                tonic::Code::FailedPrecondition,
                "runtime: a channel must be made inside a tokio runtime with IO and time enabled",
            )
            .because(cause)
        })?;
        let cancelled = CancellationToken::new();
        Ok(Self {
            runtime,
            tracker: TaskTracker::new(),
            stopped: cancelled.child_token(),
            cancelled,
        })
    }

    /// Runs `task` until it ends or [`cancel`](Self::cancel) is called.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.spawn_until(&self.cancelled, task)
    }

    /// Like [`spawn`](Self::spawn), for a task that no call needs any more once the channel closes: it also ends when
    /// [`stop`](Self::stop) is called.
    #[cfg(feature = "__tls")]
    pub(crate) fn spawn_attendant(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_until(&self.stopped, task);
    }

    fn spawn_until(
        &self,
        end: &CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        // A child of its own: a task that is polled often must not share a lock with the others.
        let end = end.child_token();
        let task = async move {
            end.run_until_cancelled(task).await;
        };
        self.tracker.spawn_on(task, &self.runtime).abort_handle()
    }

    /// Like [`spawn`](Self::spawn); the task also ends when the returned guard is dropped.
    pub(crate) fn spawn_guarded(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortOnDrop {
        AbortOnDrop(self.spawn(task))
    }

    /// Ends the attendants, so that only what calls need is waited for.
    pub(crate) fn stop(&self) {
        self.stopped.cancel();
    }

    /// Resolves once [`stop`](Self::stop) or [`cancel`](Self::cancel) is called.
    pub(crate) async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    /// Ends all tasks, wherever they are; connections close. New ones end at once.
    pub(crate) fn cancel(&self) {
        self.cancelled.cancel();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    /// Resolves once all tasks have ended.
    pub(crate) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Ends its task when dropped.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
