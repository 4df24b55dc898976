//! Whether calls on other endpoints pass a slow one by, under each policy.

use std::time::Duration;

use crate::support::server::EchoServer;

use super::policies::{Pair, Policies, Score, finish};
use super::rig::{Loads, Reports};
use super::served::NAMES;
use super::timings::{Span, Timings, percentile};

/// What became of calls beside a slow server.
pub struct Passing {
    reports: Vec<Reports>,
    timings: Vec<Timings>,
    before: Span,
    meanwhile: Span,
    /// The calls of each policy that came to the slow server meanwhile.
    pub slow: Vec<u64>,
    /// All that were made meanwhile.
    pub all: Vec<u64>,
    /// Calls that left it unprocessed, when a connection to it was lost.
    moved: Vec<usize>,
}

impl Passing {
    /// Runs the load, with the first server slow from one third of the time to two thirds.
    pub async fn run(policies: &Policies<EchoServer>, slow: impl Fn(), heal: impl Fn()) -> Self {
        let timings: Vec<_> = policies.pairs.iter().map(|_| Timings::default()).collect();
        let loads = policies.load({
            let timings = timings.clone();
            move |nth, channel, id| timings[nth].clone().call(channel, id)
        });
        let pairs = || policies.pairs.iter();
        let on_slow = || pairs().map(|it| policies.handled(it, &[0]).len() as u64);
        let sent = || loads.iter().map(Loads::sent);
        let since = |then: Vec<u64>, now: Vec<u64>| -> Vec<u64> {
            then.iter().zip(now).map(|(then, now)| now - then).collect()
        };
        let resends = |it: &Pair| it.single.channel.stats().resends as usize;
        Span::until(&loads[0], 1, 12).await;
        let before = Span::until(&loads[0], 1, 3).await;
        let (first_slow, first): (Vec<_>, Vec<_>) = (on_slow().collect(), sent().collect());
        slow();
        let meanwhile = Span::until(&loads[0], 2, 3).await;
        heal();
        let slow = since(first_slow, on_slow().collect());
        let all = since(first, sent().collect());
        let reports = finish(loads).await;
        Self {
            reports,
            timings,
            before,
            meanwhile,
            slow,
            all,
            moved: pairs().map(resends).collect(),
        }
    }

    /// How long the slow server's calls took, as far as they were answered, the shortest first.
    pub fn on_slow(&self, nth: usize) -> Vec<Duration> {
        self.timings[nth].sorted(&NAMES[..1], self.meanwhile)
    }

    fn on_others(&self, nth: usize, span: Span) -> Vec<Duration> {
        let mut times = self.timings[nth].sorted(&NAMES[1..], span);
        // These have waited before they came there.
        times.truncate(times.len().saturating_sub(self.moved[nth]).max(1));
        times
    }

    pub fn scores(&self, more: impl Fn(usize) -> Vec<(&'static str, u64)>) -> Vec<Score> {
        let score = |(nth, reports): (usize, &Reports)| {
            let p99 = |sorted: &[Duration]| match sorted {
                [] => 0,
                sorted => percentile(sorted, 99).as_micros() as u64,
            };
            let mut figures = vec![
                ("p99_before_us", p99(&self.on_others(nth, self.before))),
                ("p99_others_us", p99(&self.on_others(nth, self.meanwhile))),
                ("p99_slow_us", p99(&self.on_slow(nth))),
                ("to_slow", self.slow[nth]),
                ("made_meanwhile", self.all[nth]),
                ("moved", self.moved[nth] as u64),
            ];
            figures.extend(more(nth));
            Score {
                reports: reports.clone(),
                recovery: None,
                figures,
            }
        };
        self.reports.iter().enumerate().map(score).collect()
    }

    /// Panics if calls on the others had to wait for those on the slow one.
    pub fn others_pass_by(&self, nth: usize) {
        let mut overtaken = self.timings[nth].overtaken(NAMES[0], self.meanwhile);
        overtaken.sort_unstable();
        // The middle one: a slow call may be short in a queue that has just emptied.
        let Some(middle) = overtaken.get(overtaken.len() / 2) else {
            return;
        };
        assert!(*middle >= 2, "{nth}: {overtaken:?}");
    }
}
