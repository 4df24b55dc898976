//! Makes the endpoints that are used what discovery, and the choice among them, want.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::endpoint::{Endpoint, Key, Member, Subchannel};
use crate::time::Instant;

use super::{Writer, is_ready};

/// New endpoints that begin to dial before other tasks have their turn.
const AT_ONCE: usize = 32;

impl Writer {
    /// The endpoints whose address is right, each once.
    pub(super) fn usable(&self, endpoints: Vec<Endpoint>) -> Vec<Key> {
        let source = &self.directory.source;
        let mut seen = HashSet::with_capacity(endpoints.len());
        let mut usable = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            match endpoint.key() {
                Ok(key) if seen.insert(key.clone()) => usable.push(key),
                Ok(_) => tracing::warn!(source, %endpoint, "endpoint given twice"),
                Err(error) => tracing::warn!(source, %error, "endpoint left out"),
            }
        }
        usable
    }

    /// Makes the members what is believed: endpoints that stayed keep their connections, new ones are dialled, those
    /// that are gone finish their calls.
    pub(super) fn rebuild(&mut self) {
        let now = Instant::now();
        let active = self.belief.all().enumerate();
        let active = active.filter(|(_, (entry, _))| entry.is_active());
        let choice = (self.selection).choose(active.map(|(place, (entry, _))| (place, &entry.key)));
        let is_chosen = choice.as_ref().map(|places| {
            let mut is_chosen = vec![false; self.belief.len()];
            places.iter().for_each(|place| is_chosen[*place] = true);
            is_chosen
        });
        let mut known = HashMap::with_capacity(self.known.len());
        let mut members = Vec::with_capacity(self.belief.len());
        for (place, (entry, listed)) in self.belief.all().enumerate() {
            let key = &entry.key;
            let is_used = entry.is_active() && is_chosen.as_ref().is_none_or(|it| it[place]);
            let subchannel = is_used.then(|| {
                let kept = self.known.remove(key).unwrap_or_else(|| {
                    let new = Subchannel::new(key, &self.context, &self.rules);
                    self.waiting.push_back(Arc::clone(&new));
                    new
                });
                kept.health.listed(now, listed);
                known.insert(key.clone(), Arc::clone(&kept));
                kept
            });
            members.push(Member {
                endpoint: key.endpoint().clone(),
                subchannel,
                listed,
                until: entry.until,
            });
        }
        let gone = std::mem::replace(&mut self.known, known);
        let order = choice.unwrap_or_default().into_iter();
        let order = order.filter_map(|place| members[place].subchannel.clone());
        self.selection.uses(order.collect());
        self.members = members.into();
        self.publish();
        // After the set that doesn't have them is out: fewer calls meet a closed pool.
        for subchannel in gone.values() {
            subchannel.pool.close();
        }
        self.begin_some();
    }

    /// Lets the next of the new endpoints dial. A task for each of hundreds takes this thread's time from the first one's
    /// handshake, and from the call that waits for it.
    pub(super) fn begin_some(&mut self) {
        let next = self.waiting.len().min(AT_ONCE);
        for subchannel in self.waiting.drain(..next) {
            subchannel.pool.begin();
        }
    }

    /// A pool's state has changed, and the set with it.
    pub(super) fn follow_states(&mut self) {
        self.stale = false;
        if self.belief.holds() {
            self.let_go();
        }
        self.review();
    }

    /// Something about the endpoints has changed: whether they get calls, and who is used in their place.
    pub(super) fn review(&mut self) {
        if self.selection.has_changed(Instant::now()) {
            self.rebuild();
        } else {
            self.publish();
        }
    }

    /// Takes out what has stayed for long enough although discovery no longer lists it.
    pub(super) fn let_go(&mut self) {
        let known = &self.known;
        if self
            .belief
            .let_go(Instant::now(), |key| is_ready(known, key))
        {
            self.rebuild();
        }
    }
}
