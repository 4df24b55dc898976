//! Follows a channel and its calls, tells what happens, and keeps the screen up to date.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use trunkline::{Channel, EndpointStatus, State};

use crate::load::Counts;
use crate::screen::Screen;
use crate::table;

const FRAME: Duration = Duration::from_millis(100);
/// Shares are shown over the last second; without a terminal there is one line for each.
const FRAMES_PER_SECOND: usize = 10;

pub(crate) struct Show {
    channel: Channel,
    counts: watch::Receiver<Counts>,
    endpoints: Vec<Followed>,
    /// The counts of the last second, the oldest first.
    recent: VecDeque<Counts>,
    screen: Screen,
    began: Instant,
    frames: Interval,
    shown: usize,
}

/// An endpoint as it was seen last.
pub(crate) struct Followed {
    pub(crate) status: EndpointStatus,
}

impl Show {
    pub(crate) fn new(channel: &Channel, counts: watch::Receiver<Counts>) -> Self {
        let endpoints = channel.status().endpoints.into_iter();
        let mut frames = interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            channel: channel.clone(),
            counts,
            endpoints: endpoints.map(|status| Followed { status }).collect(),
            recent: VecDeque::new(),
            screen: Screen::new(),
            began: Instant::now(),
            frames,
            shown: 0,
        }
    }

    /// Tells something, with the time.
    pub(crate) fn say(&mut self, text: impl Display) -> io::Result<()> {
        let seconds = self.began.elapsed().as_secs_f64();
        self.screen.say(&format!("{seconds:4.1} s  {text}"))
    }

    /// Goes on showing until `work` is done.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> io::Result<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => {
                    self.look()?;
                    return Ok(done);
                }
                _ = self.frames.tick() => self.frame()?,
            }
        }
    }

    /// Shows what became of `all` calls, and who served those of the `quiet` phase.
    pub(crate) fn finish(&mut self, all: &Counts, quiet: &Counts) -> io::Result<()> {
        // The live table has done its work.
        self.screen.draw(Vec::new())?;
        let shares = table::shares(&self.endpoints, quiet);
        let totals = table::totals(all, self.channel.stats());
        let mut lines = shares.iter().chain(&totals);
        lines.try_for_each(|line| self.screen.say(line))
    }

    fn frame(&mut self) -> io::Result<()> {
        self.look()?;
        let counts = self.counts.borrow().clone();
        if self.recent.len() > FRAMES_PER_SECOND {
            self.recent.pop_front();
        }
        self.recent.push_back(counts.clone());
        let recent = counts.since(&self.recent[0]);
        let stats = self.channel.stats();
        if self.screen.is_live() {
            let table = table::live(&self.endpoints, &recent, &counts, stats);
            self.screen.draw(table)?;
        } else if self.shown > 0 && self.shown.is_multiple_of(FRAMES_PER_SECOND) {
            self.say(table::line(&self.endpoints, &recent, &counts, stats))?;
        }
        self.shown += 1;
        Ok(())
    }

    /// Looks at the endpoints, and tells what has changed.
    fn look(&mut self) -> io::Result<()> {
        let now = self.channel.status().endpoints;
        let news: Vec<String> = self
            .endpoints
            .iter_mut()
            .zip(now)
            .filter_map(|(endpoint, status)| endpoint.update(status))
            .collect();
        news.iter().try_for_each(|text| self.say(text))
    }
}

impl Followed {
    /// Connections made after the first one.
    pub(crate) fn reconnects(&self) -> u64 {
        self.status.connection_attempts_succeeded.saturating_sub(1)
    }

    pub(crate) fn name(&self) -> &str {
        let name = self.status.metadata.get("name");
        name.unwrap_or(&self.status.address)
    }

    /// What there is to tell when its state has changed.
    fn update(&mut self, status: EndpointStatus) -> Option<String> {
        let before = std::mem::replace(&mut self.status, status);
        let now = &self.status;
        if now.state == before.state {
            return None;
        }
        let text = match (now.state, &now.last_error) {
            (State::TransientFailure, Some(error)) => format!("{} ({error})", now.state),
            (state, _) => state.to_string(),
        };
        Some(format!("{}: {text}", self.name()))
    }
}
