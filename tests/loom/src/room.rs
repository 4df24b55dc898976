//! Permits follow the room of the connections, whatever the order in which gains, losses and void permits are told.

include!(concat!(env!("OUT_DIR"), "/room.rs"));

impl Room {
    /// Permits that can be had, less what is due: once nobody holds any, it is the room.
    pub(crate) fn balance(&self) -> i64 {
        self.available() as i64 - self.due.load(SeqCst) as i64
    }
}

mod model {
    use loom::sync::Arc;
    use loom::thread;

    use crate::model;

    use super::*;

    fn room(free: usize) -> Arc<Room> {
        let room = Room::none();
        room.gained(free);
        Arc::new(room)
    }

    fn spawn(room: &Arc<Room>, act: fn(&Room)) -> thread::JoinHandle<()> {
        let room = Arc::clone(room);
        thread::spawn(move || act(&room))
    }

    /// As many permits as room, and nothing due.
    fn settled(room: &Room, free: usize) {
        assert_eq!((room.available(), room.balance()), (free, free as i64));
    }

    #[test]
    fn losses_and_gains_at_once_lose_nothing() {
        model(|| {
            let room = room(2);
            let losses = [
                spawn(&room, |room| room.lost(2)),
                spawn(&room, |room| room.lost(1)),
            ];
            room.gained(2);
            for thread in losses {
                thread.join().unwrap();
            }
            settled(&room, 1);
        });
    }

    /// A connection with all the room ends, which a call finds out by itself at the same time; another gets room.
    #[test]
    fn a_void_permit_its_loss_and_a_gain_meet_in_any_order() {
        model(|| {
            let room = room(2);
            let threads = [
                spawn(&room, |room| {
                    if room.try_take() {
                        room.void();
                    }
                }),
                spawn(&room, |room| room.lost(2)),
            ];
            room.gained(1);
            for thread in threads {
                thread.join().unwrap();
            }
            settled(&room, 1);
        });
    }

    #[test]
    fn losses_at_once_take_no_permit_twice() {
        model(|| {
            let room = room(2);
            assert!(room.try_take() && room.try_take());
            let losses = [
                spawn(&room, |room| room.lost(1)),
                spawn(&room, |room| room.lost(1)),
            ];
            room.void();
            room.gained(1);
            for thread in losses {
                thread.join().unwrap();
            }
            room.void();
            settled(&room, 1);
        });
    }

    /// The call that held the permit of the connection that ended found room on another one.
    #[test]
    fn a_held_permit_serves_for_a_gain_during_its_loss() {
        model(|| {
            let room = room(1);
            assert!(room.try_take());
            let loss = spawn(&room, |room| room.lost(1));
            room.gained(1);
            loss.join().unwrap();
            settled(&room, 0);
        });
    }
}
