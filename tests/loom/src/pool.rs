//! Connections, their slots, and the permits for them, together: permits stay exact, and no call is left without one
//! while there is room.
//!
//! `claim` and the changes follow `pool/lease.rs` and `pool/connections.rs` line by line, with a lock where those have
//! `ArcSwap`: that a reader sees a whole list is its affair. As there, the list is written under a lock of its own.

use std::sync::Arc;

use loom::sync::{Mutex, MutexGuard};
use loom::thread;

use crate::model;
use crate::room::Room;
use crate::slots::Slots;

struct Pool {
    open: Mutex<Arc<Vec<Arc<Slots>>>>,
    book: Mutex<()>,
    room: Room,
}

struct Lease {
    slots: Arc<Slots>,
    pool: Arc<Pool>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let room = self.slots.release();
        if room > 0 {
            self.pool.room.gained(room);
        }
    }
}

impl Pool {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::default(),
            book: Mutex::default(),
            room: Room::none(),
        })
    }

    fn open(&self) -> Arc<Vec<Arc<Slots>>> {
        Arc::clone(&self.open.lock().unwrap())
    }

    fn try_lease(self: &Arc<Self>) -> Option<Lease> {
        if self.room.try_take() {
            self.claim()
        } else {
            None
        }
    }

    fn claim(self: &Arc<Self>) -> Option<Lease> {
        loop {
            let open = self.open();
            if let Some(free) = open.iter().find(|slots| slots.claim()) {
                return Some(Lease {
                    slots: Arc::clone(free),
                    pool: Arc::clone(self),
                });
            }
            if Arc::ptr_eq(&open, &self.open()) {
                self.room.void();
                return None;
            }
        }
    }

    fn connected(limit: usize) -> Arc<Slots> {
        let slots = Slots::default();
        slots.set_limit(limit);
        Arc::new(slots)
    }

    fn admit(&self, slots: &Arc<Slots>) {
        let book = self.book.lock().unwrap();
        let Some(room) = slots.admit() else { return };
        self.put(&book, |open| open.push(Arc::clone(slots)));
        self.room.gained(room);
    }

    /// As the driver does when the peer changes its limit.
    fn limit(&self, slots: &Slots, limit: usize) {
        let by = slots.set_limit(limit);
        match usize::try_from(by) {
            Ok(more) => self.room.gained(more),
            Err(_) => self.room.lost(by.unsigned_abs() as usize),
        }
    }

    /// As the driver does at a connection's end.
    fn ended(&self, slots: &Arc<Slots>) {
        let Some(lost) = slots.retire() else { return };
        self.room.lost(lost);
        let book = self.book.lock().unwrap();
        self.put(&book, |open| open.retain(|it| !Arc::ptr_eq(it, slots)));
    }

    /// As upkeep does with a connection that nobody used.
    fn send_home(&self, slots: &Arc<Slots>) {
        let book = self.book.lock().unwrap();
        let Some(room) = slots.dismiss_idle() else {
            return;
        };
        self.room.lost(room);
        self.put(&book, |open| open.retain(|it| !Arc::ptr_eq(it, slots)));
    }

    fn put(&self, _: &MutexGuard<'_, ()>, change: impl FnOnce(&mut Vec<Arc<Slots>>)) {
        let mut open = Vec::clone(&self.open());
        change(&mut open);
        *self.open.lock().unwrap() = Arc::new(open);
    }

    /// Once nobody is on the way: as many permits as there is room, and each leads to a slot.
    fn settled(self: &Arc<Self>, room: usize) {
        assert_eq!(
            (self.room.available(), self.room.balance()),
            (room, room as i64)
        );
        let leases: Vec<_> = (0..room).map(|_| self.try_lease()).collect();
        assert!(leases.iter().all(Option::is_some));
        assert!(self.try_lease().is_none());
        drop(leases);
        assert_eq!(self.room.available(), room);
    }
}

fn spawn(pool: &Arc<Pool>, act: impl FnOnce(&Arc<Pool>) + 'static) -> thread::JoinHandle<()> {
    let pool = Arc::clone(pool);
    thread::spawn(move || act(&pool))
}

/// Two calls and the end of one of two connections.
#[test]
fn a_connection_ends_under_calls() {
    model(|| {
        let pool = Pool::new();
        let [first, second] = [Pool::connected(1), Pool::connected(1)];
        pool.admit(&first);
        pool.admit(&second);
        let call = spawn(&pool, |pool| drop(pool.try_lease()));
        let end = spawn(&pool, move |pool| pool.ended(&first));
        drop(pool.try_lease());
        call.join().unwrap();
        end.join().unwrap();
        pool.settled(1);
    });
}

/// A lowered and raised limit under a call.
#[test]
fn a_limit_changes_under_a_call() {
    model(|| {
        let pool = Pool::new();
        let slots = Pool::connected(2);
        pool.admit(&slots);
        let call = spawn(&pool, |pool| drop(pool.try_lease()));
        let peer = spawn(&pool, move |pool| {
            pool.limit(&slots, 0);
            pool.limit(&slots, 1);
        });
        drop(pool.try_lease());
        call.join().unwrap();
        peer.join().unwrap();
        pool.settled(1);
    });
}

/// A connection goes home while calls come, and another is opened: a permit of the new one may be used on the old one
/// and the other way round.
#[test]
fn one_goes_home_and_one_is_opened_under_a_call() {
    model(|| {
        let pool = Pool::new();
        let old = Pool::connected(1);
        pool.admit(&old);
        let upkeep = {
            let old = Arc::clone(&old);
            spawn(&pool, move |pool| pool.send_home(&old))
        };
        let dial = spawn(&pool, |pool| pool.admit(&Pool::connected(1)));
        drop(pool.try_lease());
        upkeep.join().unwrap();
        dial.join().unwrap();
        let stayed = pool.open().iter().any(|it| Arc::ptr_eq(it, &old));
        pool.settled(1 + usize::from(stayed));
    });
}

/// A permit whose room moved to a connection that was opened meanwhile finds it there.
#[test]
fn a_call_with_a_permit_finds_the_room_that_it_is_for() {
    model(|| {
        let pool = Pool::new();
        let slots = Pool::connected(1);
        pool.admit(&slots);
        let other = spawn(&pool, |pool| drop(pool.try_lease()));
        let dial = spawn(&pool, |pool| pool.admit(&Pool::connected(1)));
        // Nothing is lost here, so a permit is never void.
        if pool.room.try_take() {
            drop(pool.claim().expect("a permit is for room that exists"));
        }
        other.join().unwrap();
        dial.join().unwrap();
        pool.settled(2);
    });
}
