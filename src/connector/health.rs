//! The settings of health: who asks endpoints, what is learned from calls, and how far that goes.

use crate::health::{Breaker, EjectionLimits, Influence, OutlierDetection, SlowStart};
use crate::probe::HealthCheck;

use super::Connector;

impl Connector {
    /// Asks endpoints whether they are well. Default: does not.
    pub fn health_check(mut self, check: HealthCheck) -> Self {
        self.health_check = Some(check);
        self
    }

    /// When calls are kept from an endpoint whose answers are failures. Default [`Breaker::new`].
    pub fn breaker(mut self, breaker: Breaker) -> Self {
        self.breaker = Some(breaker);
        self
    }

    /// Failed calls do not keep others from an endpoint.
    pub fn no_breaker(mut self) -> Self {
        self.breaker = None;
        self
    }

    /// Compares the endpoints, and ejects those that do far worse than the others. Default: does not.
    pub fn outlier_detection(mut self, outliers: OutlierDetection) -> Self {
        self.outliers = Some(outliers);
        self
    }

    /// What becomes of an endpoint that discovery no longer lists while the source's [`Outage`](crate::Outage) rules keep
    /// it. Default [`Influence::Hint`]: it gets its calls.
    pub fn discovery_influence(mut self, influence: Influence) -> Self {
        self.discovery_influence = influence;
        self
    }

    /// What becomes of an endpoint that [refuses calls](crate::HealthSource::Overload) because it has too much to do. A weight
    /// is the least of its share that it gets: it gets what it accepted in the last 10 s, but not less. Default
    /// `Influence::Weight(0.1)`; not [`Influence::Veto`].
    pub fn overload_influence(mut self, influence: Influence) -> Self {
        self.overload_influence = influence;
        self
    }

    /// How many endpoints may be kept from calls, and when all get calls again. Default [`EjectionLimits::new`].
    pub fn ejection_limits(mut self, limits: EjectionLimits) -> Self {
        self.limits = limits;
        self
    }

    /// How endpoints that enter service come to their share of the calls. Default [`SlowStart::new`]: within 30 s.
    pub fn slow_start(mut self, slow_start: SlowStart) -> Self {
        self.slow_start = Some(slow_start);
        self
    }

    /// Endpoints get their whole share as soon as they enter service.
    pub fn no_slow_start(mut self) -> Self {
        self.slow_start = None;
        self
    }
}
