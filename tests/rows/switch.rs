//! What a raw peer's rule knows beyond the request: whether the fault is on, and what it did before.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use crate::support::reaction::RequestInfo;

use super::rig::SINGLE_IDS;

/// A fault that the test turns on and off, and that strikes each connection once. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Switch(Arc<Fault>);

#[derive(Debug, Default)]
struct Fault {
    on: AtomicBool,
    struck: Mutex<BTreeSet<(usize, u64)>>,
    count: AtomicU64,
}

impl Switch {
    pub fn turn(&self, on: bool) {
        self.0.on.store(on, SeqCst);
    }

    pub fn is_on(&self) -> bool {
        self.0.on.load(SeqCst)
    }

    /// Whether to strike at this request of a peer: the fault is on, its connection has served `after` others, and was not struck
    /// before.
    pub fn strikes(&self, peer: usize, request: &RequestInfo, after: u64) -> bool {
        let strikes = self.is_on()
            && request.nth_on_connection >= after
            && self
                .0
                .struck
                .lock()
                .unwrap()
                .insert((peer, request.connection));
        self.0.count.fetch_add(strikes.into(), SeqCst);
        strikes
    }

    /// How often it struck.
    pub fn count(&self) -> u64 {
        self.0.count.load(SeqCst)
    }
}

/// Whether the request comes from the channel that does not retry.
pub fn is_single(request: &RequestInfo) -> bool {
    request.echo().is_some_and(|echo| echo.id >= SINGLE_IDS)
}
