//! The stream slots of one connection: how many calls are on it, and how many it may carry.
//!
//! All of it is one atomic word, so that each change tells exactly how the *room* changed: the number of
//! calls the connection would still accept. The pool's semaphore holds the sum of the rooms of its
//! connections; whoever changes a word passes the difference on to it.

use std::sync::atomic::{AtomicU64, Ordering};

const COUNT_BITS: u32 = 30;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
/// Set by a claim, cleared by [`Slots::take_touched`]: tells the idle check of use without a clock read.
const TOUCHED: u64 = 1 << 60;
/// The pool counts this connection's room.
const ADMITTED: u64 = 1 << 61;
/// No new calls, for good.
const RETIRED: u64 = 1 << 62;

/// The largest stream limit that is kept apart from "unlimited".
pub(crate) const MAX_LIMIT: usize = COUNT_MASK as usize;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Slots(AtomicU64);

#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    fn in_flight(self) -> u64 {
        self.0 & COUNT_MASK
    }

    fn limit(self) -> u64 {
        (self.0 >> COUNT_BITS) & COUNT_MASK
    }

    fn room(self) -> u64 {
        if self.0 & (ADMITTED | RETIRED) == ADMITTED {
            self.limit().saturating_sub(self.in_flight())
        } else {
            0
        }
    }
}

impl Slots {
    /// Takes a slot if there is room. Its room goes down by one.
    pub(crate) fn claim(&self) -> bool {
        self.change(|word| (word.room() > 0).then_some((word.0 + 1) | TOUCHED))
            .is_some()
    }

    /// Gives a slot back. Returns by how much the room grew: 0 or 1.
    pub(crate) fn release(&self) -> usize {
        self.change(|word| Some(word.0 - 1))
            .map_or(0, |room| usize::from(room > 0))
    }

    /// Sets the limit. Returns by how much the room changed.
    pub(crate) fn set_limit(&self, limit: usize) -> i64 {
        let limit = limit.min(MAX_LIMIT) as u64;
        self.change(|word| Some((word.0 & !(COUNT_MASK << COUNT_BITS)) | (limit << COUNT_BITS)))
            .unwrap_or(0)
    }

    /// Lets the pool count on this connection. Returns the room that this adds; `None` if it is retired.
    /// Counts as use: what was just opened is not surplus before a call could come.
    pub(crate) fn admit(&self) -> Option<usize> {
        self.change(|word| (word.0 & RETIRED == 0).then_some(word.0 | ADMITTED | TOUCHED))
            .map(|room| usize::try_from(room).unwrap_or(0))
    }

    /// Takes the connection out of the pool's count while no call is on it. Returns the room that goes
    /// with it; `None` while calls are on it.
    pub(crate) fn dismiss_idle(&self) -> Option<usize> {
        self.change(|word| (word.in_flight() == 0).then_some(word.0 & !ADMITTED))
            .map(|room| usize::try_from(-room).unwrap_or(0))
    }

    /// No new calls from now on. Returns the room that is lost; `None` if it was retired before.
    pub(crate) fn retire(&self) -> Option<usize> {
        self.change(|word| (word.0 & RETIRED == 0).then_some(word.0 | RETIRED))
            .map(|room| usize::try_from(-room).unwrap_or(0))
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.0.load(Ordering::Acquire) & RETIRED != 0
    }

    /// How many calls it may have at a time.
    pub(crate) fn limit(&self) -> usize {
        usize::try_from(Word(self.0.load(Ordering::Relaxed)).limit()).unwrap_or(usize::MAX)
    }

    pub(crate) fn in_flight(&self) -> usize {
        Word(self.0.load(Ordering::Relaxed)).in_flight() as usize
    }

    /// Whether a slot was claimed since the last time this was asked.
    pub(crate) fn take_touched(&self) -> bool {
        self.0.fetch_and(!TOUCHED, Ordering::Relaxed) & TOUCHED != 0
    }

    /// Applies `next` until it wins or declines. Returns the change in room.
    fn change(&self, next: impl Fn(Word) -> Option<u64>) -> Option<i64> {
        let mut old = Word(self.0.load(Ordering::Acquire));
        loop {
            let new = Word(next(old)?);
            match self
                .0
                .compare_exchange_weak(old.0, new.0, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Some(new.room() as i64 - old.room() as i64),
                Err(seen) => old = Word(seen),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn admitted(limit: usize) -> Slots {
        let slots = Slots::default();
        slots.set_limit(limit);
        assert_eq!(slots.admit(), Some(limit));
        slots
    }

    #[test]
    fn claims_stop_at_the_limit() {
        let slots = admitted(2);
        assert!(slots.claim() && slots.claim() && !slots.claim());
        assert_eq!(slots.release(), 1);
        assert!(slots.claim());
    }

    #[test]
    fn a_lowered_limit_lets_open_calls_finish_and_gives_no_room_until_below() {
        let slots = admitted(3);
        assert!(slots.claim() && slots.claim() && slots.claim());
        assert_eq!(slots.set_limit(1), 0);
        assert_eq!((slots.release(), slots.release()), (0, 0));
        assert_eq!(slots.release(), 1);
        assert_eq!(slots.set_limit(5), 4);
    }

    #[test]
    fn retiring_takes_the_room_once() {
        let slots = admitted(4);
        assert!(slots.claim());
        assert_eq!(slots.retire(), Some(3));
        assert_eq!(slots.retire(), None);
        assert_eq!(slots.release(), 0);
        assert!(!slots.claim() && slots.admit().is_none());
    }

    #[test]
    fn an_idle_connection_leaves_with_its_room_and_comes_back() {
        let slots = admitted(4);
        assert!(slots.claim());
        assert_eq!(slots.dismiss_idle(), None);
        slots.release();
        assert_eq!(slots.dismiss_idle(), Some(4));
        assert!(!slots.claim());
        assert_eq!(slots.admit(), Some(4));
    }

    proptest! {
        /// Whatever happens, the sum of all reported changes is the room.
        #[test]
        fn the_changes_add_up_to_the_room(steps in prop::collection::vec((0u8..6, 0usize..9), 0..200)) {
            let slots = Slots::default();
            let mut room = 0i64;
            let mut held = 0;
            for (step, number) in steps {
                match step {
                    0 => {
                        let claimed = usize::from(slots.claim());
                        room -= claimed as i64;
                        held += claimed;
                    }
                    1 if held > 0 => { room += slots.release() as i64; held -= 1 }
                    2 => room += slots.set_limit(number),
                    3 => room += slots.admit().unwrap_or(0) as i64,
                    4 => room -= slots.dismiss_idle().unwrap_or(0) as i64,
                    5 if number == 0 => room -= slots.retire().unwrap_or(0) as i64,
                    _ => {}
                }
                prop_assert_eq!(room, Word(slots.0.load(Ordering::Relaxed)).room() as i64);
                prop_assert_eq!(slots.in_flight(), held);
            }
        }
    }
}
