//! Makes the sets that calls see.

use std::sync::Arc;
use std::time::Duration;

use crate::balance::Policy;
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

/// With so many endpoints a rest that follows a set that can be picked from is at least that short: hundreds of
/// connections, made in some milliseconds, would keep the thread from the calls that the first of them could serve.
const MANY: usize = 100;

/// Pickers are built anew no more often (the floor of gRPC's weighted round robin, gRFC A58).
const SHORTEST_REFRESH: Duration = Duration::from_millis(100);
/// Clocks have an end: some of tokio's intervals panic beyond it.
const LONGEST_REFRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// How often that is.
pub(super) fn refresh_interval(policy: &dyn Policy) -> Option<Duration> {
    let interval = policy.refresh_interval()?;
    Some(interval.clamp(SHORTEST_REFRESH, LONGEST_REFRESH))
}

impl Writer {
    /// Replaces the set by what is known now.
    pub(super) fn publish(&mut self) {
        let start = Instant::now();
        if std::mem::take(&mut self.stale) {
            // The set follows what has changed; whether others are to be used now was not looked at.
            self.context.flips.notify_one();
        }
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
                let age = self.directory.age(start);
                EndpointSet::build(version, members, &self.directory.policy, &self.rules, age)
            }
            (None, None) => EndpointSet::blocked(version, members, Blocked::Wait),
            (None, Some(error)) => {
                let reason = format!("{} failed: {error}", self.directory.source);
                EndpointSet::blocked(version, members, Blocked::Fail(Some(reason.into())))
            }
        });
        let turns = self.known.values().filter_map(|it| it.health.next());
        let turns = turns.chain(self.directory.set.load().turning);
        self.turning = turns.chain(self.selection.next()).min();
        let mut rest = start.elapsed() * REST;
        if self.known.len() >= MANY && self.directory.set.load().can_be_picked_from() {
            rest = rest.max(SHORTEST_REST);
        }
        self.rested = (rest >= SHORTEST_REST).then(|| Instant::now() + rest);
    }

    /// Builds the picker anew, of endpoints that are the same. Calls that wait for another set are not woken.
    pub(super) fn refresh(&mut self) {
        let before = self.directory.set.load_full();
        if !before.can_be_picked_from() {
            return;
        }
        let members = Arc::clone(&self.members);
        let policy = &self.directory.policy;
        let age = self.directory.age(Instant::now());
        let set = EndpointSet::build(before.version, members, policy, &self.rules, age);
        if set.admission == before.admission {
            self.directory.set.store(Arc::new(set));
        } else {
            self.review();
        }
    }

    pub(super) fn set(&self, make: impl FnOnce(u64) -> EndpointSet) {
        let before = self.directory.set.load_full();
        let set = make(before.version + 1).after(&before);
        let state = set.state();
        let flipped = set.admission.differs(&before.admission);
        self.directory.set.store(Arc::new(set));
        self.directory.changed.notify_waiters();
        self.directory
            .state
            .send_if_modified(|old| std::mem::replace(old, state) != state || flipped);
    }
}
