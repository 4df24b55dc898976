//! The open loop.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::Failure;
use crate::histogram::Histogram;
use crate::variants::{Calls, Job};

const CALLS_PER_SECOND: f64 = 3_000.0;

/// Calls before the load, one after the other: clients that connect with their first calls do it then.
const FIRST: usize = 30;

/// Calls at random times (a Poisson process), each started when it is due, whether or not others have ended.
pub struct Load(pub Duration);

/// What became of them.
#[derive(Clone, Copy, Debug)]
pub struct Tail {
    /// The latencies that 50, 90, 99 and 99.9 % did not exceed, in microseconds from when a call was due.
    pub quantiles: [f64; 4],
    pub calls: u64,
    pub failed: u64,
}

impl Job for Load {
    type Output = Result<Tail, Failure>;

    async fn run(self, client: impl Calls) -> Self::Output {
        let mut first = client.clone();
        for _ in 0..FIRST {
            first.call().await?;
        }
        let (latencies, failed) = (Arc::new(Histogram::new()), Arc::new(AtomicU64::new(0)));
        let runtime = Handle::current();
        // The runtime's timer ticks every millisecond: calls would come in bursts, and late.
        let pace = {
            let (latencies, failed) = (Arc::clone(&latencies), Arc::clone(&failed));
            move || {
                let (start, mut due) = (Instant::now(), Duration::ZERO);
                let mut calls = Vec::new();
                loop {
                    due += Duration::from_secs_f64(gap());
                    if due > self.0 {
                        return calls;
                    }
                    let at = start + due;
                    thread::sleep(at.saturating_duration_since(Instant::now()));
                    let mut client = client.clone();
                    let (latencies, failed) = (Arc::clone(&latencies), Arc::clone(&failed));
                    calls.push(runtime.spawn(async move {
                        if client.call().await.is_err() {
                            failed.fetch_add(1, Relaxed);
                        }
                        latencies.record(at.elapsed());
                    }));
                }
            }
        };
        let calls = tokio::task::spawn_blocking(pace).await?;
        let started = calls.len() as u64;
        for call in calls {
            call.await?;
        }
        Ok(Tail {
            quantiles: latencies.quantiles([0.5, 0.9, 0.99, 0.999]),
            calls: started,
            failed: failed.load(Relaxed),
        })
    }
}

/// The seconds between two calls: exponentially distributed.
fn gap() -> f64 {
    -(1.0 - fastrand::f64()).ln() / CALLS_PER_SECOND
}

/// How a client process hands it to the process that started it: one line.
impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.calls, self.failed)?;
        self.quantiles.iter().try_for_each(|it| write!(f, " {it}"))
    }
}

impl FromStr for Tail {
    type Err = Failure;

    fn from_str(line: &str) -> Result<Self, Failure> {
        let numbers: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
        let [calls, failed, quantiles @ ..] = &numbers?[..] else {
            return Err("not a tail".into());
        };
        Ok(Self {
            quantiles: quantiles.try_into()?,
            calls: *calls as u64,
            failed: *failed as u64,
        })
    }
}
