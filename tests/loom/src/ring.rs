//! Events are counted once, under the slot that `add` named, although cells are reused.

include!(concat!(env!("OUT_DIR"), "/ring.rs"));

mod model {
    use loom::sync::Arc;
    use loom::thread;

    use crate::model;

    use super::*;

    fn spawn<T: 'static>(ring: &Arc<Ring>, act: fn(&Ring) -> T) -> thread::JoinHandle<T> {
        let ring = Arc::clone(ring);
        thread::spawn(move || act(&ring))
    }

    #[test]
    fn every_event_is_counted() {
        model(|| {
            let ring = Arc::new(Ring::default());
            let threads = [
                spawn(&ring, |ring| ring.add(1)),
                spawn(&ring, |ring| ring.add(1)),
            ];
            ring.add(2);
            for thread in threads {
                assert_eq!(thread.join().unwrap(), 1);
            }
            assert_eq!((ring.sum(2, SLOTS), ring.sum(2, 1)), (3, 1));
        });
    }

    /// A cell passes to a newer slot while others count under both: none of the newer slot's events is lost, and an
    /// event that came too late for the old slot says that it counts for the new one.
    #[test]
    fn a_cell_passes_to_a_newer_slot() {
        model(|| {
            let ring = Arc::new(Ring::default());
            ring.add(1);
            let threads = [
                spawn(&ring, |ring| ring.add(1 + SLOTS)),
                spawn(&ring, |ring| ring.add(1)),
            ];
            let here = ring.add(1 + SLOTS);
            let named = threads.map(|thread| thread.join().unwrap());
            assert_eq!((here, named[0]), (1 + SLOTS, 1 + SLOTS));
            let newer = 2 + u64::from(named[1] == 1 + SLOTS);
            assert_eq!(ring.sum(1 + SLOTS, 1), newer);
        });
    }

    /// What is taken back was counted, and under the slot that it was counted for.
    #[test]
    fn taking_back_leaves_the_others() {
        model(|| {
            let ring = Arc::new(Ring::default());
            let threads = [
                spawn(&ring, |ring| {
                    let slot = ring.add(1);
                    ring.remove(slot);
                }),
                spawn(&ring, |ring| {
                    let slot = ring.add(1 + SLOTS);
                    ring.remove(slot);
                }),
            ];
            let here = ring.add(1 + SLOTS);
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(here, 1 + SLOTS);
            assert_eq!(ring.sum(1 + SLOTS, SLOTS), 1);
        });
    }
}
