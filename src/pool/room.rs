//! The permits that calls wait for: one for each call that the open connections have room for.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Semaphore;

/// A fair semaphore that stays exact although connections lose room while calls hold permits for it.
///
/// Permits that can still be had, plus those taken and not yet turned into slots, minus what is due: that is
/// the room of the open connections.
#[derive(Debug)]
pub(super) struct Room {
    permits: Semaphore,
    /// Permits for lost room that somebody holds: they will turn out void. Negative while they did so before
    /// the loss was told.
    due: AtomicI64,
}

impl Room {
    pub(super) fn none() -> Self {
        Self {
            permits: Semaphore::new(0),
            due: AtomicI64::new(0),
        }
    }

    /// There is room for so many more calls.
    pub(super) fn gained(&self, room: usize) {
        self.permits.add_permits(room);
    }

    /// Room for so many calls is gone.
    pub(super) fn lost(&self, room: usize) {
        // Whoever takes the sum settles it; two at once must not both forget permits for it.
        let due = self.due.swap(0, Ordering::AcqRel) + room as i64;
        let forgotten = match usize::try_from(due) {
            Ok(due) => self.permits.forget_permits(due),
            Err(_) => 0,
        };
        self.due.fetch_add(due - forgotten as i64, Ordering::AcqRel);
    }

    /// Takes a permit if there is one and nobody waits.
    pub(super) fn try_take(&self) -> bool {
        self.permits.try_acquire().map(|it| it.forget()).is_ok()
    }

    /// Waits for a permit; those who wait are served in their order.
    pub(super) async fn take(&self) {
        // It is never closed.
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
    }

    /// A permit that was taken led to no slot: the room is gone.
    pub(super) fn void(&self) {
        self.due.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn available(&self) -> usize {
        self.permits.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(free: usize) -> Room {
        let room = Room::none();
        room.gained(free);
        room
    }

    #[test]
    fn a_permit_that_is_void_before_its_loss_is_told_costs_no_other() {
        // The connection with all the room retires, a call finds that out first, and another one gets room.
        let room = room(3);
        assert!(room.try_take());
        room.void();
        room.gained(1);
        room.lost(3);
        assert_eq!(room.available(), 1);
    }

    #[test]
    fn a_permit_that_is_held_when_its_room_is_lost_is_void_once() {
        let room = room(3);
        assert!(room.try_take());
        room.lost(3);
        assert!(!room.try_take());
        room.void();
        room.gained(2);
        room.lost(1);
        assert_eq!(room.available(), 1);
    }
}
