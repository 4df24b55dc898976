//! When an endpoint loses its share of the calls, told from counts alone.

use std::time::Duration;

/// As many calls in a row, of which next to none came to an endpoint, show that it has lost its share: a third of them, by
/// chance never.
const LOST_CALLS: u64 = 40;
pub const LOST_SHARE: u64 = 2;

/// What the two channels of each policy had sent, and what a server at fault had seen of it.
pub type Counts = Vec<[(u64, u64); 2]>;

/// When each channel stopped giving calls to an endpoint.
#[derive(Default)]
pub struct Shares {
    samples: Vec<(Duration, Counts)>,
    /// For each policy and channel the sample at which it had lost its share.
    lost: Vec<[Option<usize>; 2]>,
}

impl Shares {
    /// Notes how things are. Whether it has lost its share everywhere.
    pub fn look(&mut self, at: Duration, now: Counts) -> bool {
        self.lost.resize(now.len(), [None; 2]);
        for (nth, lost) in self.lost.iter_mut().enumerate() {
            for (side, lost) in lost.iter_mut().enumerate() {
                let now = now[nth][side];
                let is_lost = |(_, then): &(Duration, Counts)| {
                    let then = then[nth][side];
                    now.0 - then.0 >= LOST_CALLS && now.1 - then.1 <= LOST_SHARE
                };
                *lost = lost.or_else(|| self.samples.iter().position(is_lost));
            }
        }
        self.samples.push((at, now));
        self.lost.iter().flatten().all(Option::is_some)
    }

    /// When both channels of a policy had.
    pub fn lost_at(&self, nth: usize) -> Duration {
        let at = |lost: &Option<usize>| self.samples[lost.unwrap()].0;
        self.lost[nth].iter().map(at).max().unwrap()
    }

    /// What a channel sent since then, and what of it came to the endpoint.
    pub fn since_lost(&self, nth: usize, side: usize, end: &Counts) -> (u64, u64) {
        let then = self.samples[self.lost[nth][side].unwrap()].1[nth][side];
        let end = end[nth][side];
        (end.0 - then.0, end.1 - then.1)
    }
}
