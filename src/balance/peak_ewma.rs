//! The one that would answer sooner, of two.

use std::time::Duration;

use super::load::Load;
use super::two_choices::{self, Better, Seen};
use super::{Candidate, Picker, Policy};

/// Of two endpoints, one in turn and one at random, picks the one that is likely to answer sooner: its latency of late,
/// times one more than its calls in flight (Finagle's and linkerd's peak EWMA).
///
/// Latency is the time from the sending of the request to the first message of the response, or to its end if it has none;
/// until then a call counts as in flight here, and a stream that stays open does not (linkerd). A longer one counts at once,
/// and is forgotten with a decay of 10 s; an endpoint that has not answered yet is compared by its calls in flight alone.
/// Weights are the turns, and the chances to be drawn.
///
/// An attempt that fails by the endpoint's fault, or with `RESOURCE_EXHAUSTED` or HTTP 429, counts as 5 s at least, or it
/// would look fast and draw more calls (linkerd's penalty). Where the server says when to try again
/// (`grpc-retry-pushback-ms`, `Retry-After` in seconds with HTTP 429 and 503) it counts as that long, up to 300 s, and no
/// less than what is known of the endpoint. An attempt that its caller gave up, or that ran out of time, counts as the time
/// that it waited if that is more than what was expected.
///
/// | of ten endpoints, one ten times slower, at 20 calls in flight | its share |
/// |---|---:|
/// | in turn | 10 % |
/// | peak EWMA | less than 0.2 % |
///
/// **Use it** where a slow server must not be felt: it is avoided from its first slow answer on, however few calls there
/// are. **Not** for calls that wait for something to happen (long polling): their latency says nothing of the
/// endpoint.
#[derive(Clone, Debug, Default)]
pub struct PeakEwma {
    seed: Option<u64>,
}

impl PeakEwma {
    /// Draws from a generator of each thread's own.
    pub const fn new() -> Self {
        Self { seed: None }
    }

    /// Draws the numbers that follow from `seed`, the same for each set. For tests: all threads share one counter.
    pub const fn with_seed(seed: u64) -> Self {
        Self { seed: Some(seed) }
    }
}

impl Policy for PeakEwma {
    fn name(&self) -> &str {
        "peak_ewma"
    }

    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
        two_choices::build(candidates, Expected, self.seed)
    }

    fn uses_weights(&self) -> bool {
        true
    }

    fn uses_latency(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Expected;

impl Better for Expected {
    // No two latencies are equal.
    const NOISY: bool = true;

    fn is_second_better(&self, first: Seen<'_>, second: Seen<'_>, now: Duration) -> bool {
        let [one, other] = [first.load, second.load].map(|it| it.latency().estimate(now));
        // Any guess at what one needs that has not answered yet would be wrong for most services: one that is too high
        // keeps it from ever being asked, one that is too low sends it everything.
        let (one, other) = one.zip(other).unwrap_or((1.0, 1.0));
        other * waits(second.load) < one * waits(first.load)
    }
}

/// How many answers a call waits for there, its own included.
fn waits(load: &Load) -> f64 {
    f64::from(load.pending()) + 1.0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::distribution::{self, Picks, Shares, picks};
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn where_all_are_alike_the_shares_are_those_of_the_weights() {
        let policy = PeakEwma::with_seed(5);
        distribution::check(&policy, Shares::ByWeight, Picks::Even);
    }

    #[test]
    fn shares_are_those_of_the_table() {
        let mut times = [10; 10];
        times[3] = 100;
        let shares = distribution::simulate(&PeakEwma::with_seed(1), &times, 20);
        assert!(shares[3] < 0.002, "{shares:?}");
    }

    #[test]
    fn one_that_has_not_answered_yet_gets_its_turn() {
        let loads: Vec<_> = (0..3).map(|_| Arc::new(Load::default())).collect();
        let candidates: Vec<_> = (0..)
            .zip(&loads)
            .map(|(identity, load)| Candidate::new(identity, 1).with_load(Arc::clone(load)))
            .collect();
        for load in &loads[..2] {
            load.answered(Duration::from_micros(200), MS);
        }
        let picker = PeakEwma::with_seed(1).build(&candidates);
        let picks = picks(&*picker, 300);
        let new = picks.iter().filter(|index| **index == 2).count();
        assert_eq!(new, 100);
        // Until it has calls to answer.
        loads[2].begin_pending();
        assert!(!distribution::picks(&*picker, 300).contains(&2));
    }

    #[test]
    fn the_slow_one_of_ten_gets_what_is_drawn_against_nobody_better() {
        let loads: Vec<_> = (0..10).map(|_| Arc::new(Load::default())).collect();
        let candidates: Vec<_> = (0..)
            .zip(&loads)
            .map(|(identity, load)| Candidate::new(identity, 1).with_load(Arc::clone(load)))
            .collect();
        for (index, load) in loads.iter().enumerate() {
            load.answered(if index == 3 { 100 * MS } else { 10 * MS }, MS);
        }
        let picker = PeakEwma::with_seed(1).build(&candidates);
        assert!(picks(&*picker, 1_000).iter().all(|index| *index != 3));
        // Unless the others have that much more to do.
        for (index, load) in (0..10).flat_map(|_| loads.iter().enumerate()) {
            if index != 3 {
                load.begin_pending();
            }
        }
        assert!(picks(&*picker, 1_000).contains(&3));
    }
}
