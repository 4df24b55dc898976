//! A server's thread with a runtime of its own, which can be ended at once.

use std::future::Future;
use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};

use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// Runs one future, and the tasks it spawns, on a thread of its own.
///
/// Being apart from the test's runtime has two uses: [`kill`](Self::kill) drops every task and socket together, as the
/// death of a process does, and the test's own task count stays free of the server's.
///
/// A panic of the future is passed on to whoever kills, joins or drops this.
#[derive(Debug)]
pub struct ServerThread {
    kill: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl ServerThread {
    /// Starts the thread. `main` is called on it, inside the new runtime.
    pub fn start<F, Fut>(name: &str, main: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()>,
    {
        let (kill, killed) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let run = move || {
            // Dropped when the thread is through, by return or by panic.
            let _end: oneshot::Sender<()> = end;
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be built");
            runtime.block_on(async {
                tokio::select! {
                    () = async { main().await } => {}
                    _ = killed => {}
                }
            });
            drop(runtime);
        };
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .expect("a thread can be started");
        Self {
            kill: Some(kill),
            ended,
            thread: Some(thread),
        }
    }

    /// Drops the future and the whole runtime, and returns when they are gone. Sockets are closed without a word of
    /// HTTP/2, which is all that the network sees of a SIGKILL.
    pub fn kill(&mut self) {
        if let Some(kill) = self.kill.take() {
            let _ = kill.send(());
        }
        self.join();
    }

    /// Waits until the future returned by itself and the runtime is gone.
    pub async fn ended(&mut self) {
        // An error is the end: nothing is ever sent.
        let _ = (&mut self.ended).await;
        self.join();
    }

    fn join(&mut self) {
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

impl Drop for ServerThread {
    fn drop(&mut self) {
        self.kill();
    }
}
