//! Opening connections: one at a time, in a task of its own, with backoff.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use deadpool::managed::{PoolError, Timeouts};

use crate::error::{Error, Kind, Stage};
use crate::lock::lock;
use crate::retry::Backoff;
use crate::time::Instant;
use crate::transport::connection::End;
use crate::transport::dial::{BoxIo, DialError};

use super::connections::{Book, Pool, Queue};
use super::options::PROVEN_AFTER;

/// Where the dialling of one endpoint stands.
#[derive(Debug)]
pub(super) struct Dialling {
    /// The task exists.
    running: bool,
    /// A connection is wanted although no call waits in the pool: the first one, one that replaces a
    /// failure, or one that a call asked an idle endpoint for.
    owed: bool,
    /// Since the last success something failed.
    failing: bool,
    /// Failures in a row, as the backoff counts them.
    failures: u32,
    /// Since the pool was made.
    connected: u64,
    failed: u64,
    next: Option<Instant>,
    last_error: Option<Arc<Error>>,
    /// The last success, until its connection has lived long enough.
    unproven: Option<Instant>,
}

impl Default for Dialling {
    fn default() -> Self {
        Self {
            running: false,
            owed: true,
            failing: false,
            failures: 0,
            connected: 0,
            failed: 0,
            next: None,
            last_error: None,
            unproven: None,
        }
    }
}

impl Dialling {
    pub(super) fn is_running(&self) -> bool {
        self.running
    }

    pub(super) fn is_owed(&self) -> bool {
        self.owed
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing
    }

    /// Failures in a row, as far as there was no success after them.
    pub(super) fn failures(&self) -> u32 {
        if self.failing { self.failures } else { 0 }
    }

    /// Successes and failures since the pool was made.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.connected, self.failed)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn last_error(&self) -> Option<Arc<Error>> {
        self.last_error.clone()
    }

    pub(super) fn owe(&mut self) {
        self.owed = true;
    }

    pub(super) fn succeeded(&mut self, now: Instant) {
        self.connected += 1;
        self.owed = false;
        self.failing = false;
        self.next = None;
        self.unproven = Some(now);
    }

    fn failed(&mut self, error: Error, now: Instant, backoff: &Backoff) {
        self.forgive(now);
        self.failed += 1;
        self.count_failure(error, now, backoff);
    }

    /// A connection ended. One that lived long enough starts the backoff anew; one that did neither that nor
    /// serve a call counts as a failure, or a peer that accepts and closes at once would be dialled in a tight
    /// loop: a draining proxy does so, with an orderly GOAWAY. One that served calls was good, however short:
    /// nginx retires connections after a number of requests, and a network may reset any of them. No peer that is
    /// well breaks the protocol.
    pub(super) fn lost(
        &mut self,
        end: &End,
        lived: Duration,
        served: bool,
        now: Instant,
        backoff: &Backoff,
    ) {
        self.forgive(now);
        self.unproven = None;
        if lived < PROVEN_AFTER && !served {
            let error = Error::new(Kind::Connect, tonic::Code::Unavailable, end.to_string());
            self.count_failure(error.in_stage(Stage::Handshake), now, backoff);
            return;
        }
        if lived >= PROVEN_AFTER {
            self.failures = 0;
        }
        self.next = if end.is_orderly() {
            None
        } else {
            // All clients of a server that died notice at once: spread them before the first redial too.
            Some(now + backoff.delay(1, 0.5).mul_f64(fastrand::f64()))
        };
    }

    fn count_failure(&mut self, error: Error, now: Instant, backoff: &Backoff) {
        // Calls avoid a failing endpoint, so none of them would ask for the next connection.
        self.owed = true;
        self.failing = true;
        self.failures = self.failures.saturating_add(1);
        self.next = Some(now + backoff.delay(self.failures, fastrand::f64()));
        self.last_error = Some(Arc::new(error));
    }

    /// The last connection has proven itself since.
    fn forgive(&mut self, now: Instant) {
        if self
            .unproven
            .is_some_and(|at| now.saturating_duration_since(at) >= PROVEN_AFTER)
        {
            self.failures = 0;
            self.unproven = None;
        }
    }
}

