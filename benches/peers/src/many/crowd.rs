//! What thousands of endpoints cost a client.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::variants::{Calls, Job};
use crate::{Failure, alloc, process};

/// What is given up waiting for.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// Handshakes that are under way end meanwhile.
const SETTLE: Duration = Duration::from_secs(1);
/// Calls per endpoint, on average, after which memory is read again.
const CALLS: usize = 2;

/// The state before there was a client.
pub struct Crowd {
    endpoints: usize,
    /// How many of them it connects to.
    expected: usize,
    start: Instant,
    rss_kib: u64,
    files: usize,
    tasks: usize,
}

pub struct Figures {
    endpoints: usize,
    expected: usize,
    made: Duration,
    first_call: Duration,
    connected: Duration,
    connections: usize,
    tasks: usize,
    /// KiB, without that before.
    heap_kib: f64,
    idle_kib: u64,
    used_kib: u64,
}

impl Crowd {
    pub fn new(endpoints: usize, expected: usize) -> Result<Self, Failure> {
        alloc::count(true);
        Ok(Self {
            endpoints,
            expected,
            start: Instant::now(),
            rss_kib: process::rss_kib()?,
            files: files()?,
            tasks: Handle::current().metrics().num_alive_tasks(),
        })
    }

    fn connections(&self) -> Result<usize, Failure> {
        Ok(files()?.saturating_sub(self.files))
    }

    fn rss_kib(&self) -> Result<u64, Failure> {
        Ok(process::rss_kib()?.saturating_sub(self.rss_kib))
    }
}

impl Job for Crowd {
    type Output = Result<Figures, Failure>;

    async fn run(self, mut client: impl Calls) -> Self::Output {
        let made = self.start.elapsed();
        client.call().await?;
        let first_call = self.start.elapsed();
        let mut connected = self.start.elapsed();
        while self.connections()? < self.expected && connected < CONNECT_LIMIT {
            // Counting thousands of files takes a while, and the client's only thread.
            let counting = self.start.elapsed() - connected;
            sleep(counting * 10 + Duration::from_millis(1)).await;
            connected = self.start.elapsed();
        }
        sleep(SETTLE).await;
        let connections = self.connections()?;
        let tasks = Handle::current().metrics().num_alive_tasks();
        let heap_kib = alloc::held() as f64 / 1024.0;
        let idle_kib = self.rss_kib()?;
        for _ in 0..CALLS * self.endpoints {
            client.call().await?;
        }
        Ok(Figures {
            endpoints: self.endpoints,
            expected: self.expected,
            made,
            first_call,
            connected,
            connections,
            // The one that runs this is no part of the client.
            tasks: tasks.saturating_sub(self.tasks + 1),
            heap_kib,
            idle_kib,
            used_kib: self.rss_kib()?,
        })
    }
}

/// Open files of this process.
fn files() -> Result<usize, Failure> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

impl Figures {
    pub fn print_head() {
        println!(
            "| client | made after | first call after | all sockets open after | connections | tasks | heap per endpoint, idle | RSS per endpoint, idle | RSS per endpoint, after {CALLS} calls |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    }
}

/// A row of the table.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = |sum: f64| sum / self.endpoints as f64;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        write!(
            f,
            "{:.1} ms | {:.1} ms | ",
            ms(self.made),
            ms(self.first_call)
        )?;
        match self.connections >= self.expected {
            true => write!(f, "{:.0} ms | ", ms(self.connected))?,
            false => write!(f, "not in {} s | ", CONNECT_LIMIT.as_secs())?,
        }
        write!(
            f,
            "{} | {} | {:.2} KiB | {:.2} KiB | {:.2} KiB",
            self.connections,
            self.tasks,
            each(self.heap_kib),
            each(self.idle_kib as f64),
            each(self.used_kib as f64),
        )
    }
}
