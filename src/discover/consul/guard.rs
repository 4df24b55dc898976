//! When an answer is too bad to be believed at once.

use std::collections::HashSet;

use super::instance::Instance;

/// The share of the instances that may go at once, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Guard(u16);

impl Guard {
    /// `share` is from 0 to 1.
    pub(super) fn new(share: f64) -> Self {
        // Whatever was not checked before ends at a bound.
        Self((share * 1000.0) as u16)
    }

    /// Whether a larger share of what was usable is so no more.
    pub(super) fn is_suspicious(self, last: &[Instance], new: &[Instance]) -> bool {
        let key = |it: &Instance| (it.node.clone(), it.id.clone());
        let usable = |it: &&Instance| it.is_usable();
        let left: HashSet<_> = new.iter().filter(usable).map(key).collect();
        let (mut all, mut gone) = (0, 0);
        for instance in last.iter().filter(usable) {
            all += 1;
            gone += usize::from(!left.contains(&key(instance)));
        }
        gone * 1000 > all * usize::from(self.0)
    }
}
