//! Which endpoints are fit for calls: what is known of each, and what follows from it. Pure: time and randomness
//! come in as arguments.
//!
//! Every endpoint has one [`Machine`]. It hears of six sources, and each has its own say ([`Influence`]):
//!
//! | source | what it hears | says |
//! |---|---|---|
//! | connectivity | connections of its pool | always a veto: without a connection there are no calls |
//! | probes ([`Probed`]) | answers of health checks | veto, unless set otherwise |
//! | breaker ([`Circuit`]) | outcomes of calls | veto, unless set otherwise |
//! | outliers ([`outlier`]) | the same, compared with the other endpoints' | veto, unless set otherwise |
//! | overload ([`Overload`](overload::Overload)) | `RESOURCE_EXHAUSTED`, HTTP 429 | less, unless set otherwise; never a veto |
//! | discovery | whether the last answer lists it | hint |
//!
//! ```text
//!  probes      Unknown ──any answer──► Healthy ──threshold of failures, NOT_SERVING──► Unhealthy
//!                                         ▲                                               │
//!                                         └──threshold of successes, held for 1 s × 2ⁿ────┘
//!
//!  breaker     Closed ──5 faults in a row, or success < 80 % of 30 s──► Open ──1 s × 2ⁿ, jittered──► HalfOpen
//!                 ▲                                                      ▲                              │
//!                 │                                                      └───────────the trial fails────┤
//!                 └───────────────────────────────────────────────────────────────────the trial succeeds┘
//!
//!  outliers    In ──sweep finds it far worse than the others──► Ejected ──30 s × times──► In
//! ```
//!
//! What an endpoint's sources say is its [`Standing`]. Whether it gets calls is decided over the whole set, in
//! [`admit`]: so many may be ejected, never the last one, and when too few are left they all get calls again.
//!
//! | file | role |
//! |---|---|
//! | `influence` | what a source's word is worth |
//! | `circuit`, `window` | the breaker of one endpoint |
//! | `probed` | what probes say of one endpoint |
//! | `outlier` | gRFC A50: who is far worse than the others |
//! | `machine` | all of that for one endpoint; `machine/objection` says what speaks against it |
//! | `admission` | which endpoints of a set get calls |
//! | `overload` | how much of its calls an endpoint accepts |
//! | `slow_start` | who has entered service lately, and gets less for a while |
//! | `limits`, `breaker` | what users set |
//! | `rules` | all of that together |
//! | `report` | what users see |

mod admission;
mod breaker;
mod circuit;
mod influence;
mod limits;
mod machine;
pub(crate) mod outlier;
mod overload;
mod probed;
mod report;
mod rules;
mod slow_start;
mod window;

pub(crate) use admission::{Admission, Fate, Standing, admit};
pub use breaker::Breaker;
pub use influence::Influence;
pub use limits::EjectionLimits;
pub(crate) use machine::Machine;
pub use outlier::OutlierDetection;
pub(crate) use probed::{Answer, Thresholds};
pub use report::{Health, HealthSource, HealthStatus};
pub(crate) use rules::{OVERLOAD, Rules};
pub(crate) use slow_start::Service;
pub use slow_start::SlowStart;
pub(crate) use window::Totals;
