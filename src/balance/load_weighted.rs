//! Shares by what endpoints say that they can do.

use std::time::Duration;

use super::randomness::generator;
use super::round_robin::in_turn;
use super::usable::shares;
use super::weighted::in_proportion;
use super::{Candidate, Picker, Policy, ReportRules};

/// Picks in proportion to the calls per second that the endpoints could take, by the load reports in their answers
/// ([gRFC A58], `weighted_round_robin` in xDS).
///
/// A server that reports sends its utilization and its rate of calls in the trailer `endpoint-load-metrics-bin` (ORCA, gRFC
/// A51, per call); its weight is `rate / (utilization + errors / rate × penalty)`, anew each second. An endpoint without a
/// weight gets the mean of the others; while fewer than two have one, all take turns. [`ReportRules`] say when a report
/// counts. Configured weights are ignored, except that 0 means drained.
///
/// | two servers at the same rate, utilization | 0.2 | 0.8 |
/// |---|---:|---:|
/// | in turn | 50 % | 50 % |
/// | load weighted | 80 % | 20 % |
///
/// **Use it** where servers differ in size and report what they do: it sees all their clients' calls, unlike
/// [`LeastRequest`](super::LeastRequest). **Not** for sudden changes, which a report shows seconds later, nor where
/// servers do not report: then it is [`RoundRobin`](super::RoundRobin). Reports out of band (a stream of
/// them, beside the calls) are not asked for: an endpoint that gets no calls says nothing.
///
/// [gRFC A58]: https://github.com/grpc/proposal/blob/master/A58-client-side-weighted-round-robin-lb-policy.md
#[derive(Clone, Debug)]
pub struct LoadWeighted {
    rules: ReportRules,
    refresh_interval: Duration,
    seed: Option<u64>,
}

/// gRPC's floor.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// Weights are whole numbers up to this one.
const TOP: f64 = 65_535.0;

impl LoadWeighted {
    /// With gRPC's rules and intervals.
    pub const fn new() -> Self {
        Self {
            rules: ReportRules::new(),
            refresh_interval: Duration::from_secs(1),
            seed: None,
        }
    }

    /// Which reports count. Default [`ReportRules::new`].
    #[must_use]
    pub const fn reports(mut self, rules: ReportRules) -> Self {
        self.rules = rules;
        self
    }

    /// How often weights follow the reports. Default 1 s; 100 ms at least, and what is less is brought there.
    #[must_use]
    pub fn refresh_every(mut self, interval: Duration) -> Self {
        self.refresh_interval = interval.max(SHORTEST_INTERVAL);
        self
    }

    /// Starts where `seed` says: the same for each set of the same weights. For tests.
    #[must_use]
    pub const fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

impl Default for LoadWeighted {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy for LoadWeighted {
    fn name(&self) -> &str {
        "load_weighted"
    }

    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
        let parts = shares(candidates);
        let weights: Vec<_> = candidates.iter().map(usable_weight).collect();
        let known: Vec<_> = weights.iter().copied().flatten().collect();
        if known.len() < 2 {
            return in_turn(&parts, &mut generator(self.seed));
        }
        let most = known.iter().copied().fold(0.0, f64::max);
        // Divided first, so that no sum is too great.
        let mean = known.iter().map(|it| it / most).sum::<f64>() / known.len() as f64;
        let whole = parts.iter().copied().max().unwrap_or(1);
        let part = |(part, weight): (&u32, &Option<f64>)| {
            if *part == 0 {
                return 0;
            }
            let weight = weight.map_or(mean, |it| it / most);
            let share = f64::from(*part) / f64::from(whole);
            (weight * share * TOP).max(1.0) as u32
        };
        let parts: Vec<_> = parts.iter().zip(&weights).map(part).collect();
        in_proportion(&parts, self.seed)
    }

    fn refresh_interval(&self) -> Option<Duration> {
        Some(self.refresh_interval)
    }

    fn load_reports(&self) -> Option<ReportRules> {
        Some(self.rules)
    }
}

fn usable_weight(candidate: &Candidate) -> Option<f64> {
    let weight = candidate
        .reported_weight()
        .filter(|_| candidate.weight() > 0);
    weight.filter(|it| it.is_finite() && *it > 0.0)
}

#[cfg(test)]
mod tests {
    use super::super::distribution::{self, Picks, Shares, counts, picks};
    use super::*;

    /// The parts of 100,000 picks.
    fn parts(reported: &[Option<f64>]) -> Vec<f64> {
        let candidates: Vec<_> = (0..)
            .zip(reported)
            .map(|(identity, weight)| Candidate::new(identity, 1).with_reported_weight(*weight))
            .collect();
        shares_of(&candidates)
    }

    fn shares_of(candidates: &[Candidate]) -> Vec<f64> {
        let picker = LoadWeighted::new().with_seed(8).build(candidates);
        let counts = counts(&picks(&*picker, 100_000), candidates.len());
        counts
            .iter()
            .map(|count| *count as f64 / 100_000.0)
            .collect()
    }

    fn close(parts: &[f64], ideal: &[f64]) {
        for (part, ideal) in parts.iter().zip(ideal) {
            assert!((part - ideal).abs() < 0.001, "{parts:?}");
        }
    }

    #[test]
    fn without_reports_all_take_turns() {
        distribution::check(
            &LoadWeighted::new().with_seed(8),
            Shares::Equal,
            Picks::Even,
        );
        close(&parts(&[Some(9.0), None, None]), &[1.0 / 3.0; 3]);
    }

    #[test]
    fn shares_follow_what_is_reported() {
        // The same rate, utilizations of 0.2 and 0.8.
        close(&parts(&[Some(500.0), Some(125.0)]), &[0.8, 0.2]);
        close(
            &parts(&[Some(1.0), Some(1.0), Some(2.0)]),
            &[0.25, 0.25, 0.5],
        );
        close(&parts(&[Some(1e-9), Some(1e-9)]), &[0.5, 0.5]);
        close(&parts(&[Some(f64::MAX), Some(f64::MAX)]), &[0.5, 0.5]);
    }

    #[test]
    fn who_says_nothing_gets_the_mean() {
        close(
            &parts(&[Some(1.0), None, Some(3.0)]),
            &[1.0 / 6.0, 2.0 / 6.0, 3.0 / 6.0],
        );
        let no_weights = [f64::NAN, f64::INFINITY, 0.0, -1.0].map(Some);
        close(&parts(&no_weights), &[0.25; 4]);
    }

    #[test]
    fn shares_and_drained_endpoints_count() {
        let of =
            |identity, weight| Candidate::new(identity, weight).with_reported_weight(Some(9.0));
        let candidates = [of(1, 1).with_share(0.5), of(2, 7), of(3, 0)];
        close(&shares_of(&candidates), &[1.0 / 3.0, 2.0 / 3.0, 0.0]);
    }

    #[test]
    fn intervals_have_a_floor() {
        let policy = LoadWeighted::new().refresh_every(Duration::ZERO);
        assert_eq!(policy.refresh_interval(), Some(SHORTEST_INTERVAL));
    }
}
