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

/// The first endpoint for the first attempt, none for others.
#[derive(Debug)]
pub struct Once;

impl Policy for Once {
    fn name(&self) -> &str {
        "once"
    }

    fn build(&self, _: &[Candidate]) -> Box<dyn Picker> {
        Box::new(Self)
    }
}

impl Picker for Once {
    fn pick(&self, request: &PickRequest<'_>) -> Pick {
        match request.attempt() {
            1 => Pick::Endpoint(0),
            _ => Pick::Fail("there is no other".into()),
        }
    }
}
