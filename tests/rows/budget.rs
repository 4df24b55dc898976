//! How much load retries add, as the servers see it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rig::{Loads, SINGLE_IDS};

/// The window of the channels' budgets.
pub const WINDOW: Duration = Duration::from_secs(10);

/// The budget counts a retry when it is granted, and it comes up to 120 ms later: those of a little more than a window
/// may come within one.
pub const LATE: f64 = 1.02;

/// What retries added, by this time since the start of the load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    pub at: Duration,
    /// For the calls marked idempotent, and for the others.
    sides: [Side; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Side {
    calls: u64,
    /// What the servers handled beyond the first time.
    extra: u64,
}

impl Sample {
    /// What was called so far, of which the servers handled each id that often.
    pub fn take(load: &Loads, mut handled: BTreeMap<u64, u64>) -> Self {
        let at = load.elapsed();
        let single = handled.split_off(&SINGLE_IDS);
        let side = |calls, handled: BTreeMap<u64, u64>| Side {
            calls,
            extra: handled.into_values().map(|times| times - 1).sum(),
        };
        let retrying = side(load.retrying.sent(), handled);
        let single = side(load.single.sent(), single);
        Self {
            at,
            sides: [retrying, single],
        }
    }

    pub fn calls(&self) -> u64 {
        self.sides.iter().map(|it| it.calls).sum()
    }

    pub fn extra(&self) -> u64 {
        self.sides.iter().map(|it| it.extra).sum()
    }
}

/// For each id the number of times that all of these handled it.
pub fn sum(handled: impl IntoIterator<Item = BTreeMap<u64, u64>>) -> BTreeMap<u64, u64> {
    let mut sum = BTreeMap::<u64, u64>::new();
    for (id, times) in handled.into_iter().flatten() {
        *sum.entry(id).or_default() += times;
    }
    sum
}

/// Asserts that in no window either channel added more than a fifth of its calls and ten a second. Gives the most that
/// was added in a window, as a share of what might have been, in percent.
pub fn within_budget(samples: &[Sample]) -> u64 {
    let mut most = 0.0_f64;
    for end in samples {
        // The window begins between two samples: what was added is counted from the second, what paid for it from the first.
        let (paid, start) = match end.at.checked_sub(WINDOW) {
            None => <(Sample, Sample)>::default(),
            Some(first) => {
                let next = samples.partition_point(|it| it.at < first);
                let before = next.checked_sub(1).map(|it| samples[it]);
                (before.unwrap_or_default(), samples[next])
            }
        };
        for side in [0, 1] {
            let (before, after) = (start.sides[side], end.sides[side]);
            let extra = (after.extra - before.extra) as f64;
            let calls = (after.calls - paid.sides[side].calls) as f64;
            let allowed = 0.2 * calls + 10.0 * WINDOW.as_secs_f64();
            let last = end.at;
            assert!(
                extra <= allowed * LATE,
                "{before:?} to {after:?} at {last:?}"
            );
            most = most.max(extra / allowed);
        }
    }
    (most * 100.0).round() as u64
}

/// Asserts that while all calls failed, between these samples, there were at most so many attempts. Gives the calls and
/// the attempts.
pub fn attempts_within_budget(before: &Sample, after: &Sample) -> (u64, u64) {
    let called = after.calls() - before.calls();
    let attempts = called + after.extra() - before.extra();
    // In less than a window, all that was paid before the fault and the floor of a whole window can come at once.
    let (paid, time) = match after.at - before.at {
        time if time >= WINDOW => (called, time),
        _ => (after.calls(), WINDOW),
    };
    let extra = 0.2 * paid as f64 + 2.0 * 10.0 * time.as_secs_f64();
    let most = called as f64 + extra * LATE;
    assert!(attempts as f64 <= most, "{attempts} attempts of {most}");
    (called, attempts)
}
