//! Models of the lock-free parts of Trunkline: each runs in every order of its threads' steps that loom finds
//! different (up to a bound on switches), with the weak memory that Rust's atomics allow.
//!
//! | file | what is modelled |
//! |---|---|
//! | `slots` | `transport/connection/slots.rs`: one atomic word |
//! | `room` | `pool/room.rs`, over a stand-in for tokio's semaphore |
//! | `pool` | both together, as `pool/lease.rs` and `pool/connections.rs` use them |
//! | `ring`, `budget` | `retry/ring.rs` and `retry/budget.rs`, with 4 slots of time instead of 32 |
//! | `sequence` | `balance/sequence.rs`, with one counter of each kind |
//!
//! The modules are the crate's own files with the atomics exchanged (`build.rs`). What is not: the semaphore, and the
//! lines of `pool` that say which call follows which.

#![cfg(test)]
#![allow(dead_code, reason = "no model uses all of a file")]

mod budget;
mod limits;
mod pool;
mod ring;
mod room;
mod semaphore;
mod sequence;
mod slots;

use limits::BudgetLimits;

/// What `room.rs` uses of the crate.
mod lock {
    pub(crate) fn lock<T>(mutex: &loom::sync::Mutex<T>) -> loom::sync::MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }
}

/// Runs `threads` in every order with up to three switches that no thread asked for, or LOOM_MAX_PREEMPTIONS: all
/// orders of three threads are too many.
fn model(threads: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(threads);
}
