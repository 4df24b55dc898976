//! Choosing the endpoint of an attempt.
//!
//! A [`Policy`] is the configured rule; from the endpoints of one set it builds a [`Picker`], which
//! chooses among them for as long as that set lives. Both see indexes, weights and metadata only:
//! no addresses, no connections, no clock. Which endpoints are in the set (healthy, not drained)
//! has been decided before; what a pick leads to is decided after.
//!
//! | policy | order | weights | state a pick writes |
//! |---|---|---|---|
//! | [`Weighted`] (the default where weights differ) | even, repeating | followed | one counter of the thread's own |
//! | [`RoundRobin`] | even, repeating | ignored | one counter of the thread's own |
//! | [`Random`] | independent draws | ignored | none |
//! | [`WeightedRandom`] | independent draws | followed | none |
//! | [`LeastRequest`] (the default where they don't) | even, but for who is busier than another | followed | the same; it reads the calls in flight |
//! | [`PeakEwma`] | the sooner of two | followed | the same; it reads the latency, too |
//! | [`LoadWeighted`] | even, repeating | those that follow from load reports | one counter of the thread's own |
//! | [`ConsistentHash`] | by the request's key | followed | none |
//! | [`Tiers`] | one group before the other | by the policy within | none of its own |
//!
//! An endpoint of weight 0 is drained: no policy here picks it, unless every endpoint has weight 0;
//! then all count as equal.
//!
//! The even policies keep a sequence for each thread (beyond 32 living threads, some share one):
//! each thread's own picks are even, and the picks of `k` threads together are off by at most `k`
//! times as much as those of one. A single sequence for all threads would cost every pick a cache
//! line that all cores fight over.

mod alias;
mod avoid;
mod choice;
mod consistent_hash;
mod default;
mod hash_key;
mod least_request;
mod load;
mod load_weighted;
mod peak_ewma;
mod picker;
mod policy;
mod random;
mod randomness;
mod rendezvous;
mod round_robin;
mod sequence;
mod spares;
mod stride;
mod subset;
mod thread_number;
mod tiers;
mod two_choices;
mod usable;
mod weighted;
mod weighted_random;

#[cfg(test)]
mod distribution;

pub(crate) use avoid::pick_avoiding;
pub use choice::Balance;
pub use consistent_hash::ConsistentHash;
pub use hash_key::HashKey;
pub use least_request::LeastRequest;
pub(crate) use load::{InFlight, LoadReport, Place};
pub use load::{Load, ReportRules};
pub use load_weighted::LoadWeighted;
pub use peak_ewma::PeakEwma;
pub use picker::{Pick, PickRequest, Picker};
pub use policy::{Candidate, Policy};
pub use random::Random;
pub use round_robin::RoundRobin;
pub(crate) use spares::Spares;
pub use subset::Subset;
pub(crate) use subset::first_of;
pub(crate) use tiers::PRIORITY;
pub use tiers::Tiers;
pub use weighted::Weighted;
pub use weighted_random::WeightedRandom;
