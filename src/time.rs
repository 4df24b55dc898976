//! The clock of the crate.

/// Monotonic time. Tokio's, because tests pause and advance it; the standard library's can't be.
pub(crate) use tokio::time::Instant;
