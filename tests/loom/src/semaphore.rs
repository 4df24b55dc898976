//! What `room.rs` uses of tokio's semaphore, as one count under a lock. Nobody waits in it: its fairness is tokio's
//! affair, and what is modelled is the arithmetic.

use loom::sync::Mutex;

#[derive(Debug)]
pub(crate) struct Semaphore(Mutex<usize>);

pub(crate) struct Permit<'a>(&'a Semaphore);

impl Semaphore {
    pub(crate) fn new(permits: usize) -> Self {
        Self(Mutex::new(permits))
    }

    pub(crate) fn add_permits(&self, more: usize) {
        *self.0.lock().unwrap() += more;
    }

    /// Takes away as many as there are, up to `most`. Gives their number.
    pub(crate) fn forget_permits(&self, most: usize) -> usize {
        let mut permits = self.0.lock().unwrap();
        let forgotten = most.min(*permits);
        *permits -= forgotten;
        forgotten
    }

    pub(crate) fn try_acquire(&self) -> Result<Permit<'_>, ()> {
        let mut permits = self.0.lock().unwrap();
        *permits = permits.checked_sub(1).ok_or(())?;
        Ok(Permit(self))
    }

    pub(crate) async fn acquire(&self) -> Result<Permit<'_>, ()> {
        unreachable!("no model waits for a permit")
    }

    pub(crate) fn available_permits(&self) -> usize {
        *self.0.lock().unwrap()
    }
}

impl Permit<'_> {
    pub(crate) fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}
