//! A client process: a closed loop of callers, each with one call in flight, over one variant.
//!
//! First the callers warm up, then they are timed, then their allocations are counted. Memory is read between the
//! two. Latencies of a closed loop show how long calls queue in the client, and are no measure of a service.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::histogram::Histogram;
use crate::sample::Sample;
use crate::target::Target;
use crate::variants::{Calls, Job, Variant};
use crate::{Failure, alloc, process};

pub struct Client {
    pub variant: Variant,
    pub target: Target,
    pub callers: usize,
    pub workers: usize,
    pub cpu: Option<usize>,
}

impl Client {
    /// Calls for a time and says what it showed.
    pub fn measure(&self, window: Duration) -> Result<Sample, Failure> {
        self.run(Measure {
            callers: self.callers,
            window,
        })
    }

    /// Makes this many calls, and says how long they took.
    pub fn count(&self, calls: u64) -> Result<Duration, Failure> {
        self.run(Count {
            callers: self.callers,
            calls,
        })
    }

    fn run<T>(&self, job: impl Job<Output = Result<T, Failure>>) -> Result<T, Failure> {
        if let Some(cpu) = self.cpu {
            process::pin(cpu)?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(self.workers)
            .enable_all()
            .build()?;
        let result = runtime.block_on(self.variant.connect(&self.target, job))?;
        // Nothing needs to end in good order.
        runtime.shutdown_background();
        result
    }
}

struct Measure {
    callers: usize,
    window: Duration,
}

/// What the callers share.
#[derive(Default)]
struct Shared {
    calls: AtomicU64,
    stop: AtomicBool,
}

impl Job for Measure {
    type Output = Result<Sample, Failure>;

    async fn run(self, client: impl Calls) -> Self::Output {
        let shared = Arc::new(Shared::default());
        let latencies = Arc::new(Histogram::new());
        let mut callers = JoinSet::new();
        for _ in 0..self.callers {
            let mut client = client.clone();
            let (shared, latencies) = (Arc::clone(&shared), Arc::clone(&latencies));
            callers.spawn(async move {
                while !shared.stop.load(Relaxed) {
                    let start = Instant::now();
                    client.call().await?;
                    latencies.record(start.elapsed());
                    shared.calls.fetch_add(1, Relaxed);
                }
                Ok(())
            });
        }
        let calls = || shared.calls.load(Relaxed);
        pause(&mut callers, self.window / 3).await?;

        latencies.clear();
        let (writes, cpu) = (process::writes()?, process::cpu_time()?);
        let (start, before) = (Instant::now(), calls());
        pause(&mut callers, self.window).await?;
        let (done, wall) = ((calls() - before) as f64, start.elapsed());
        let (cpu, writes) = (process::cpu_time()? - cpu, process::writes()? - writes);
        let [p50, p99, p999] = latencies.quantiles([0.5, 0.99, 0.999]);
        let rss = process::rss_kib()?;

        let before = calls();
        alloc::count(true);
        pause(&mut callers, self.window / 3).await?;
        alloc::count(false);
        let (allocations, bytes) = alloc::counted();
        let counted = (calls() - before) as f64;

        shared.stop.store(true, Relaxed);
        if done == 0.0 || counted == 0.0 {
            return Err("no call ended in the time given".into());
        }
        Ok(Sample([
            done / wall.as_secs_f64(),
            cpu.as_secs_f64() * 1e6 / done,
            allocations as f64 / counted,
            bytes as f64 / counted,
            writes as f64 / done,
            rss as f64,
            p50,
            p99,
            p999,
        ]))
    }
}

/// Lets the callers call. They end only by failing.
async fn pause(callers: &mut JoinSet<Result<(), Failure>>, time: Duration) -> Result<(), Failure> {
    match tokio::time::timeout(time, callers.join_next()).await {
        Ok(Some(ended)) => ended?,
        _ => Ok(()),
    }
}

struct Count {
    callers: usize,
    calls: u64,
}

impl Job for Count {
    type Output = Result<Duration, Failure>;

    async fn run(self, client: impl Calls) -> Self::Output {
        let left = Arc::new(AtomicI64::new(self.calls as i64));
        let start = Instant::now();
        let mut callers = JoinSet::new();
        for _ in 0..self.callers {
            let (mut client, left) = (client.clone(), Arc::clone(&left));
            callers.spawn(async move {
                while left.fetch_sub(1, Relaxed) > 0 {
                    client.call().await?;
                }
                Ok::<_, Failure>(())
            });
        }
        while let Some(ended) = callers.join_next().await {
            ended??;
        }
        Ok(start.elapsed())
    }
}
