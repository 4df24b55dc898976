//! Makes the sets that calls see.

use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::{Blocked, EndpointSet};
use crate::time::Instant;

use super::{News, Writer};

/// How long the writer rests after making a set, as a multiple of the time that took.
///
/// A set of three endpoints takes microseconds, one of ten thousand a millisecond. Made anew for each of ten thousand
/// endpoints as it connects, they would take the time that connecting needs.
const REST: u32 = 4;
/// Shorter rests are none: timers have this resolution.
const SHORTEST_REST: Duration = Duration::from_millis(1);

impl Writer {
    /// Replaces the set by what is known now.
    pub(super) fn publish(&mut self) {
        let start = Instant::now();
        self.stale = false;
        let News {
            answered,
            error,
            none,
            ..
        } = self.directory.news();
        let members = Arc::clone(&self.members);
        self.set(|version| match (answered, error) {
            (Some(_), _) if members.is_empty() && none.is_some() => {
                let reason = format!(
                    "{} has no endpoint: {}",
                    self.directory.source,
                    none.unwrap_or_default()
                );
                EndpointSet::blocked(version, members, Blocked::Fail(Some(reason.into())))
            }
            (Some(_), _) => {
                let limits = &self.rules.limits;
                let age = self.directory.age(start);
                EndpointSet::build(version, members, &self.directory.policy, limits, age)
            }
            (None, None) => EndpointSet::blocked(version, members, Blocked::Wait),
            (None, Some(error)) => {
                let reason = format!("{} failed: {error}", self.directory.source);
                EndpointSet::blocked(version, members, Blocked::Fail(Some(reason.into())))
            }
        });
        let turns = self.known.values().filter_map(|it| it.health.next());
        self.turning = turns.min();
        let rest = start.elapsed() * REST;
        self.rested = (rest >= SHORTEST_REST).then(|| Instant::now() + rest);
    }

    pub(super) fn set(&self, make: impl FnOnce(u64) -> EndpointSet) {
        let before = self.directory.set.load_full();
        let set = make(before.version + 1);
        let state = set.state();
        let flipped = set.admission != before.admission;
        self.directory.set.store(Arc::new(set));
        self.directory.changed.notify_waiters();
        self.directory
            .state
            .send_if_modified(|old| std::mem::replace(old, state) != state || flipped);
    }
}
