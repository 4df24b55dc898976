//! What became of a load's calls, and the score card's line about it.

use std::time::Duration;

use tonic::{Code, Status};

use super::leak::Leak;

/// Marks a status as "the answer was wrong", among those that the channel itself may make.
const WRONG: &str = "x-wrong";

/// The result of a call that was answered OK with the wrong answer: not the request's id or payload, not the server it
/// was sent to, or no message at all. A load counts it apart from calls that failed.
pub fn wrong(why: &str) -> Status {
    let mut status = Status::new(Code::DataLoss, why);
    status.metadata_mut().insert(WRONG, "1".parse().unwrap());
    status
}

/// One call's end.
#[derive(Debug)]
pub struct Outcome {
    pub id: u64,
    /// `None` when the call was given up.
    pub result: Option<Result<(), Status>>,
    /// When it ended, since the start of the load.
    pub at: Duration,
    /// From the time at which it was planned: a call made late has waited.
    pub latency: Duration,
}

/// What became of all calls of a load.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many were made.
    pub sent: u64,
    /// How many came back OK.
    pub ok: u64,
    /// Those that came back with an error.
    pub failed: Vec<Failure>,
    /// Those answered OK with the wrong answer; see [`wrong`].
    pub wrong: Vec<Failure>,
    /// Those that never came back: id, and when they were given up.
    pub lost: Vec<(u64, Duration)>,
    /// How long the ones that came back OK took, in the order of their ends.
    pub latencies: Vec<Duration>,
}

/// A call that did not succeed.
#[derive(Clone, Debug)]
pub struct Failure {
    pub id: u64,
    /// When it came back, since the start of the load.
    pub at: Duration,
    pub status: Status,
}

impl Report {
    pub(super) fn add(&mut self, outcome: Outcome) {
        let Outcome { id, at, .. } = outcome;
        self.sent += 1;
        match outcome.result {
            Some(Ok(())) => {
                self.ok += 1;
                self.latencies.push(outcome.latency);
            }
            Some(Err(status)) => {
                let list = if status.metadata().contains_key(WRONG) {
                    &mut self.wrong
                } else {
                    &mut self.failed
                };
                list.push(Failure { id, at, status });
            }
            None => self.lost.push((id, at)),
        }
    }

    /// Counts a call that a test made outside of a load.
    pub fn count(&mut self, id: u64, result: Result<(), Status>) {
        self.add(Outcome {
            id,
            result: Some(result),
            at: Duration::ZERO,
            latency: Duration::ZERO,
        });
    }

    /// What became of the calls of both loads. The latencies are no longer in the order of their ends.
    pub fn joined(mut self, other: Self) -> Self {
        self.sent += other.sent;
        self.ok += other.ok;
        self.failed.extend(other.failed);
        self.wrong.extend(other.wrong);
        self.lost.extend(other.lost);
        self.latencies.extend(other.latencies);
        self
    }

    /// How long calls went on failing after `healed` (since the start of the load); zero when none did.
    pub fn recovery(&self, healed: Duration) -> Duration {
        let failed = self.failed.iter().chain(&self.wrong).map(|call| call.at);
        let lost = self.lost.iter().map(|&(_, at)| at);
        let last = failed.chain(lost).max().unwrap_or_default();
        last.saturating_sub(healed)
    }

    /// The latency that this share of the OK calls (0 to 1) did not exceed. Panics when none came back OK.
    pub fn latency(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted[rank.clamp(1, sorted.len()) - 1]
    }

    /// The score card's line, as JSON. `duplicates` is what [`duplicates`](super::journal::duplicates) found at the
    /// servers; `recovery` is `None` for a row without a fault.
    pub fn line(
        &self,
        row: &str,
        duplicates: &[u64],
        leak: Leak,
        recovery: Option<Duration>,
    ) -> String {
        self.line_with(row, duplicates, leak, recovery, &[])
    }

    /// The same with figures of the row's own.
    pub fn line_with(
        &self,
        row: &str,
        duplicates: &[u64],
        leak: Leak,
        recovery: Option<Duration>,
        figures: &[(&str, u64)],
    ) -> String {
        let figures: String = figures
            .iter()
            .map(|(name, number)| format!(",{name:?}:{number}"))
            .collect();
        let recovery = recovery.map_or("null".to_owned(), |time| time.as_millis().to_string());
        format!(
            r#"{{"row":{row:?},"lost":{},"wrong":{},"dup":{},"failed":{},"leak":{},"recover_ms":{recovery}{figures}}}"#,
            self.lost.len(),
            self.wrong.len(),
            duplicates.len(),
            self.failed.len(),
            leak.total(),
        )
    }

    /// Prints the line and panics unless nothing was lost, wrong, duplicated or leaked: the zeros of every row.
    pub fn score(&self, row: &str, duplicates: &[u64], leak: Leak, recovery: Option<Duration>) {
        self.score_with(row, duplicates, leak, recovery, &[]);
    }

    /// The same with figures of the row's own.
    pub fn score_with(
        &self,
        row: &str,
        duplicates: &[u64],
        leak: Leak,
        recovery: Option<Duration>,
        figures: &[(&str, u64)],
    ) {
        println!(
            "{}",
            self.line_with(row, duplicates, leak, recovery, figures)
        );
        assert!(self.lost.is_empty(), "{row}: lost {:?}", self.lost);
        assert!(self.wrong.is_empty(), "{row}: wrong {:?}", self.wrong);
        assert!(duplicates.is_empty(), "{row}: twice {duplicates:?}");
        assert_eq!(leak, Leak::default(), "{row}: leaked");
    }
}
