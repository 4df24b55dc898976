//! How often an endpoint comes and goes.

use trunkline::{EndpointStatus, Health, State};

use super::rig::Rig;
use super::served::Served;
use super::side::Side;

/// Changes of whether an endpoint gets its share of the calls, for both channels of a rig. A connection that is lost and
/// replaced is none: only what is said of the endpoint counts.
#[derive(Clone, Debug, Default)]
pub struct Flips {
    before: [Option<bool>; 2],
    counts: [u64; 2],
    /// What the status said at the changes.
    log: Vec<String>,
}

impl Flips {
    /// Looks whether it does now; often enough to miss nothing.
    pub fn look<S: Served>(&mut self, rig: &Rig<S>, nth: usize) {
        for (side, status) in statuses(rig, nth).into_iter().enumerate() {
            let health = status.health;
            if matches!(health.health, Health::Disconnected | Health::Unknown) {
                continue;
            }
            let is_in = is_in(health.health);
            if self.before[side].is_some_and(|it| it != is_in) {
                self.counts[side] += 1;
                self.log.push(format!("{side}: {health:?}"));
            }
            self.before[side] = Some(is_in);
        }
    }

    pub fn counts(&self) -> [u64; 2] {
        self.counts
    }

    /// Panics if it did more than leave and come back once a minute.
    pub fn are_few(&self) {
        let minutes = super::duration().as_secs().div_ceil(60);
        let most = 2 * minutes;
        assert!(
            self.counts.iter().all(|it| *it <= most),
            "{:?}: {:#?}",
            self.counts,
            self.log
        );
    }
}

/// Whether it gets its share of the calls.
pub fn gets_calls<S: Served>(rig: &Rig<S>, nth: usize) -> [bool; 2] {
    statuses(rig, nth).map(|it| is_in(it.health.health) && it.state == State::Ready)
}

fn is_in(health: Health) -> bool {
    matches!(
        health,
        Health::Healthy | Health::Suspect | Health::Tolerated
    )
}

/// An endpoint as both channels see it.
pub fn statuses<S: Served>(rig: &Rig<S>, nth: usize) -> [EndpointStatus; 2] {
    let status = |side: &Side| side.channel.status().endpoints.remove(nth);
    [&rig.retrying, &rig.single].map(status)
}
