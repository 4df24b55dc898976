//! How long the servers took, each for itself.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;
use trunkline::Channel;

use super::calls::{call_with, request};
use super::rig::{Loads, SINGLE_IDS};

/// The calls that were answered at once or not at all: those of the channel that does not retry. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Timings(Arc<Mutex<Vec<Timing>>>);

#[derive(Clone, Debug)]
struct Timing {
    server: String,
    began: Instant,
    latency: Duration,
}

/// When a part of a load's time began and when it ended.
#[derive(Clone, Copy, Debug)]
pub struct Span(Instant, Instant);

impl Timings {
    /// A call that is timed.
    pub async fn call(self, channel: Channel, id: u64) -> Result<(), Status> {
        let began = Instant::now();
        let reply = call_with(channel, request(id)).await?;
        let latency = began.elapsed();
        if id >= SINGLE_IDS {
            let server = reply.server;
            self.0.lock().unwrap().push(Timing {
                server,
                began,
                latency,
            });
        }
        Ok(())
    }

    /// How long the calls took that these servers answered and that began in this span, the shortest first.
    pub fn sorted(&self, servers: &[&str], span: Span) -> Vec<Duration> {
        let timings = self.0.lock().unwrap();
        let mut latencies: Vec<_> = timings
            .iter()
            .filter(|it| servers.contains(&&*it.server) && span.contains(it.began))
            .map(|it| it.latency)
            .collect();
        latencies.sort();
        latencies
    }

    /// For each call that `slow` answered and that began in this span, how many of the others' began after it and ended
    /// before it.
    pub fn overtaken(&self, slow: &str, span: Span) -> Vec<usize> {
        let timings = self.0.lock().unwrap();
        let (slow, others): (Vec<_>, Vec<_>) = timings.iter().partition(|it| it.server == slow);
        let slow = slow.iter().filter(|it| span.contains(it.began));
        slow.map(|slow| others.iter().filter(|it| it.is_within(slow)).count())
            .collect()
    }
}

impl Timing {
    fn is_within(&self, other: &Self) -> bool {
        other.began < self.began && self.began + self.latency < other.began + other.latency
    }
}

/// What so many percent of sorted times do not exceed. Panics when there are none.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

impl Span {
    /// Waits until this part of the load's time is over: `until(&load, began, 1, 3)` ends after one third.
    pub async fn until(load: &Loads, part: u32, of: u32) -> Self {
        let began = Instant::now();
        load.part(part, of).await;
        Self(began, Instant::now())
    }

    fn contains(&self, instant: Instant) -> bool {
        self.0 <= instant && instant < self.1
    }
}
