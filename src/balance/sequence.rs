//! Counters that many threads advance without meeting.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::thread_number::thread_number;

/// This many threads at a time have a counter of their own.
const OWNED: usize = 32;

/// The threads after those share as many counters as this.
const SHARED: usize = 16;

/// A place in a sequence that moves on with every pick, one place for each thread. 6 KiB in all.
///
/// From each counter a sequence is handed out without gaps or repeats. The counters know nothing of
/// each other: the picks of one are even, the sum of `k` is off by at most `k` times as much.
///
/// A step costs about 1 ns on a counter of the thread's own, which needs no atomic
/// read-modify-write, 7 ns on a shared one that is left alone, and 30 ns on one that two busy
/// threads fight over.
#[derive(Debug)]
pub(super) struct Sequences {
    owned: [Counter; OWNED],
    shared: [Counter; SHARED],
}

/// Two cache lines: x86-64 fetches adjacent ones in pairs, and on some aarch64 cores they are of
/// 128 bytes.
#[derive(Debug)]
#[repr(align(128))]
struct Counter(AtomicU64);

impl Sequences {
    /// Each counter begins at a place of its own from `start`, so that threads (and clients) don't
    /// move in step.
    pub(super) fn new(mut start: impl FnMut() -> u64) -> Self {
        let mut counter = |_| Counter(AtomicU64::new(start()));
        Self {
            owned: array::from_fn(&mut counter),
            shared: array::from_fn(&mut counter),
        }
    }

    /// Moves the place of this thread on, from any value to the one that `step` names, and returns
    /// what `step` found on the way. If another thread moves a shared place meanwhile, `step` is
    /// asked again from there.
    pub(super) fn advance<T>(&self, step: impl Fn(u64) -> (u64, T)) -> T {
        self.advance_as(thread_number().unwrap_or(OWNED), step)
    }

    // Relaxed throughout: a place publishes nothing but itself.
    fn advance_as<T>(&self, thread: usize, step: impl Fn(u64) -> (u64, T)) -> T {
        if let Some(Counter(place)) = self.owned.get(thread) {
            // Nobody else writes it while this thread lives.
            let (to, found) = step(place.load(Relaxed));
            place.store(to, Relaxed);
            return found;
        }
        let Counter(place) = &self.shared[thread % SHARED];
        let mut from = place.load(Relaxed);
        loop {
            let (to, found) = step(from);
            match place.compare_exchange_weak(from, to, Relaxed, Relaxed) {
                Ok(_) => return found,
                Err(moved) => from = moved,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;

    fn next(place: u64) -> (u64, u64) {
        (place + 1, place)
    }

    #[test]
    fn every_counter_has_a_start_of_its_own() {
        let mut start = 0..;
        let sequences = Sequences::new(|| start.next().unwrap());
        let all = OWNED + SHARED;
        let starts: HashSet<_> = (0..all)
            .map(|thread| sequences.advance_as(thread, next))
            .collect();
        assert_eq!(starts.len(), all);
    }

    #[test]
    fn each_thread_goes_through_a_sequence_of_its_own() {
        let sequences = Sequences::new(|| 5);
        thread::scope(|scope| {
            for number in 0..OWNED {
                let sequences = &sequences;
                scope.spawn(move || {
                    let places = (0..1_000).map(|_| sequences.advance_as(number, next));
                    assert!(places.eq(5..1_005));
                });
            }
        });
    }

    #[test]
    fn sharing_threads_together_get_each_place_once() {
        let sequences = Sequences::new(|| 0);
        let mut places: Vec<u64> = thread::scope(|scope| {
            let run = || {
                (0..10_000)
                    .map(|_| sequences.advance_as(OWNED, next))
                    .collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        places.sort_unstable();
        assert!(places.into_iter().eq(0..40_000));
    }
}
