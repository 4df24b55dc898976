//! What users see of an endpoint's health.

use std::time::Duration;

/// Whether an endpoint gets calls.
///
/// Each source makes up its mind about each endpoint by itself:
///
/// ```text
///  health check  unknown ──any answer──► healthy ──3 failures, or NOT_SERVING──► unhealthy
///                                           ▲                                        │
///                                           └──2 good answers, well for 1 s × 2ⁿ─────┘
///
///  breaker       closed ──5 faults in a row, or success < 80 % of 30 s──► open ──1 s × 2ⁿ──► half-open
///                   ▲                                                       ▲                   │
///                   │                                                       └─the trial fails───┤
///                   └─────────────────────────────────────────────────────────the trial succeeds┘
///
///  outliers      in ──a sweep finds it far worse than the others──► ejected ──30 s × times──► in
/// ```
///
/// What they say decides over the whole set, each time that one of them changes its mind:
///
/// ```text
///  no connection ────────────────────────────────────────► Disconnected
///  its health check has not answered yet ────────────────► Unknown
///  nobody speaks against it ─────────────────────────────► Healthy
///  a source that has no veto does ───────────────────────► Suspect
///  a source with a veto does ─┬─ too few others are well, or too many are out ─► Tolerated
///                             ├─ the breaker alone, half-open ────────────────► HalfOpen
///                             └─ else ────────────────────────────────────────► Ejected
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Health {
    /// It has no connection; [`State`](crate::State) says how that stands.
    Disconnected,
    /// It is connected, and its first probe has not had an answer yet.
    Unknown,
    /// Nothing is said against it.
    Healthy,
    /// It gets part of its share, or a hint is given, or more would be done if the source were not only observed.
    Suspect,
    /// It gets no calls.
    Ejected,
    /// It gets one call at a time, to prove itself.
    HalfOpen,
    /// It gets calls although a source speaks against it: the limits of ejection are reached, or too few are well.
    Tolerated,
}

/// Who speaks against an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HealthSource {
    /// Its pool: there is no connection. Always a veto, whatever else is set: there is nothing to send a call on.
    Connectivity,
    /// Its health check.
    Probe,
    /// The outcomes of calls.
    Breaker,
    /// The outcomes of calls, compared with the other endpoints'.
    Outliers,
    /// The endpoint itself: it refuses calls with `RESOURCE_EXHAUSTED`, or requests that are not gRPC with HTTP's 429, because
    /// it has too much to do. It gets the part of its share that it accepted in the last 10 s, and at least a tenth, unless
    /// [set](crate::Connector::overload_influence) otherwise.
    Overload,
    /// The source of endpoints: it no longer lists it.
    Discovery,
}

/// An endpoint's health at one moment.
///
/// Whether it gets calls is decided over the whole set, a moment after one of its sources changed its mind: one that has just
/// fallen ill is [`Suspect`](Health::Suspect) until then, and one that has just recovered is what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthStatus {
    /// Whether it gets calls.
    pub health: Health,
    /// Who decided that, or is waited for; `None` if nothing is said against it.
    pub decided_by: Option<HealthSource>,
    /// What that source says.
    pub reason: Option<String>,
    /// For how long; of an endpoint against which nothing is said, for how long it has been so and connected.
    pub for_how_long: Duration,
    /// In what time that source changes its mind by itself; `None` if nobody knows. Of several that forbid calls, the
    /// one that does so for the longest time is the one that decides.
    pub changes_in: Option<Duration>,
    /// What sources that are only [observed](crate::Influence::Observe) would have done.
    pub observed: Vec<HealthSource>,
}

impl HealthStatus {
    /// That of an endpoint that can't be called because of its pool.
    pub(crate) fn disconnected(why: impl ToString) -> Self {
        Self {
            health: Health::Disconnected,
            decided_by: Some(HealthSource::Connectivity),
            reason: Some(why.to_string()),
            for_how_long: Duration::ZERO,
            changes_in: None,
            observed: Vec::new(),
        }
    }
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Disconnected => "disconnected",
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Suspect => "suspect",
            Self::Ejected => "ejected",
            Self::HalfOpen => "half-open",
            Self::Tolerated => "tolerated",
        })
    }
}

impl std::fmt::Display for HealthSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Connectivity => "connectivity",
            Self::Probe => "probe",
            Self::Breaker => "breaker",
            Self::Outliers => "outliers",
            Self::Overload => "overload",
            Self::Discovery => "discovery",
        })
    }
}
