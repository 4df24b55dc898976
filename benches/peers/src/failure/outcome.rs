//! What the calls of a run say.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::scenario::Scenario;
use crate::Failure;

pub struct Call {
    /// When it was due, from the start of the load.
    pub start: Duration,
    /// From when it was due.
    pub latency: Duration,
    /// gRPC's code, if it failed.
    pub error: Option<String>,
}

pub struct Outcome {
    /// Calls that were due after the fault, or in flight when it came.
    calls: usize,
    failed: BTreeMap<String, usize>,
    /// After which time from the fault no call suffered any more.
    ejected: Ejected,
    /// The slowest of the calls that were answered.
    worst: Duration,
}

enum Ejected {
    /// There is no one fault to get over.
    NotAsked,
    /// No call failed or was slow.
    Unnoticed,
    After(Duration),
    /// Calls suffered to the end.
    Never,
}

/// A call that took longer than its server by this much met the dead one.
const SLOW: Duration = Duration::from_millis(100);
/// A client whose calls still suffer in this last part of a run has not got over the fault.
const END: Duration = Duration::from_millis(200);

impl Outcome {
    pub fn of(
        calls: &[Call],
        scenario: Scenario,
        fault: Duration,
        end: Duration,
        delay: Duration,
    ) -> Result<Self, Failure> {
        let early = |call: &&Call| call.start + call.latency < fault;
        if let Some(call) = calls.iter().filter(early).find(|call| call.error.is_some()) {
            return Err(format!("a call failed before the fault: {:?}", call.error).into());
        }
        let after = || calls.iter().filter(|call| !early(call));
        let mut failed = BTreeMap::new();
        for error in after().filter_map(|call| call.error.clone()) {
            *failed.entry(error).or_default() += 1;
        }
        let suffered = |call: &&Call| call.error.is_some() || call.latency > delay + SLOW;
        let last = after().filter(suffered).map(|call| call.start).max();
        let ejected = match last {
            _ if !scenario.is_lasting() => Ejected::NotAsked,
            None => Ejected::Unnoticed,
            Some(last) if last + END >= end => Ejected::Never,
            Some(last) => Ejected::After(last.saturating_sub(fault)),
        };
        let answered = after().filter(|call| call.error.is_none());
        Ok(Self {
            calls: after().count(),
            failed,
            ejected,
            worst: answered.map(|call| call.latency).max().unwrap_or_default(),
        })
    }

    pub fn print_head() {
        println!("| client | calls | failed | | last call hit, after the fault | slowest answer |");
        println!("|---|---:|---:|---|---:|---:|");
    }
}

/// A row of the table.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed: usize = self.failed.values().sum();
        let share = failed as f64 / self.calls.max(1) as f64 * 100.0;
        let codes = self
            .failed
            .iter()
            .map(|(code, count)| format!("{code} {count}"));
        let codes = codes.collect::<Vec<_>>().join(", ");
        write!(f, "{} | {failed} ({share:.1} %) | {codes} | ", self.calls)?;
        match self.ejected {
            Ejected::NotAsked => f.write_str("")?,
            Ejected::Unnoticed => f.write_str("none hit")?,
            Ejected::After(time) => write!(f, "{} ms", time.as_millis())?,
            Ejected::Never => f.write_str("never ends")?,
        }
        write!(f, " | {:.1} ms", self.worst.as_secs_f64() * 1e3)
    }
}
