//! Calls at a steady rate, whether or not the ones before have come back (open loop).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinHandle, JoinSet, yield_now};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;

use super::report::{Outcome, Report};

/// A call that is still open this long after its deadline is lost.
const LOST_AFTER: Duration = Duration::from_millis(50);

/// How many calls to make, and when.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    rate: f64,
    duration: Duration,
    deadline: Duration,
    first_id: u64,
}

impl Load {
    /// So many calls per second, for one second, each with a deadline of one second, their ids from 1.
    pub fn new(rate: f64) -> Self {
        Self {
            rate,
            duration: Duration::from_secs(1),
            deadline: Duration::from_secs(1),
            first_id: 1,
        }
    }

    /// For how long calls are made.
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    /// What each call is given by the test's own code. The load gives up 50 ms later and counts it as lost.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The id of the first call; the others follow one by one.
    pub fn first_id(mut self, id: u64) -> Self {
        self.first_id = id;
        self
    }

    /// Makes all the calls and waits for them.
    pub async fn run<F, Fut>(self, call: F) -> Report
    where
        F: Fn(u64) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Status>> + Send + 'static,
    {
        self.start(call).finish().await
    }

    /// Begins to make the calls; the test can do harm meanwhile.
    pub fn start<F, Fut>(self, call: F) -> RunningLoad
    where
        F: Fn(u64) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let began = Instant::now();
        let counts = Arc::new(Counts::default());
        let task = tokio::spawn(self.make_calls(began, Arc::clone(&counts), call));
        RunningLoad {
            began,
            counts,
            stop: StopOnDrop(task.abort_handle()),
            task,
        }
    }

    async fn make_calls<F, Fut>(self, began: Instant, counts: Arc<Counts>, call: F) -> Report
    where
        F: Fn(u64) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let total = (self.rate * self.duration.as_secs_f64()).round() as u64;
        let mut calls = JoinSet::new();
        let mut report = Report::default();
        for nth in 0..total {
            let planned = began + Duration::from_secs_f64(nth as f64 / self.rate);
            sleep_until(planned).await;
            let id = self.first_id + nth;
            let (call, limit) = (call(id), self.deadline + LOST_AFTER);
            let counts = Arc::clone(&counts);
            counts.sent.fetch_add(1, SeqCst);
            calls.spawn(async move {
                // From here on, as the call's own deadline: on a busy machine it may begin late.
                let result = tokio::select! {
                    biased;
                    result = call => Some(result),
                    () = is_over(limit) => None,
                };
                counts.note(result.as_ref());
                Outcome {
                    id,
                    result,
                    at: began.elapsed(),
                    latency: planned.elapsed(),
                }
            });
            while let Some(done) = calls.try_join_next() {
                report.add(done.expect("a call does not panic"));
            }
        }
        while let Some(done) = calls.join_next().await {
            report.add(done.expect("a call does not panic"));
        }
        report
    }
}

/// Returns after this time. Where the runtime itself was late, what ended in time has a few turns more to say so.
async fn is_over(limit: Duration) {
    sleep(limit).await;
    for _ in 0..10 {
        yield_now().await;
    }
}

/// A load in the making. Dropping it ends its calls.
#[derive(Debug)]
pub struct RunningLoad {
    began: Instant,
    counts: Arc<Counts>,
    task: JoinHandle<Report>,
    stop: StopOnDrop,
}

impl RunningLoad {
    /// The time since the start: the clock of the report's times.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Calls made so far.
    pub fn sent(&self) -> u64 {
        self.counts.sent.load(SeqCst)
    }

    /// Calls that came back OK so far.
    pub fn ok(&self) -> u64 {
        self.counts.ok.load(SeqCst)
    }

    /// Calls that failed or were lost so far.
    pub fn not_ok(&self) -> u64 {
        self.counts.not_ok.load(SeqCst)
    }

    /// Waits until every call was made and came back or was given up.
    pub async fn finish(self) -> Report {
        self.task.await.expect("no call panicked")
    }
}

#[derive(Debug)]
struct StopOnDrop(AbortHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    ok: AtomicU64,
    not_ok: AtomicU64,
}

impl Counts {
    fn note(&self, result: Option<&Result<(), Status>>) {
        let count = match result {
            Some(Ok(())) => &self.ok,
            _ => &self.not_ok,
        };
        count.fetch_add(1, SeqCst);
    }
}
