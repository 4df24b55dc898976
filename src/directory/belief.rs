//! Which endpoints are used after an answer of discovery: those that it lists, and those that it is not believed to
//! lack. Pure: time comes in as an argument.

use std::collections::HashSet;

use crate::discover::{Empty, Outage};
use crate::endpoint::Key;
use crate::time::Instant;

/// What is believed, under the rules of an [`Outage`].
///
/// An endpoint is *active* if its weight is not 0. Only active ones can be missed: one with weight 0 gets no calls
/// anyway, and an active one that is listed with weight 0 now was drained by somebody who meant it.
#[derive(Debug)]
pub(super) struct Belief {
    rules: Outage,
    /// The last answer.
    listed: Vec<Entry>,
    /// What it is not believed to lack.
    held: Vec<Entry>,
}

/// An endpoint that is used.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    /// When it leaves.
    pub(super) until: Option<Instant>,
    /// It was missing from an answer without any active endpoint, so it stays whether or not it is connected.
    regardless: bool,
}

/// What an answer meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Believed,
    /// There was nothing active in it, and the last endpoints stay.
    Empty,
    /// So many of so many endpoints were gone at once that those which still work stay.
    Doubted {
        gone: usize,
        of: usize,
    },
}

impl Verdict {
    /// What is wrong with the answer, in words. `note` is what its source says of it.
    pub(super) fn trouble(self, rules: &Outage, note: Option<&str>) -> Option<String> {
        match self {
            Self::Believed => None,
            Self::Empty => {
                // Likelier a fault of the source than the end of the service.
                let why = note.map_or(String::new(), |note| format!(" ({note})"));
                let until = match rules.empty {
                    Empty::Drain => format!(" for {:?} and then leave one by one", rules.grace),
                    Empty::Keep | Empty::Fail => String::new(),
                };
                Some(format!(
                    "the answer had no usable endpoint{why}; the last ones stay in use{until}"
                ))
            }
            Self::Doubted { gone, of } => Some(format!(
                "{gone} of {of} endpoints were gone at once; those that still work stay in use for {:?}",
                rules.grace
            )),
        }
    }
}

impl Belief {
    /// Rules out of bounds, which nobody has checked, end at the bounds.
    pub(super) fn new(rules: Outage) -> Self {
        Self {
            rules: rules.bounded(),
            listed: Vec::new(),
            held: Vec::new(),
        }
    }

    pub(super) fn rules(&self) -> &Outage {
        &self.rules
    }

    /// Takes an answer in. `certain` says that it is to be believed; `is_ready`, whether an endpoint has a connection.
    pub(super) fn learn(
        &mut self,
        now: Instant,
        answer: Vec<Key>,
        certain: bool,
        is_ready: impl Fn(&Key) -> bool,
    ) -> Verdict {
        let before = std::mem::replace(&mut self.listed, answer.into_iter().map(entry).collect());
        let mut listed = HashSet::new();
        if !before.is_empty() || !self.held.is_empty() {
            listed.extend(self.listed.iter().map(|it| &it.key));
        }
        let active = before.into_iter().filter(Entry::is_active);
        // What was missing from an answer without any is judged now, with those that the last answer listed.
        let held = std::mem::take(&mut self.held).into_iter();
        let (missed, mut held): (Vec<_>, Vec<_>) = held.partition(|it| it.regardless);
        held.retain(|it| !listed.contains(&it.key));
        let mut gone: Vec<_> = active.chain(missed).collect();
        let of = gone.len();
        gone.retain(|it| !listed.contains(&it.key));
        if !self.listed.iter().any(Entry::is_active) {
            return self.learn_nothing(now, gone, held, certain);
        }
        if certain {
            return Verdict::Believed;
        }
        self.held = held;
        let count = gone.len();
        let doubted = count as f64 > of as f64 * self.rules.guard;
        if !doubted {
            // A registry that lost its state hears of everybody again one by one: the last ones are as good as the first.
            gone.retain(|it| it.regardless && self.rules.guard < 1.0);
        }
        gone.retain(|it| is_ready(&it.key));
        self.set_to_leave(now, &mut gone);
        for mut entry in gone {
            entry.regardless = false;
            self.held.push(entry);
        }
        if doubted {
            Verdict::Doubted { gone: count, of }
        } else {
            Verdict::Believed
        }
    }

    /// The answer had no active endpoint: `gone` is missing from it, and `held` was before.
    fn learn_nothing(
        &mut self,
        now: Instant,
        mut gone: Vec<Entry>,
        mut held: Vec<Entry>,
        certain: bool,
    ) -> Verdict {
        if certain || self.rules.empty == Empty::Fail {
            return Verdict::Believed;
        }
        if self.rules.empty == Empty::Drain {
            self.set_to_leave(now, &mut gone);
        }
        gone.append(&mut held);
        for entry in &mut gone {
            entry.regardless = true;
            if self.rules.empty == Empty::Keep {
                entry.until = None;
            }
        }
        self.held = gone;
        if self.held.is_empty() {
            Verdict::Believed
        } else {
            Verdict::Empty
        }
    }

    /// One by one, at even distances after the grace. Those that have a time already keep it.
    fn set_to_leave(&self, now: Instant, entries: &mut [Entry]) {
        let count = entries.len() as f64;
        for (nth, entry) in (1..).zip(entries) {
            let part = self.rules.drain.mul_f64(f64::from(nth) / count);
            entry.until.get_or_insert(now + self.rules.grace + part);
        }
    }

    /// Lets go of what has stayed for long enough, and of what is held only while it is connected and is so no more.
    /// Says whether there was anything.
    pub(super) fn let_go(&mut self, now: Instant, is_ready: impl Fn(&Key) -> bool) -> bool {
        let before = self.held.len();
        self.held.retain(|it| {
            it.until.is_none_or(|until| until > now) && (it.regardless || is_ready(&it.key))
        });
        self.held.len() < before
    }

    /// When the next one leaves.
    pub(super) fn next(&self) -> Option<Instant> {
        self.held.iter().filter_map(|it| it.until).min()
    }

    /// Whether anything is used that the last answer does not list.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// All endpoints to use, in discovery's order, and whether its last answer lists them.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Entry, bool)> {
        let listed = self.listed.iter().map(|it| (it, true));
        listed.chain(self.held.iter().map(|it| (it, false)))
    }

    /// How many those are.
    pub(super) fn len(&self) -> usize {
        self.listed.len() + self.held.len()
    }

    /// Whether this is the last answer once more, to the letter, and had endpoints.
    pub(super) fn is_unchanged(&self, answer: &[Key]) -> bool {
        let listed = self.listed.iter().map(|it| it.key.endpoint());
        self.listed.iter().any(Entry::is_active) && listed.eq(answer.iter().map(Key::endpoint))
    }
}

impl Entry {
    pub(super) fn is_active(&self) -> bool {
        self.key.endpoint().weight_or_default() > 0
    }
}

fn entry(key: Key) -> Entry {
    Entry {
        key,
        until: None,
        regardless: false,
    }
}

#[cfg(test)]
mod tests;
