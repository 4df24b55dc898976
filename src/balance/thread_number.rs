//! A small number for each thread.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// The calling thread's number, which no other living thread has. Numbers of threads that ended are
/// given away again, the smallest first, so that they stay as small as there are threads at a time.
///
/// What a thread did before it ended happens before everything that the next owner of its number
/// does.
///
/// `None` while the thread ends and has given its number back.
pub(super) fn thread_number() -> Option<usize> {
    thread_local! {
        static OWN: Owned = Owned::take();
    }
    OWN.try_with(|own| own.0).ok()
}

/// The numbers below `next` that nobody has.
struct Numbers {
    free: BTreeSet<usize>,
    next: usize,
}

static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers {
    free: BTreeSet::new(),
    next: 0,
});

/// A number, until dropped.
struct Owned(usize);

impl Owned {
    fn take() -> Self {
        let mut numbers = NUMBERS.lock().unwrap_or_else(PoisonError::into_inner);
        let number = numbers.free.pop_first().unwrap_or(numbers.next);
        numbers.next = numbers.next.max(number + 1);
        Self(number)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        NUMBERS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .free
            .insert(self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn living_threads_have_different_numbers_and_keep_them() {
        const THREADS: usize = 20;
        let all_have_one = Barrier::new(THREADS);
        let numbers: HashSet<usize> = thread::scope(|scope| {
            let run = || {
                let number = thread_number().unwrap();
                all_have_one.wait();
                assert_eq!(thread_number(), Some(number));
                number
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(run)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(numbers.len(), THREADS);
    }

    #[test]
    fn numbers_come_back() {
        // One after the other; other tests' threads hold numbers too, but never as many as these
        // are.
        const THREADS: usize = 1_000;
        let numbers = (0..THREADS).map(|_| thread::spawn(thread_number).join().unwrap().unwrap());
        let distinct: HashSet<usize> = numbers.collect();
        assert!(distinct.len() < THREADS / 2, "{} numbers", distinct.len());
    }
}
