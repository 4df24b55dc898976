//! The endpoints that may be picked at all.

use super::{Candidate, Pick, PickRequest, Picker};

/// The weight of each candidate; if all are drained, they all weigh 1.
pub(super) fn weights(candidates: &[Candidate]) -> Vec<u32> {
    let drained = candidates.iter().all(|candidate| candidate.weight() == 0);
    candidates
        .iter()
        .map(|candidate| if drained { 1 } else { candidate.weight() })
        .collect()
}

/// The endpoints with a weight above 0, by position.
#[derive(Debug)]
pub(super) struct Usable {
    len: usize,
    /// `None`: all of them, position and index are the same. That saves the usual case a memory
    /// access per pick.
    indexes: Option<Box<[u32]>>,
}

impl Usable {
    /// `None` if there are none.
    pub(super) fn of(weights: &[u32]) -> Option<Self> {
        let indexes: Box<[u32]> = (0..=u32::MAX)
            .zip(weights)
            .filter(|(_, weight)| **weight > 0)
            .map(|(index, _)| index)
            .collect();
        let len = indexes.len();
        (len > 0).then(|| Self {
            len,
            indexes: (len < weights.len()).then_some(indexes),
        })
    }

    /// How many there are; at least 1.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The endpoint's index at `position`, which is below [`len`](Self::len).
    pub(super) fn index(&self, position: usize) -> usize {
        match &self.indexes {
            None => position,
            Some(indexes) => indexes[position] as usize,
        }
    }
}

/// The picker of an empty set.
#[derive(Debug)]
pub(super) struct Nobody;

impl Picker for Nobody {
    fn pick(&self, _: &PickRequest<'_>) -> Pick {
        Pick::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::super::distribution::candidates;
    use super::*;

    fn indexes(weights: &[u32]) -> Option<Vec<usize>> {
        let usable = Usable::of(weights)?;
        Some(
            (0..usable.len())
                .map(|position| usable.index(position))
                .collect(),
        )
    }

    #[test]
    fn weights_are_kept_unless_all_are_zero() {
        assert_eq!(weights(&candidates(&[3, 0, 1])), [3, 0, 1]);
        assert_eq!(weights(&candidates(&[0, 0])), [1, 1]);
        assert!(weights(&[]).is_empty());
    }

    #[test]
    fn drained_ones_are_left_out() {
        assert_eq!(indexes(&[3, 1]), Some(vec![0, 1]));
        assert_eq!(indexes(&[0, 3, 0, 1]), Some(vec![1, 3]));
        assert_eq!(indexes(&[0, 0]), None);
        assert_eq!(indexes(&[]), None);
    }
}
