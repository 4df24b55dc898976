//! The part of `retry/limits.rs` that the budget reads.

use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(crate) struct BudgetLimits {
    pub(crate) ratio: f64,
    pub(crate) min_per_second: u32,
    pub(crate) window: Duration,
}
