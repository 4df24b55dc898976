//! What a server counted. It outlives the server's death and restart.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

/// Counts of one server's calls and connections.
///
/// Every call that started ends in exactly one of finished, cancelled, cut and panicked.
#[derive(Debug, Default)]
pub struct Journal {
    handled: Mutex<BTreeMap<u64, u64>>,
    leaves: Mutex<BTreeMap<u64, u64>>,
    started: AtomicU64,
    finished: AtomicU64,
    cancelled: AtomicU64,
    cut: AtomicU64,
    panicked: AtomicU64,
    in_flight: AtomicU64,
    peak_in_flight: AtomicU64,
    accepted: AtomicU64,
    open: AtomicU64,
    dying: AtomicU64,
}

impl Journal {
    /// For each call id the number of times it began to be handled, whatever became of it.
    pub fn handled(&self) -> BTreeMap<u64, u64> {
        self.handled.lock().unwrap().clone()
    }

    /// The number of times for one id.
    pub fn times_handled(&self, id: u64) -> u64 {
        self.handled.lock().unwrap().get(&id).copied().unwrap_or(0)
    }

    /// The same without those that were answered with UNAVAILABLE: with that answer a server gives leave to repeat the
    /// call.
    pub fn handled_for_good(&self) -> BTreeMap<u64, u64> {
        let leaves = self.leaves.lock().unwrap();
        without(self.handled(), &leaves)
    }

    /// Calls that began to be handled.
    pub fn started(&self) -> u64 {
        self.started.load(SeqCst)
    }

    /// Calls answered to the end, with OK or with an error.
    pub fn finished(&self) -> u64 {
        self.finished.load(SeqCst)
    }

    /// Calls given up before their end because the stream was reset or its connection lost.
    pub fn cancelled(&self) -> u64 {
        self.cancelled.load(SeqCst)
    }

    /// Calls that the server's own death ended.
    pub fn cut(&self) -> u64 {
        self.cut.load(SeqCst)
    }

    /// Calls and connections that panicked in the server.
    pub fn panicked(&self) -> u64 {
        self.panicked.load(SeqCst)
    }

    /// Calls being handled now.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(SeqCst)
    }

    /// The most calls that were ever being handled at once.
    pub fn peak_in_flight(&self) -> u64 {
        self.peak_in_flight.load(SeqCst)
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.open.load(SeqCst)
    }

    /// Notes the start of the call with this id. The mark notes the end.
    pub fn call(self: &Arc<Self>, id: u64) -> CallMark {
        *self.handled.lock().unwrap().entry(id).or_default() += 1;
        self.started.fetch_add(1, SeqCst);
        let now = self.in_flight.fetch_add(1, SeqCst) + 1;
        self.peak_in_flight.fetch_max(now, SeqCst);
        CallMark {
            id,
            journal: Arc::clone(self),
            finished: false,
        }
    }

    /// Notes a connection; it is open until the mark is dropped.
    pub fn connection(self: &Arc<Self>) -> ConnectionMark {
        self.accepted.fetch_add(1, SeqCst);
        self.open.fetch_add(1, SeqCst);
        ConnectionMark(Arc::clone(self))
    }

    /// While true, calls that end unfinished count as cut instead of cancelled.
    pub fn set_dying(&self, dying: bool) {
        self.dying.store(dying.into(), SeqCst);
    }
}

/// One call being handled. Dropped unfinished, it was cancelled.
#[derive(Debug)]
pub struct CallMark {
    id: u64,
    journal: Arc<Journal>,
    finished: bool,
}

impl CallMark {
    /// The call is answered with UNAVAILABLE.
    pub fn give_leave(&self) {
        let mut leaves = self.journal.leaves.lock().unwrap();
        *leaves.entry(self.id).or_default() += 1;
    }

    /// The call was answered to its end.
    pub fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for CallMark {
    fn drop(&mut self) {
        let journal = &self.journal;
        let end = if self.finished {
            &journal.finished
        } else if thread::panicking() {
            &journal.panicked
        } else if journal.dying.load(SeqCst) != 0 {
            &journal.cut
        } else {
            &journal.cancelled
        };
        end.fetch_add(1, SeqCst);
        journal.in_flight.fetch_sub(1, SeqCst);
    }
}

/// One open connection.
#[derive(Debug)]
pub struct ConnectionMark(Arc<Journal>);

impl Drop for ConnectionMark {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.panicked.fetch_add(1, SeqCst);
        }
        self.0.open.fetch_sub(1, SeqCst);
    }
}

/// Of these counts what is left without those.
pub fn without(mut handled: BTreeMap<u64, u64>, leaves: &BTreeMap<u64, u64>) -> BTreeMap<u64, u64> {
    for (id, count) in leaves {
        let left = handled.get_mut(id).expect("leave was given to a call");
        *left -= count;
    }
    handled
}

/// The ids that were handled more than once, counted over all the servers given.
pub fn duplicates(handled: impl IntoIterator<Item = BTreeMap<u64, u64>>) -> Vec<u64> {
    let mut total = BTreeMap::<u64, u64>::new();
    for (id, count) in handled.into_iter().flatten() {
        *total.entry(id).or_default() += count;
    }
    total
        .into_iter()
        .filter(|&(_, count)| count > 1)
        .map(|(id, _)| id)
        .collect()
}
