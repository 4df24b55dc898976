//! What time does to connections: surplus ones go home, idle ones are closed, old ones are replaced.

use std::sync::Arc;

use deadpool::managed::Object;

use crate::lock::lock;
use crate::time::Instant;

use super::connections::{Book, Pool, Pooled};

impl Pool {
    /// Looks after the connections. Called from time to time; never on a call's way.
    pub(crate) fn upkeep(&self, now: Instant) {
        let security = &self.objects.manager().security;
        for pooled in self.open.load().iter() {
            security.warn_of_peer(&pooled.peer);
        }
        let mut book = lock(&self.book);
        self.send_surplus_home(&mut book, now);
        let idle_timeout = self.options.idle_timeout;
        let idle = self.objects.retain(|made, _| {
            let age = now.saturating_duration_since(*lock(&made.idle_since));
            age < idle_timeout && !security.is_newer_than(&made.peer)
        });
        for made in idle.removed {
            made.connection.retire();
        }
        for pooled in self.open.load().iter().filter(|it| self.is_over(it, now)) {
            // Makes room for its replacement; it serves calls until that is there.
            pooled.detach();
        }
        self.dial_if_wanted(&mut book, self.queue.len());
    }

    /// From here on, a byte shows that the peer of a connection is alive.
    pub(crate) fn listen(&self) {
        for pooled in self.open.load().iter() {
            pooled.connection.listen();
        }
    }

    /// Takes no more calls on connections that have not had a byte since [`listen`](Self::listen): their peer may be
    /// frozen. They finish their calls, if that is ever; new ones are ready once the peer has answered. Says whether there
    /// were any.
    pub(crate) fn retire_silent(&self) -> bool {
        let mut book = lock(&self.book);
        let open = self.open.load_full();
        let (heard, silent): (Vec<_>, Vec<_>) = open
            .iter()
            .cloned()
            .partition(|it| it.connection.was_heard());
        if silent.is_empty() {
            return false;
        }
        self.open.store(Arc::new(heard));
        for pooled in &silent {
            self.put_down(&mut book, pooled);
        }
        self.update(&mut book);
        self.dial_if_wanted(&mut book, self.queue.len());
        true
    }

    /// Gives connections above the minimum that had no call since the last look back to deadpool, newest
    /// first: there they wait for the next growth, or for their idle timeout.
    fn send_surplus_home(&self, book: &mut Book, now: Instant) {
        let mut open = Vec::clone(&self.open.load_full());
        let before = open.len();
        let mut at = open.len();
        while at > 0 && open.len() > self.options.min {
            at -= 1;
            if self.go_home(&open[at], now) {
                open.remove(at);
            }
        }
        if open.len() < before {
            self.open.store(Arc::new(open));
            self.update(book);
        }
    }

    fn go_home(&self, pooled: &Pooled, now: Instant) -> bool {
        let slots = pooled.connection.slots();
        if slots.take_touched() {
            return false;
        }
        let mut object = lock(&pooled.object);
        // Without its object it has expired and waits for its replacement.
        let Some(made) = object.take() else {
            return false;
        };
        let Some(room) = slots.dismiss_idle() else {
            *object = Some(made);
            return false;
        };
        self.room.lost(room);
        *lock(&made.idle_since) = now;
        drop::<Object<_>>(made);
        true
    }
}
