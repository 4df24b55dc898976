//! How calls ended, as their callers saw it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;
use trunkline::Channel;

use super::calls::call;
use super::rig::SINGLE_IDS;

/// The calls that failed. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Ends(Arc<Mutex<Vec<End>>>);

/// A call that failed.
#[derive(Clone, Debug)]
pub struct End {
    pub id: u64,
    pub began: Instant,
    pub ended: Instant,
}

impl Ends {
    /// A call that is noted here if it fails.
    pub async fn call(self, channel: Channel, id: u64) -> Result<(), Status> {
        let began = Instant::now();
        let result = call(channel, id).await;
        if result.is_err() {
            self.0.lock().unwrap().push(End {
                id,
                began,
                ended: Instant::now(),
            });
        }
        result
    }

    /// Those that failed so far, in the order of their ends.
    pub fn all(&self) -> Vec<End> {
        let mut all = self.0.lock().unwrap().clone();
        all.sort_by_key(|it| it.ended);
        all
    }

    /// The same of the retrying channel, and of the other.
    pub fn sides(&self) -> [Vec<End>; 2] {
        let (single, retrying) = self.all().into_iter().partition(|it| it.id >= SINGLE_IDS);
        [retrying, single]
    }
}

impl End {
    pub fn lasted(&self) -> Duration {
        self.ended - self.began
    }
}
