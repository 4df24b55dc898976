//! The client process's part: one connection after the other, each for one call.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Sessions;
use crate::histogram::Histogram;
use crate::options::Options;
use crate::target::Target;
use crate::tls::ClientTls;
use crate::variants::{Calls, Job, Variant};
use crate::{Failure, process};

/// What a run showed.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Connections per second.
    pub rate: f64,
    /// Microseconds of the client's CPU per connection.
    pub cpu: f64,
    /// Microseconds from the start of a call to its answer; the connection is made in that time, or a part of it.
    pub p50: f64,
    pub p99: f64,
    /// Calls that failed, per connection.
    pub failed: f64,
}

pub fn run(options: &Options) -> Result<(), Failure> {
    process::die_with_parent()?;
    let ([variant], [sessions]) = (&options.variants[..], &options.sessions[..]) else {
        return Err("one --variant, one --sessions".into());
    };
    if let Some(cpu) = options.cpu {
        process::pin(cpu)?;
    }
    let tls = match &options.credentials {
        Some(directory) => Some(ClientTls::read(directory, *sessions != Sessions::Off)?),
        None => None,
    };
    let target = Target::new(options.at.clone(), 100, 1).with_tls(tls.map(Arc::new));
    let window = Duration::from_secs_f64(options.seconds.unwrap_or(0.6));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let figures = runtime.block_on(async {
        // On the worker, where users make their clients.
        let (variant, sessions) = (*variant, *sessions);
        tokio::spawn(measure(variant, sessions, target, window)).await?
    })?;
    println!("{figures}");
    runtime.shutdown_background();
    Ok(())
}

async fn measure(
    variant: Variant,
    sessions: Sessions,
    target: Target,
    window: Duration,
) -> Result<Figures, Failure> {
    // Bare connections are made anew in any case; what they share are the sessions.
    if sessions == Sessions::NewClient || variant == Variant::Hyper {
        let mut meter = Meter::new(window);
        while !meter.is_over()? {
            let start = Instant::now();
            let result = variant.connect(&target, Once).await;
            meter.note(start, result.and_then(|it| it))?;
        }
        return meter.figures();
    }
    variant.connect(&target, Again(window)).await?
}

/// One call.
struct Once;

impl Job for Once {
    type Output = Result<(), Failure>;

    async fn run(self, mut client: impl Calls) -> Self::Output {
        client.call().await
    }
}

/// Calls for so long. The server ends the connection with each.
struct Again(Duration);

impl Job for Again {
    type Output = Result<Figures, Failure>;

    async fn run(self, mut client: impl Calls) -> Self::Output {
        let mut meter = Meter::new(self.0);
        while !meter.is_over()? {
            let start = Instant::now();
            let result = client.call().await;
            meter.note(start, result)?;
        }
        meter.figures()
    }
}

/// Looks at the clock: a third of the window to warm up, then the window.
struct Meter {
    window: Duration,
    began: Instant,
    /// When the window began, and the CPU time by then.
    measured: Option<(Instant, Duration)>,
    latencies: Histogram,
    done: u64,
    failed: u64,
}

impl Meter {
    fn new(window: Duration) -> Self {
        Self {
            window,
            began: Instant::now(),
            measured: None,
            latencies: Histogram::new(),
            done: 0,
            failed: 0,
        }
    }

    fn is_over(&mut self) -> Result<bool, Failure> {
        match self.measured {
            Some((start, _)) => Ok(start.elapsed() >= self.window),
            None if self.began.elapsed() < self.window / 3 => Ok(false),
            None => {
                self.measured = Some((Instant::now(), process::cpu_time()?));
                (self.done, self.failed) = (0, 0);
                self.latencies.clear();
                Ok(false)
            }
        }
    }

    /// A call that fails has met the end of the connection before; only if none succeeds there is something wrong.
    fn note(&mut self, start: Instant, result: Result<(), Failure>) -> Result<(), Failure> {
        match result {
            Ok(()) => {
                self.done += 1;
                self.latencies.record(start.elapsed());
            }
            Err(error) if self.done == 0 && self.failed > 1_000 => return Err(error),
            Err(_) => self.failed += 1,
        }
        Ok(())
    }

    fn figures(&self) -> Result<Figures, Failure> {
        let Some((start, cpu)) = self.measured.filter(|_| self.done > 0) else {
            return Err("no call ended in the time given".into());
        };
        let (done, wall) = (self.done as f64, start.elapsed());
        let [p50, p99, _] = self.latencies.quantiles([0.5, 0.99, 0.999]);
        Ok(Figures {
            rate: done / wall.as_secs_f64(),
            cpu: (process::cpu_time()? - cpu).as_secs_f64() * 1e6 / done,
            p50,
            p99,
            failed: self.failed as f64 / done,
        })
    }
}

/// How a client process hands it to the process that started it: one line.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rate,
            cpu,
            p50,
            p99,
            failed,
        } = self;
        write!(f, "{rate} {cpu} {p50} {p99} {failed}")
    }
}

impl FromStr for Figures {
    type Err = Failure;

    fn from_str(line: &str) -> Result<Self, Failure> {
        let numbers: Result<Vec<f64>, _> = line.split(' ').map(str::parse).collect();
        let [rate, cpu, p50, p99, failed] = numbers?[..] else {
            return Err("there are five figures".into());
        };
        Ok(Self {
            rate,
            cpu,
            p50,
            p99,
            failed,
        })
    }
}
