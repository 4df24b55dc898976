//! Work on files, which may lie on a drive that does not answer.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
#[cfg(any(test, feature = "__tls"))]
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
#[cfg(any(test, feature = "__tls"))]
use std::time::Duration;

use tokio::sync::oneshot;

use crate::lock::lock;

/// Does `work`, which is about the file at `path`, on a thread that is none of the runtime's: a runtime waits for its own
/// when it ends, and nothing ends a thread that waits for a server that is gone.
///
/// A file has one such thread in all of the process, however many ask for it, and again and again: what comes meanwhile
/// waits for its turn. The caller limits the time.
///
/// # Errors
///
/// Those of the work, and if there is no thread for it, or it panics.
///
/// # Cancel safety
///
/// Work that has not begun is not done any more; what has begun goes on to its end.
pub(crate) async fn run<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (send, receive) = oneshot::channel();
    let wanted = Arc::new(());
    submit(path, &wanted, move || drop(send.send(work())))?;
    receive.await.unwrap_or_else(|_| Err(gone()))
}

/// The same for a caller that has no runtime, or does not tell it. It waits for at most this long; then there is `None`.
#[cfg(any(test, feature = "__tls"))]
pub(crate) fn run_within<T: Send + 'static>(
    path: &Path,
    limit: Duration,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Option<io::Result<T>> {
    let (send, receive) = sync_channel(1);
    let wanted = Arc::new(());
    if let Err(error) = submit(path, &wanted, move || drop(send.send(work()))) {
        return Some(Err(error));
    }
    match receive.recv_timeout(limit) {
        Ok(done) => Some(done),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(Err(gone())),
    }
}

/// What a file's thread is to do next. It has a thread for as long as it is in here.
static QUEUES: Mutex<BTreeMap<PathBuf, VecDeque<Job>>> = Mutex::new(BTreeMap::new());

struct Job {
    work: Box<dyn FnOnce() + Send>,
    /// Gone with whoever waits for it.
    wanted: Weak<()>,
}

impl Job {
    fn is_wanted(&self) -> bool {
        self.wanted.strong_count() > 0
    }
}

fn submit(path: &Path, wanted: &Arc<()>, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let job = Job {
        work: Box::new(work),
        wanted: Arc::downgrade(wanted),
    };
    let mut queues = lock(&QUEUES);
    if let Some(queue) = queues.get_mut(path) {
        // While it hangs, others come and give up.
        queue.retain(Job::is_wanted);
        queue.push_back(job);
        return Ok(());
    }
    let thread = thread::Builder::new().name("trunkline-file".to_owned());
    let of = path.to_owned();
    thread.spawn(move || work_off(&of))?;
    queues.insert(path.to_owned(), VecDeque::from([job]));
    Ok(())
}

fn work_off(path: &Path) {
    while let Some(job) = next(path) {
        // Whoever waits for one that panics learns it from its sender's end.
        let _ = catch_unwind(AssertUnwindSafe(job.work));
    }
}

/// The next job that somebody waits for. Without one, the file has no thread any more.
fn next(path: &Path) -> Option<Job> {
    let mut queues = lock(&QUEUES);
    let queue = queues.get_mut(path)?;
    queue.retain(Job::is_wanted);
    let next = queue.pop_front();
    if next.is_none() {
        queues.remove(path);
    }
    next
}

fn gone() -> io::Error {
    io::Error::other("the thread that works on it is gone")
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::pin::{Pin, pin};
    use std::sync::mpsc::SyncSender;
    use std::task::Poll;

    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Work that hangs until the sender is dropped.
    fn hanging() -> (SyncSender<()>, impl FnOnce() -> io::Result<()> + Send) {
        let (release, released) = sync_channel(1);
        let work = move || {
            let _ = released.recv();
            Ok(())
        };
        (release, work)
    }

    /// Lets it begin, or wait for its turn.
    async fn begin<F: Future>(mut work: Pin<&mut F>) {
        poll_fn(|cx| {
            assert!(work.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    /// How many wait for this file's thread; `None` if it has none.
    fn waiting(path: &Path) -> Option<usize> {
        lock(&QUEUES).get(path).map(VecDeque::len)
    }

    /// Some(0): its thread is at work, and nobody else waits.
    async fn until(path: &Path, wanted: Option<usize>) {
        let waiting = async {
            while waiting(path) != wanted {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, waiting).await.unwrap();
    }

    #[tokio::test]
    async fn what_hangs_has_one_thread_and_no_queue_of_those_who_gave_up() {
        let (path, other) = (Path::new("one thread"), Path::new("another"));
        let (release, work) = hanging();
        let mut first = pin!(run(path, work));
        begin(first.as_mut()).await;
        until(path, Some(0)).await;
        let thread = async |path| timeout(LIMIT, run(path, || Ok(thread::current().id()))).await;
        // It holds up no other file.
        let others = thread(other).await.unwrap().unwrap();
        for _ in 0..1000 {
            begin(pin!(run(path, || -> io::Result<()> {
                panic!("nobody wants it")
            })))
            .await;
            assert!(waiting(path).unwrap() <= 1);
        }
        assert!(run_within(path, Duration::from_millis(1), || Ok(())).is_none());
        let mut last = pin!(run(path, || Ok(thread::current().id())));
        begin(last.as_mut()).await;
        assert_eq!(waiting(path), Some(1));
        drop(release);
        first.await.unwrap();
        assert_ne!(timeout(LIMIT, last).await.unwrap().unwrap(), others);
        until(path, None).await;
        assert!(thread(path).await.unwrap().is_ok());
    }

    #[test]
    fn what_hangs_keeps_no_runtime_from_its_end() {
        let (release, work) = hanging();
        let path = Path::new("a runtime's end");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut hanging = pin!(run(path, work));
            begin(hanging.as_mut()).await;
            until(path, Some(0)).await;
        });
        let (send, ended) = sync_channel(1);
        let ending = thread::spawn(move || {
            drop(runtime);
            send.send(())
        });
        let ended = ended.recv_timeout(LIMIT);
        drop(release);
        ending.join().unwrap().unwrap();
        ended.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_next_is_done() {
        let path = Path::new("a panic");
        let (release, work) = hanging();
        let mut first = pin!(run(path, work));
        begin(first.as_mut()).await;
        until(path, Some(0)).await;
        let mut second = pin!(run(path, || -> io::Result<()> {
            panic!("as a test wants it")
        }));
        begin(second.as_mut()).await;
        let mut third = pin!(run(path, || Ok(3)));
        begin(third.as_mut()).await;
        drop(release);
        first.await.unwrap();
        assert!(second.await.unwrap_err().to_string().contains("is gone"));
        assert_eq!(timeout(LIMIT, third).await.unwrap().unwrap(), 3);
        let alone = run_within(path, LIMIT, || -> io::Result<()> {
            panic!("as a test wants it")
        });
        assert!(alone.unwrap().is_err());
        assert_eq!(run_within(path, LIMIT, || Ok(4)).unwrap().unwrap(), 4);
        until(path, None).await;
    }
}
