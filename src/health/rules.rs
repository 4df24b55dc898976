//! What health is judged by.

use std::time::Duration;

use super::probed::Thresholds;
use super::window::SAMPLES;
use super::{Breaker, EjectionLimits, Influence, OutlierDetection, SlowStart, overload};

/// What a channel's endpoints are judged by. A source that is not there says nothing.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) breaker: Option<Breaker>,
    pub(crate) outliers: Option<OutlierDetection>,
    pub(crate) probes: Option<Thresholds>,
    /// What it means that discovery no longer lists an endpoint.
    pub(crate) discovery: Influence,
    /// What it means that an endpoint refuses calls because it has too much to do. A weight is the least that it gets.
    pub(crate) overload: Influence,
    pub(crate) limits: EjectionLimits,
    pub(crate) slow_start: Option<SlowStart>,
}

/// Of refusals, unless set otherwise.
pub(crate) const OVERLOAD: Influence = Influence::Weight(overload::LEAST);

impl Default for Rules {
    fn default() -> Self {
        Self {
            breaker: None,
            outliers: None,
            probes: None,
            discovery: Influence::Hint,
            overload: OVERLOAD,
            limits: EjectionLimits::default(),
            slow_start: None,
        }
    }
}

impl Rules {
    /// Faults in a row that open a breaker which may do something.
    pub(crate) fn patience(&self) -> Option<u32> {
        let breaker = self.breaker.as_ref();
        let acts = breaker.filter(|it| it.influence != Influence::Observe);
        acts.map(|it| it.consecutive)
    }

    /// How often the breakers look at their counters.
    pub(crate) fn sample_interval(&self) -> Option<Duration> {
        self.breaker.as_ref().map(|it| it.window / SAMPLES)
    }

    /// How often outliers are looked for.
    pub(crate) fn sweep_interval(&self) -> Option<Duration> {
        let rules = self.outliers.as_ref();
        rules.map(OutlierDetection::sweep_interval)
    }
}
