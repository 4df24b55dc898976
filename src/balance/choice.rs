//! The option that users pass.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::default::DefaultPolicy;
use super::{
    Candidate, ConsistentHash, LeastRequest, LoadWeighted, PeakEwma, Picker, Policy, Random,
    ReportRules, RoundRobin, Tiers, Weighted, WeightedRandom,
};

/// How calls are spread over the endpoints.
///
/// The default follows the weights where they differ, as [`Balance::weighted`] does without its demand that there be
/// weights, and is [`Balance::least_request`] where they do not: while the load is even, that takes turns.
///
/// It is a [`Policy`] too, so that a rule of your own can build on one of these.
#[derive(Clone, Debug, Default)]
pub struct Balance {
    /// `None` until somebody chooses.
    policy: Option<Arc<dyn Policy>>,
}

impl Balance {
    /// Calls in proportion to the weights, as evenly interleaved as they allow: see [`Weighted`].
    pub fn weighted() -> Self {
        Self::custom(Weighted::new())
    }

    /// One endpoint after the other, whatever their weights: see [`RoundRobin`].
    pub fn round_robin() -> Self {
        Self::custom(RoundRobin::new())
    }

    /// Any endpoint with equal chance, whatever their weights: see [`Random`].
    pub fn random() -> Self {
        Self::custom(Random::new())
    }

    /// Any endpoint with a chance in proportion to its weight: see [`WeightedRandom`].
    pub fn weighted_random() -> Self {
        Self::custom(WeightedRandom::new())
    }

    /// The endpoint with fewer calls in flight, of two: see [`LeastRequest`].
    pub fn least_request() -> Self {
        Self::custom(LeastRequest::new())
    }

    /// The endpoint that is likely to answer sooner, of two: see [`PeakEwma`].
    pub fn peak_ewma() -> Self {
        Self::custom(PeakEwma::new())
    }

    /// In proportion to what the endpoints say that they can do: see [`LoadWeighted`].
    pub fn load_weighted() -> Self {
        Self::custom(LoadWeighted::new())
    }

    /// First the endpoints of the smallest [priority](crate::Endpoint::priority), by `inner`, then the others: see [`Tiers`].
    pub fn tiers(inner: impl Policy) -> Self {
        Self::custom(Tiers::by_priority(inner))
    }

    /// All calls with the same [`HashKey`](super::HashKey), or else with the same value of this header, go to the same
    /// endpoint: see [`ConsistentHash`].
    pub fn consistent_hash(header: HeaderName) -> Self {
        Self::custom(ConsistentHash::by_header(header))
    }

    /// A rule of your own.
    pub fn custom(policy: impl Policy) -> Self {
        Self {
            policy: Some(Arc::new(policy)),
        }
    }

    /// Whether this is [`Balance::default`], which nobody chose: then missing weights are no
    /// mistake.
    pub fn is_default(&self) -> bool {
        self.policy.is_none()
    }

    fn policy(&self) -> &dyn Policy {
        self.policy.as_deref().unwrap_or(&DefaultPolicy)
    }
}

impl Policy for Balance {
    fn name(&self) -> &str {
        self.policy().name()
    }

    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
        self.policy().build(candidates)
    }

    fn build_among(&self, candidates: &[Candidate], unavailable: &[Candidate]) -> Box<dyn Picker> {
        self.policy().build_among(candidates, unavailable)
    }

    fn uses_weights(&self) -> bool {
        self.policy().uses_weights()
    }

    fn needs_weights(&self) -> bool {
        self.policy().needs_weights()
    }

    fn refresh_interval(&self) -> Option<Duration> {
        self.policy().refresh_interval()
    }

    fn needs_all(&self) -> bool {
        self.policy().needs_all()
    }

    fn load_reports(&self) -> Option<ReportRules> {
        self.policy().load_reports()
    }

    fn can_do_without_sick(&self, endpoints: &[Candidate]) -> bool {
        self.policy().can_do_without_sick(endpoints)
    }

    fn uses_latency(&self) -> bool {
        self.policy().uses_latency()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_weight_use_are_those_of_the_policy() {
        let all = [
            (Balance::default(), "default", true),
            (Balance::weighted(), "weighted", true),
            (Balance::round_robin(), "round_robin", false),
            (Balance::random(), "random", false),
            (Balance::weighted_random(), "weighted_random", true),
            (Balance::least_request(), "least_request", true),
            (Balance::peak_ewma(), "peak_ewma", true),
            (Balance::custom(Balance::random()), "random", false),
        ];
        for (balance, name, uses_weights) in all {
            assert_eq!(
                (balance.name(), balance.uses_weights()),
                (name, uses_weights)
            );
        }
    }

    #[test]
    fn only_the_default_is_the_default() {
        assert!(Balance::default().clone().is_default());
        assert!(!Balance::weighted().is_default());
    }
}
