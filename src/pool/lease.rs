//! The right to one stream slot.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::lock::lock;
use crate::transport::connection::Connection;

use super::State;
use super::connections::{Pool, Pooled, Queue};

/// One stream slot on one connection, until it is dropped. Holds the connection open.
#[must_use]
#[derive(Debug)]
pub(crate) struct Lease {
    pooled: Arc<Pooled>,
    /// It is not a call's.
    is_question: bool,
}

/// Why there is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseError {
    /// No connection is open: another endpoint may do.
    Unready,
    /// No slot became free in time.
    TimedOut,
    /// Too many calls are waiting already.
    QueueFull,
}

impl Lease {
    pub(crate) fn connection(&self) -> &Connection {
        &self.pooled.connection
    }

    /// Takes the slot for a health check's, which is no call in flight.
    pub(crate) fn for_a_question(mut self) -> Self {
        if !self.is_question {
            self.is_question = true;
            self.pooled.questions.fetch_add(1, Ordering::Relaxed);
        }
        self
    }

    /// The connection's number at its endpoint, from 1 on.
    pub(crate) fn connection_id(&self) -> u64 {
        self.pooled.id
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let room = self.pooled.connection.slots().release();
        if self.is_question {
            self.pooled.questions.fetch_sub(1, Ordering::Relaxed);
        }
        if room > 0 {
            self.pooled.room.gained(room);
        }
    }
}

impl Pool {
    /// Leases a slot, and waits for one if none is free; waiters are served in their order.
    ///
    /// Cancel safety: dropping the future loses the place in the queue and nothing else.
    pub(crate) async fn lease(&self) -> Result<Lease, LeaseError> {
        match self.try_lease() {
            Some(lease) => Ok(lease),
            // Calls that get one at once have no room for this.
            None => Box::pin(self.wait_for_lease()).await,
        }
    }

    /// Leases a slot if one is free and nobody waits.
    pub(crate) fn try_lease(&self) -> Option<Lease> {
        // Fails while others wait: freed permits go to them directly.
        if self.room.try_take() {
            self.claim()
        } else {
            None
        }
    }

    /// Whether it has as many connections as it may have, and no room on them: a call could only wait for another one's end.
    pub(crate) fn is_saturated(&self) -> bool {
        self.room.available() == 0 && self.open.load().len() >= self.options.max
    }

    /// Turns a permit, already forgotten, into a slot: on the oldest connection with room, so that surplus
    /// connections fall idle. `None` if the room is gone since the permit was issued: a connection ended or
    /// its limit fell.
    fn claim(&self) -> Option<Lease> {
        loop {
            let open = self.open.load();
            if let Some(free) = open.iter().find(|it| it.connection.slots().claim()) {
                return Some(Lease {
                    pooled: Arc::clone(free),
                    is_question: false,
                });
            }
            // The room may be on a connection that was opened in between: others took what was left here.
            if Arc::ptr_eq(&open, &self.open.load()) {
                self.room.void();
                return None;
            }
        }
    }

    async fn wait_for_lease(&self) -> Result<Lease, LeaseError> {
        let mut unready = pin!(self.unready.notified());
        // From here on a change of state is not missed.
        unready.as_mut().enable();
        let _place = Place::take(&self.queue, self.options.max_waiting)?;
        // Room may have come since the first try: whoever gets it must not ask for another connection.
        if let Some(lease) = self.try_lease() {
            return Ok(lease);
        }
        {
            let mut book = lock(&self.book);
            if book.state == State::Idle {
                book.dialling.owe();
            }
            self.dial_if_wanted(&mut book, self.queue.len());
            if book.state != State::Ready {
                return Err(LeaseError::Unready);
            }
        }
        let free = async {
            loop {
                self.room.take().await;
                if let Some(lease) = self.claim() {
                    return lease;
                }
                // Whoever took the room is about to tell of it.
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            lease = free => Ok(lease),
            () = unready => Err(LeaseError::Unready),
            () = tokio::time::sleep(self.options.wait_timeout) => Err(LeaseError::TimedOut),
        }
    }
}

/// A place in the queue.
struct Place<'a>(&'a Queue);

impl<'a> Place<'a> {
    fn take(queue: &'a Queue, max: usize) -> Result<Self, LeaseError> {
        queue.entered.fetch_add(1, Ordering::AcqRel);
        let place = Self(queue);
        // Counts this one too.
        if queue.len() > max {
            return Err(LeaseError::QueueFull);
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.left.fetch_add(1, Ordering::AcqRel);
    }
}
