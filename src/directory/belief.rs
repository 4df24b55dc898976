//! Which endpoints are used after an answer of discovery: those that it lists, and those that it is not believed to
//! lack. Pure: time comes in as an argument.

use std::collections::HashSet;

use crate::discover::{Empty, Outage};
use crate::endpoint::{Endpoint, Key};
use crate::time::Instant;

/// What is believed, under the rules of an [`Outage`].
#[derive(Debug)]
pub(super) struct Belief {
    rules: Outage,
    /// The last answer that had endpoints; fewer while they leave after an answer without.
    listed: Vec<Entry>,
    /// What was missing from an answer that was doubted. Kept for no longer than it is connected.
    held: Vec<Entry>,
    /// The last answer had none.
    empty: bool,
    origin: Option<String>,
}

/// An endpoint, with the key that it was checked to have.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) endpoint: Endpoint,
    /// When it leaves.
    pub(super) until: Option<Instant>,
}

/// What an answer meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Believed,
    /// There was nothing in it, and the last endpoints stay.
    Empty,
    /// So many of so many endpoints were gone at once that those which still work stay.
    Doubted {
        gone: usize,
        of: usize,
    },
}

impl Belief {
    pub(super) fn new(rules: Outage) -> Self {
        Self {
            rules,
            listed: Vec::new(),
            held: Vec::new(),
            empty: false,
            origin: None,
        }
    }

    pub(super) fn rules(&self) -> &Outage {
        &self.rules
    }

    /// Takes an answer in. `is_ready` says whether an endpoint has a connection.
    pub(super) fn learn(
        &mut self,
        now: Instant,
        answer: Vec<(Key, Endpoint)>,
        origin: Option<String>,
        is_ready: impl Fn(&Key) -> bool,
    ) -> Verdict {
        if answer.is_empty() {
            return self.learn_nothing(now);
        }
        self.empty = false;
        let entry = |(key, endpoint)| Entry {
            key,
            endpoint,
            until: None,
        };
        let answer = answer.into_iter().map(entry).collect();
        let mut gone = std::mem::replace(&mut self.listed, answer);
        let of = gone.len();
        let listed: HashSet<_> = self.listed.iter().map(|it| &it.key).collect();
        self.held.retain(|it| !listed.contains(&it.key));
        gone.retain(|it| !listed.contains(&it.key));
        if std::mem::replace(&mut self.origin, origin) != self.origin {
            self.held.clear();
            return Verdict::Believed;
        }
        let count = gone.len();
        if count as f64 <= of as f64 * self.rules.guard {
            return Verdict::Believed;
        }
        gone.retain(|it| it.endpoint.weight_or_default() > 0 && is_ready(&it.key));
        self.set_to_leave(now, &mut gone);
        self.held.append(&mut gone);
        Verdict::Doubted { gone: count, of }
    }

    fn learn_nothing(&mut self, now: Instant) -> Verdict {
        let again = std::mem::replace(&mut self.empty, true);
        if self.rules.empty == Empty::Fail {
            self.listed.clear();
            self.held.clear();
        }
        if self.listed.is_empty() {
            return Verdict::Believed;
        }
        if self.rules.empty == Empty::Drain && !again {
            let mut listed = std::mem::take(&mut self.listed);
            self.set_to_leave(now, &mut listed);
            self.listed = listed;
        }
        Verdict::Empty
    }

    /// One by one, at even distances after the grace.
    fn set_to_leave(&self, now: Instant, entries: &mut [Entry]) {
        let count = entries.len() as f64;
        for (nth, entry) in (1..).zip(entries) {
            let part = self.rules.drain.mul_f64(f64::from(nth) / count);
            entry.until = Some(now + self.rules.grace + part);
        }
    }

    /// Lets go of what has stayed for long enough, and of what was held and has lost its connection. Says whether there
    /// was anything.
    pub(super) fn let_go(&mut self, now: Instant, is_ready: impl Fn(&Key) -> bool) -> bool {
        let before = self.listed.len() + self.held.len();
        let stays = |it: &Entry| it.until.is_none_or(|until| until > now);
        self.listed.retain(stays);
        self.held.retain(|it| stays(it) && is_ready(&it.key));
        self.listed.len() + self.held.len() < before
    }

    /// When the next one leaves.
    pub(super) fn next(&self) -> Option<Instant> {
        self.all().filter_map(|(it, _)| it.until).min()
    }

    /// Whether the states of connections matter.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// All endpoints to use, in discovery's order, and whether its last answer lists them.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Entry, bool)> {
        let listed = self.listed.iter().map(|it| (it, !self.empty));
        listed.chain(self.held.iter().map(|it| (it, false)))
    }

    /// Whether this is the last answer once more, to the letter.
    pub(super) fn is_unchanged(&self, answer: &[(Key, Endpoint)], origin: Option<&String>) -> bool {
        let listed = self.listed.iter().map(|it| (&it.key, &it.endpoint));
        !self.empty
            && !answer.is_empty()
            && self.origin.as_ref() == origin
            && listed.eq(answer.iter().map(|(key, endpoint)| (key, endpoint)))
    }
}

#[cfg(test)]
mod tests;
