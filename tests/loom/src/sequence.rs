//! Threads that share a counter together get each place once.

include!(concat!(env!("OUT_DIR"), "/sequence.rs"));

/// Every thread shares, but for those that a model gives a number.
fn thread_number() -> Option<usize> {
    None
}

mod model {
    use loom::sync::Arc;
    use loom::thread;

    use crate::model;

    use super::*;

    fn next(place: u64) -> (u64, u64) {
        (place + 1, place)
    }

    #[test]
    fn sharing_threads_together_get_each_place_once() {
        model(|| {
            let sequences = Arc::new(Sequences::new(|| 7));
            let other = {
                let sequences = Arc::clone(&sequences);
                thread::spawn(move || [sequences.advance(next), sequences.advance(next)])
            };
            let [here, there] = [
                [sequences.advance(next), sequences.advance(next)],
                other.join().unwrap(),
            ];
            assert!(here.is_sorted() && there.is_sorted());
            let mut places = [here, there].concat();
            places.sort_unstable();
            assert_eq!(places, [7, 8, 9, 10]);
        });
    }

    /// A counter passes from a thread that ends to a later one: numbers are given back under a lock, which the join
    /// stands for here. Plain loads and stores are enough then.
    #[test]
    fn an_owned_counter_goes_on_where_its_last_thread_left_it() {
        model(|| {
            let sequences = Arc::new(Sequences::new(|| 7));
            for expected in [[7, 8], [9, 10]] {
                let owned = Arc::clone(&sequences);
                let owner =
                    thread::spawn(move || [owned.advance_as(0, next), owned.advance_as(0, next)]);
                sequences.advance(next);
                assert_eq!(owner.join().unwrap(), expected);
            }
        });
    }
}
