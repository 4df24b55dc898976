//! A table that turns one random number into a weighted choice.

use super::randomness::split;

/// Vose's alias table ("A linear algorithm for generating random numbers with a given
/// distribution", 1991).
///
/// The endpoints' weights are poured into as many cells of equal size, so that each cell holds its
/// own endpoint and at most one other. A draw chooses the cell, and what is left of the draw one of
/// the two.
#[derive(Debug)]
pub(super) struct Alias {
    cells: Box<[Cell]>,
}

/// Eight bytes, so that the table of 10,000 endpoints stays close to the core.
#[derive(Clone, Copy, Debug)]
struct Cell {
    /// How much of the cell is its own endpoint's, in 2⁻³²; a full cell has itself as the other.
    own: u32,
    other: u32,
}

impl Alias {
    /// From the weight of each endpoint; `None` if all are 0.
    ///
    /// The arithmetic is exact but for the last step, which rounds the split of a cell down to
    /// 2⁻³². Of a weight `w` among `n` that sum up to `W` the own cell takes `n·w / W`, more than
    /// 2⁻³² if `w` is not 0: no endpoint is lost.
    pub(super) fn new(weights: &[u32]) -> Option<Self> {
        let size: u64 = weights.iter().copied().map(u64::from).sum();
        if size == 0 {
            return None;
        }
        // In units in which a cell's size is the sum of the weights, so that nothing is divided.
        // Fits: n and w are 32 bits.
        let mut volumes: Vec<u64> = weights
            .iter()
            .map(|&weight| u64::from(weight) * weights.len() as u64)
            .collect();
        let mut cells: Box<[Cell]> = (0..=u32::MAX)
            .zip(weights)
            .map(|(itself, _)| Cell {
                own: 0,
                other: itself,
            })
            .collect();
        let (mut short, mut ample): (Vec<u32>, Vec<u32>) = (0..=u32::MAX)
            .zip(weights)
            .map(|(index, _)| index)
            .partition(|&index| volumes[index as usize] < size);
        while let (Some(small), Some(&large)) = (short.pop(), ample.last()) {
            let volume = volumes[small as usize];
            cells[small as usize] = Cell {
                own: ((u128::from(volume) << 32) / u128::from(size)) as u32,
                other: large,
            };
            volumes[large as usize] -= size - volume;
            if volumes[large as usize] < size {
                short.extend(ample.pop());
            }
        }
        // Whatever remains fills its cell exactly, and is its own other.
        Some(Self { cells })
    }

    /// The endpoint that a uniform number of 64 bits stands for.
    pub(super) fn look_up(&self, draw: u64) -> usize {
        let (index, fraction) = split(draw, self.cells.len());
        let cell = self.cells[index];
        if ((fraction >> 32) as u32) < cell.own {
            index
        } else {
            cell.other as usize
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Each endpoint's share of all draws, in 2⁻³² of a cell.
    fn volumes(alias: &Alias) -> Vec<u64> {
        let mut volumes = vec![0; alias.cells.len()];
        for (index, cell) in alias.cells.iter().enumerate() {
            volumes[index] += u64::from(cell.own);
            volumes[cell.other as usize] += (1 << 32) - u64::from(cell.own);
        }
        volumes
    }

    #[test]
    fn cells_are_eight_bytes() {
        assert_eq!(size_of::<Cell>(), 8);
    }

    #[test]
    fn nothing_to_pick_from() {
        assert!(Alias::new(&[]).is_none());
        assert!(Alias::new(&[0, 0]).is_none());
    }

    #[test]
    fn a_single_endpoint_and_equal_ones() {
        assert_eq!(volumes(&Alias::new(&[7]).unwrap()), [1 << 32]);
        assert_eq!(volumes(&Alias::new(&[u32::MAX; 3]).unwrap()), [1 << 32; 3]);
    }

    #[test]
    fn the_ends_of_the_range_of_draws() {
        let alias = Alias::new(&[1, 3]).unwrap();
        assert_eq!([0, (1 << 62) - 1].map(|draw| alias.look_up(draw)), [0, 0]);
        assert_eq!([1 << 62, u64::MAX].map(|draw| alias.look_up(draw)), [1, 1]);
    }

    #[test]
    fn ten_thousand_with_one_giant() {
        let mut weights = vec![1; 10_000];
        weights[4_711] = u32::MAX;
        assert!(
            volumes(&Alias::new(&weights).unwrap())
                .iter()
                .all(|&volume| volume > 0)
        );
    }

    proptest! {
        #[test]
        fn shares_are_exact(weights in prop::collection::vec(prop_oneof![0..=9_u32, 0..=u32::MAX], 1..200)) {
            let total: u64 = weights.iter().copied().map(u64::from).sum();
            prop_assume!(total > 0);
            let n = weights.len() as u64;
            for (volume, weight) in volumes(&Alias::new(&weights).unwrap()).into_iter().zip(&weights) {
                let exact = (u128::from(n * u64::from(*weight)) << 32) / u128::from(total);
                // One unit for each cell that was rounded.
                prop_assert!(u128::from(volume).abs_diff(exact) <= u128::from(n), "{volume} for {exact}");
                prop_assert_eq!(volume > 0, *weight > 0);
            }
        }
    }
}
