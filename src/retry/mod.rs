//! Retries: when a failed attempt may be repeated, how long to wait, how much of it the service must bear.
//!
//! Everything here is arithmetic: time and randomness come in as arguments. The attempt loop of the
//! channel does the rest:
//!
//! 1. [`Budget::deposit`] once per call, and a [`Replay`] around the request's body;
//! 2. per attempt, [`Replay::reader`] gives the body from its start;
//! 3. a failed attempt becomes [`AttemptFacts`], and [`Retry::decide`] says what to do: resend at once,
//!    retry after a delay that the budget has already paid for, or give up.
//!
//! Two kinds of repetition differ in what they cost. A *resend* repeats work that the peer provably did
//! not process; it is free. A *retry* repeats work that was or may have been processed; it needs a code
//! that allows it or an idempotent call, an attempt that is left, time until the deadline, and a withdrawal
//! from the budget.
//!
//! The rules are those of gRPC's retry design
//! ([gRFC A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md)), with a budget like
//! Finagle's in place of the token throttle.

mod backoff;
mod budget;
mod hedge;
mod limits;
mod methods;
mod policy;
mod replay;
mod ring;
mod tape;
mod verdict;

pub use backoff::Backoff;
pub(crate) use budget::{Budget, Withdrawal};
pub use hedge::Hedge;
pub(crate) use hedge::Hedging;
pub use limits::BudgetLimits;
pub(crate) use methods::{Policies, validate_method_name};
pub use policy::Retry;
pub(crate) use replay::Replay;
pub(crate) use verdict::{AttemptFacts, GiveUp, Verdict};
