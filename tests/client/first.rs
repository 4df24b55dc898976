//! A balancing policy that a test can foresee.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use trunkline::{Candidate, Pick, PickRequest, Picker, Policy};

/// Would send every attempt to the first endpoint. Knows how many there are. Clones share that.
#[derive(Clone, Debug, Default)]
pub struct First(Arc<AtomicUsize>);

impl First {
    /// The endpoints to choose from.
    pub fn candidates(&self) -> usize {
        self.0.load(SeqCst)
    }
}

impl Policy for First {
    fn name(&self) -> &str {
        "first"
    }

    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
        self.0.store(candidates.len(), SeqCst);
        Box::new(self.clone())
    }
}

impl Picker for First {
    fn pick(&self, _: &PickRequest<'_>) -> Pick {
        Pick::Endpoint(0)
    }
}
