//! Panics of the whole process, counted: a task that panics takes nobody with it, and would go unseen.

use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

static PANICS: AtomicU64 = AtomicU64::new(0);
static HOOK: Once = Once::new();

/// The panics of all threads since this was made.
#[derive(Debug)]
pub struct Panics(u64);

impl Panics {
    pub fn watch() -> Self {
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                PANICS.fetch_add(1, SeqCst);
                before(info);
            }));
        });
        Self(PANICS.load(SeqCst))
    }

    pub fn count(&self) -> u64 {
        PANICS.load(SeqCst) - self.0
    }
}
