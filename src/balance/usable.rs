//! The endpoints that may be picked at all.

use super::{Candidate, Pick, PickRequest, Picker};

/// What each candidate is to get, as whole numbers: its weight, of which it gets its share. If all are drained, they all
/// weigh 1.
pub(super) fn weights(candidates: &[Candidate]) -> Vec<u32> {
    let drained = candidates.iter().all(|candidate| candidate.weight() == 0);
    parts(
        candidates,
        |candidate| {
            if drained { 1 } else { candidate.weight() }
        },
    )
}

/// The same where weights are ignored, except that 0 means drained.
pub(super) fn shares(candidates: &[Candidate]) -> Vec<u32> {
    let drained = candidates.iter().all(|candidate| candidate.weight() == 0);
    parts(candidates, |candidate| {
        u32::from(drained || candidate.weight() > 0)
    })
}

/// What a weight of 1 becomes where shares are less than whole.
const WHOLE: u32 = 1_000;

fn parts(candidates: &[Candidate], weight: impl Fn(&Candidate) -> u32) -> Vec<u32> {
    let whole = candidates.iter().all(|candidate| candidate.share() >= 1.0);
    let most = candidates.iter().map(&weight).max().unwrap_or_default();
    let scale = match most.checked_mul(WHOLE) {
        Some(_) if !whole => WHOLE,
        // Such weights are fine enough.
        _ => 1,
    };
    let part = |candidate: &Candidate| match weight(candidate) {
        0 => 0,
        weight => part_of(weight * scale, candidate.share()),
    };
    candidates.iter().map(part).collect()
}

/// At least 1: a share may be small, and is not none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share is between 0 and 1"
)]
fn part_of(weight: u32, share: f64) -> u32 {
    ((f64::from(weight) * share) as u32).max(1)
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
    fn a_share_is_a_part_of_the_weight() {
        let [one, three, none] = [1, 3, 0].map(|weight| Candidate::new(0, weight));
        let few = [one.clone().with_share(0.1), three, none];
        assert_eq!(weights(&few), [100, 3_000, 0]);
        assert_eq!(shares(&few), [100, 1_000, 0]);
        let great = [
            Candidate::new(0, u32::MAX).with_share(0.5),
            one.with_share(0.1),
        ];
        assert_eq!(weights(&great), [u32::MAX / 2, 1]);
        let drained = [few[2].clone().with_share(0.5), few[2].clone()];
        assert_eq!(weights(&drained), [500, 1_000]);
        assert_eq!(shares(&drained), [500, 1_000]);
    }

    #[test]
    fn drained_ones_are_left_out() {
        assert_eq!(indexes(&[3, 1]), Some(vec![0, 1]));
        assert_eq!(indexes(&[0, 3, 0, 1]), Some(vec![1, 3]));
        assert_eq!(indexes(&[0, 0]), None);
        assert_eq!(indexes(&[]), None);
    }
}
