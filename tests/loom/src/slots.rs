//! One word: every change of it reports exactly what it did to the room.

include!(concat!(env!("OUT_DIR"), "/slots.rs"));

mod model {
    use loom::sync::Arc;
    use loom::thread;

    use crate::model;

    use super::*;

    fn admitted(limit: usize) -> Arc<Slots> {
        let slots = Slots::default();
        slots.set_limit(limit);
        assert_eq!(slots.admit(), Some(limit));
        Arc::new(slots)
    }

    /// The room that is left, found by taking it away.
    fn room(slots: &Slots) -> i64 {
        Word(slots.0.load(Ordering::Relaxed)).room() as i64
    }

    #[test]
    fn the_last_slot_is_claimed_once() {
        model(|| {
            let slots = admitted(1);
            let other = {
                let slots = Arc::clone(&slots);
                thread::spawn(move || slots.claim())
            };
            let here = slots.claim();
            let there = other.join().unwrap();
            assert!(here ^ there);
            assert_eq!((slots.in_flight(), room(&slots)), (1, 0));
        });
    }

    /// A call comes and goes while the peer changes its limit and the pool takes the connection out: the reported
    /// changes add up to the room, nothing is claimed once it is retired, and it is retired once.
    #[test]
    fn the_changes_add_up_while_a_call_comes_and_goes() {
        model(|| {
            let slots = admitted(2);
            let caller = {
                let slots = Arc::clone(&slots);
                thread::spawn(move || {
                    if slots.claim() {
                        slots.release() as i64 - 1
                    } else {
                        0
                    }
                })
            };
            let peer = {
                let slots = Arc::clone(&slots);
                thread::spawn(move || slots.set_limit(1) + slots.set_limit(3))
            };
            let retired = slots.retire().map(|lost| -(lost as i64));
            assert!(retired.is_some() && !slots.claim());
            let changes = caller.join().unwrap() + peer.join().unwrap() + retired.unwrap();
            assert_eq!(2 + changes, room(&slots));
            assert_eq!((room(&slots), slots.in_flight()), (0, 0));
            assert_eq!(slots.retire(), None);
        });
    }

    /// An idle connection goes home while a call claims it: either the call has it and it stays, or it is gone with all
    /// its room.
    #[test]
    fn a_connection_goes_home_or_is_claimed() {
        model(|| {
            let slots = admitted(2);
            let caller = {
                let slots = Arc::clone(&slots);
                thread::spawn(move || slots.claim())
            };
            let gone = slots.dismiss_idle();
            let claimed = caller.join().unwrap();
            match gone {
                Some(room) => assert!(!claimed && room == 2),
                None => assert!(claimed),
            }
            assert_eq!(room(&slots), if claimed { 1 } else { 0 });
        });
    }

    /// The driver and the pool both retire a connection; one of them is told of the room, and the call on it goes on.
    #[test]
    fn room_is_lost_to_one() {
        model(|| {
            let slots = admitted(2);
            assert!(slots.claim());
            let driver = {
                let slots = Arc::clone(&slots);
                thread::spawn(move || slots.retire())
            };
            let call = {
                let slots = Arc::clone(&slots);
                thread::spawn(move || slots.release())
            };
            let pool = slots.retire();
            let driver = driver.join().unwrap();
            let back = call.join().unwrap();
            assert!(pool.is_some() ^ driver.is_some());
            assert_eq!(pool.or(driver), Some(1 + back));
            assert_eq!(slots.in_flight(), 0);
        });
    }

    /// Use that the idle check does not see would close a connection that is needed.
    #[test]
    fn use_is_noticed() {
        model(|| {
            let slots = admitted(2);
            assert!(slots.take_touched());
            let caller = {
                let slots = Arc::clone(&slots);
                thread::spawn(move || {
                    assert!(slots.claim());
                    slots.release();
                })
            };
            let before = slots.take_touched();
            caller.join().unwrap();
            assert!(before || slots.take_touched());
            assert_eq!((slots.in_flight(), room(&slots)), (0, 2));
        });
    }
}