/// deadpool must not wait: calls queue here, and this pool limits the time.
const AT_ONCE: Timeouts = Timeouts {
    wait: Some(Duration::ZERO),
    create: None,
    recycle: None,
};

impl Pool {
    /// Opens a stream as its connections do, for somebody who only asks whether that can be done.
    ///
    /// # Errors
    ///
    /// If it can't, or the peer is not what it should be.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the stream.
    pub(crate) async fn open_stream(&self) -> Result<BoxIo, DialError> {
        self.objects.manager().dial().await
    }

    /// Starts the dialling task if there is none and one is wanted.
    pub(super) fn dial_if_wanted(&self, book: &mut Book, waiting: usize) {
        if book.dialling.running || !self.wants_connection(book, waiting) {
            return;
        }
        let Some(pool) = self.this.upgrade() else {
            return;
        };
        book.dialling.running = true;
        self.update(book);
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            let unfinished = Unfinished(Some(Arc::clone(&pool)));
            closing.run_until_cancelled(pool.dial()).await;
            unfinished.finished();
        });
    }

    /// Dials until no more connections are wanted.
    async fn dial(&self) {
        let mut demand = Demand::default();
        loop {
            let next = lock(&self.book).dialling.next;
            if let Some(at) = next {
                tokio::time::sleep_until(at).await;
            }
            let dial = || self.objects.timeout_get(&AT_ONCE);
            let dialled = self.gate.pass(dial).await;
            demand.unserved(&self.queue);
            match dialled {
                Ok(object) => {
                    let room = self.admit(object);
                    demand.serve(room, &self.queue);
                }
                Err(PoolError::Backend(error)) => self.dial_failed(error),
                // Closed, or at the maximum: whoever frees a place looks again, unless it was freed just now,
                // while this task was still running.
                Err(_) => {
                    let mut book = lock(&self.book);
                    if self.objects.status().size < self.options.max
                        && self.wants_connection(&book, self.queue.len())
                    {
                        continue;
                    }
                    return self.stop(&mut book);
                }
            }
            // Who has entered the queue, and has not looked yet, finds this.
            let found = self.room.available();
            let waiting = demand.unserved(&self.queue).saturating_sub(found);
            let mut book = lock(&self.book);
            if !self.wants_connection(&book, waiting) {
                return self.stop(&mut book);
            }
        }
    }

    fn stop(&self, book: &mut Book) {
        book.dialling.running = false;
        self.update(book);
    }

    fn dial_failed(&self, error: Error) {
        tracing::debug!(endpoint = %self.objects.manager().address, %error, "dial failed");
        let mut book = lock(&self.book);
        book.dialling
            .failed(error, Instant::now(), &self.options.backoff);
        self.update(&mut book);
    }
}

/// Counts the calls that no connection so far has room for. Those that a new connection served stand in the
/// queue until they run, and would otherwise ask for one connection too many.
#[derive(Default)]
struct Demand {
    /// Calls that were served and may not have left the queue yet.
    served: usize,
    /// How many had left it at the last look.
    left: usize,
}

impl Demand {
    fn unserved(&mut self, queue: &Queue) -> usize {
        let left = queue.left.load(Ordering::Acquire);
        let entered = queue.entered.load(Ordering::Acquire);
        self.served = self.served.saturating_sub(left - self.left);
        self.left = left;
        (entered - left).saturating_sub(self.served)
    }

    /// There is room for so many more. It also served those that entered the queue, or left it, since the last
    /// look at what is unserved.
    fn serve(&mut self, room: usize, queue: &Queue) {
        let entered = queue.entered.load(Ordering::Acquire);
        let unserved = (entered - self.left).saturating_sub(self.served);
        self.served += room.min(unserved);
    }
}

/// Keeps a dialler that panics from ending an endpoint for good.
struct Unfinished(Option<Arc<Pool>>);

impl Unfinished {
    fn finished(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(pool) = self.0.take() else { return };
        let mut book = lock(&pool.book);
        book.dialling.running = false;
        // Else the channel is ending.
        if std::thread::panicking() {
            let error = Error::new(Kind::Connect, tonic::Code::Internal, "the dialler panicked");
            book.dialling
                .failed(error, Instant::now(), &pool.options.backoff);
            pool.update(&mut book);
            pool.dial_if_wanted(&mut book, pool.queue.len());
        }
    }
}
