//! The permits that calls wait for: one for each call that the open connections have room for.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::Semaphore;

use crate::lock::lock;

/// A fair semaphore that stays exact although connections lose room while calls hold permits for it: its count
/// can go below zero.
///
/// Permits that can be had, plus those taken and not yet turned into slots, minus what is due: that is the room
/// of the open connections. It is more by the room of which the loss is yet to be told, and less by the gain.
#[derive(Debug)]
pub(super) struct Room {
    permits: Semaphore,
    /// Lost room for which there was no permit to take away: the next ones that come are for it.
    due: AtomicUsize,
    /// Held while what is due is paid: two at once must not both pay the same.
    settling: Mutex<()>,
}

impl Room {
    pub(super) fn none() -> Self {
        Self {
            permits: Semaphore::new(0),
            due: AtomicUsize::new(0),
            settling: Mutex::new(()),
        }
    }

    /// There is room for so many more calls. What is due is paid first: a permit that went to someone who waits
    /// would be void, go on to the next one, and so on, for as long as anyone waits.
    pub(super) fn gained(&self, room: usize) {
        let paid = match self.due.load(SeqCst) {
            0 => 0,
            _ => self.pay(|due| due.min(room)),
        };
        self.permits.add_permits(room - paid);
        // Afterwards: either this sees what a loss at the same time leaves due, or that sees these permits.
        if self.due.load(SeqCst) > 0 {
            self.pay(|due| self.permits.forget_permits(due));
        }
    }

    /// Room for so many calls is gone.
    pub(super) fn lost(&self, room: usize) {
        self.due.fetch_add(room, SeqCst);
        self.pay(|due| self.permits.forget_permits(due));
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

    /// A permit that was taken led to no slot. It pays what is due, or goes back: its room is gone, but the loss may
    /// have been set off against the permit for other room meanwhile, or is about to be told and takes it away then.
    pub(super) fn void(&self) {
        self.gained(1);
    }

    pub(super) fn available(&self) -> usize {
        self.permits.available_permits()
    }

    /// Takes as much off what is due as `with` says, and returns that.
    fn pay(&self, with: impl FnOnce(usize) -> usize) -> usize {
        let _alone = lock(&self.settling);
        let paid = with(self.due.load(SeqCst));
        self.due.fetch_sub(paid, SeqCst);
        paid
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

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

    #[test]
    fn a_permit_that_is_void_costs_no_other() {
        // One of two connections ends while its permit is held. The other one's call ends, and its permit is taken
        // away for the loss: the one that turns out void is all that is left.
        let room = room(2);
        assert!(room.try_take() && room.try_take());
        room.gained(1);
        room.lost(1);
        room.void();
        assert_eq!(room.available(), 1);
    }

    #[test]
    fn a_held_permit_may_serve_for_what_comes() {
        let room = room(1);
        assert!(room.try_take());
        room.lost(1);
        // The holder finds this one.
        room.gained(1);
        assert_eq!(room.available(), 0);
        room.gained(1);
        assert_eq!(room.available(), 1);
    }

    #[test]
    fn a_void_permit_does_not_go_round_among_those_who_wait() {
        let room = room(0);
        let mut context = Context::from_waker(Waker::noop());
        let mut first = pin!(room.take());
        let mut second = pin!(room.take());
        assert!(first.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_pending());
        // The first one's permit comes, and its room goes before it looks.
        room.gained(1);
        room.lost(1);
        assert!(first.poll(&mut context).is_ready());
        room.void();
        assert!(second.as_mut().poll(&mut context).is_pending());
        room.gained(1);
        assert!(second.poll(&mut context).is_ready());
    }

    #[test]
    fn what_is_due_is_paid_before_those_who_wait_are_served() {
        let room = room(1);
        assert!(room.try_take());
        room.lost(1);
        let mut context = Context::from_waker(Waker::noop());
        let mut waiting = pin!(room.take());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        // The room is for the one that holds a permit already.
        room.gained(1);
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        room.gained(1);
        assert!(waiting.poll(&mut context).is_ready());
    }
}
