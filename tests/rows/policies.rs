//! Three servers, and two channels to them under each policy, all under load at the same time.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use trunkline::balance::ConsistentHash;
use trunkline::{Balance, Channel, Connector, Endpoint, Policy, State};

use crate::support::chaos::Chaos;
use crate::support::journal::duplicates;
use crate::support::leak::LeakCheck;
use crate::support::load::Load;
use crate::support::raw_serve::ServedPeer;
use crate::support::reaction::{Reaction, RequestInfo};
use crate::support::server::EchoServer;
use crate::support::wait::wait_until;

use super::budget::sum;
use super::panics::Panics;
use super::rig::{LIMIT, Loads, Reports, SINGLE_IDS, STREAMS, Side, idempotent, slots_are_free};
use super::served::{NAMES, Served, raw_server, server};

/// The policies under which rows are run, and whether they see how slow an endpoint is. One that is added here is tried
/// in each of those rows. All at once would be more than a small machine can serve in time, so those that wrap others,
/// or come down to others here, have runs of their own: `TRUNKLINE_ROW_POLICIES=others`.
fn policies() -> Vec<(Balance, bool)> {
    if std::env::var("TRUNKLINE_ROW_POLICIES").is_ok_and(|it| it == "others") {
        return vec![
            // Without reports, without keys, and in one tier.
            (Balance::load_weighted(), false),
            (Balance::custom(ConsistentHash::by_key()), false),
            (Balance::tiers(Balance::round_robin()), false),
            (Balance::tiers(Balance::least_request()), true),
        ];
    }
    vec![
        (Balance::default(), true),
        (Balance::round_robin(), false),
        (Balance::random(), false),
        (Balance::weighted(), false),
        (Balance::weighted_random(), false),
        (Balance::least_request(), true),
        (Balance::peak_ewma(), true),
    ]
}

/// Calls per second and channel. Together they have a little less than a rig's load.
const RATE: f64 = 40.0;

/// The ids of each policy begin so far apart.
const IDS: u64 = 1_000_000;

/// A row under load, under each policy. Dropping it leaves nothing; [`score`](Self::score) asserts so.
pub struct Policies<S> {
    pub servers: Vec<S>,
    pub pairs: Vec<Pair>,
    leaks: LeakCheck,
    panics: Panics,
}

/// The channels of one policy, as those of a rig.
pub struct Pair {
    pub policy: String,
    /// Whether it sees how slow an endpoint is.
    pub sees_load: bool,
    pub retrying: Side,
    pub single: Side,
    nth: usize,
}

/// What a row says of one policy.
pub struct Score {
    pub reports: Reports,
    pub recovery: Option<Duration>,
    pub figures: Vec<(&'static str, u64)>,
}

impl Policies<EchoServer> {
    /// Servers with this delay, and channels that are connected to all of them.
    pub async fn start(delay: Duration) -> Self {
        let leaks = LeakCheck::start().await;
        let servers = NAMES.map(|name| server(name, delay)).into();
        Self::connect(leaks, servers, |_, place| place.to_owned()).await
    }

    /// The same, with a proxy in front of the first server, one for each policy.
    pub async fn start_behind_proxies(delay: Duration, seed: u64) -> (Self, Vec<Chaos>) {
        let leaks = LeakCheck::start().await;
        let servers: Vec<_> = NAMES.map(|name| server(name, delay)).into();
        let first = &servers[0];
        let proxy = |_| Chaos::tcp(first.addr(), seed);
        let proxies: Vec<_> = policies().iter().map(proxy).collect();
        let behind = first.uri();
        let place = |nth: usize, place: &str| match place == behind {
            true => proxies[nth].uri(),
            false => place.to_owned(),
        };
        (Self::connect(leaks, servers, place).await, proxies)
    }

    /// For each id of this policy the number of times that these servers began to handle it.
    pub fn handled(&self, pair: &Pair, servers: &[usize]) -> BTreeMap<u64, u64> {
        let handled = |nth: &usize| self.servers[*nth].journal().handled();
        let mut all = sum(servers.iter().map(handled));
        all.retain(|id, _| pair.owns(*id));
        all
    }
}

impl Policies<ServedPeer> {
    /// Raw peers. `react` is told which of them has the request.
    pub async fn start_raw(
        react: impl Fn(usize, &RequestInfo) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let leaks = LeakCheck::start().await;
        let react = Arc::new(react);
        let peer = |nth| raw_server(nth, STREAMS, &react);
        let servers = (0..NAMES.len()).map(peer).collect();
        Self::connect(leaks, servers, |_, place| place.to_owned()).await
    }
}

impl<S: Served> Policies<S> {
    async fn connect(
        leaks: LeakCheck,
        servers: Vec<S>,
        place: impl Fn(usize, &str) -> String,
    ) -> Self {
        let mut pairs = Vec::new();
        for (nth, (balance, sees_load)) in policies().into_iter().enumerate() {
            // Those that follow weights want to be given some.
            let weight = |it: Endpoint| {
                if balance.needs_weights() {
                    it.weight(1)
                } else {
                    it
                }
            };
            let endpoint = |server: &S| weight(Endpoint::uri(place(nth, &server.place())));
            let connector = || Connector::endpoints(servers.iter().map(endpoint));
            let connector = || connector().balance(balance.clone());
            pairs.push(Pair {
                policy: balance.name().to_owned(),
                sees_load,
                retrying: Side::start(connector().retry(idempotent())).await,
                single: Side::start(connector()).await,
                nth,
            });
        }
        let channels = || pairs.iter().flat_map(Pair::channels);
        let ready = |channel: &Channel| {
            let endpoints = channel.status().endpoints;
            endpoints.iter().all(|it| it.state == State::Ready)
        };
        wait_until(LIMIT, || channels().all(ready)).await;
        Self {
            servers,
            pairs,
            leaks,
            panics: Panics::watch(),
        }
    }

    /// Begins to call through all channels, for as long as a row takes. `call` makes one for the policy of this number.
    pub fn load<F, Fut>(&self, call: F) -> Vec<Loads>
    where
        F: Fn(usize, Channel, u64) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let duration = super::duration();
        let start = |nth: usize, channel: &Channel, first_id| {
            let (channel, call) = (channel.clone(), call.clone());
            let load = Load::new(RATE).duration(duration).first_id(first_id);
            load.start(move |id| call(nth, channel.clone(), id))
        };
        let loads = self.pairs.iter().map(|pair| Loads {
            duration,
            retrying: start(pair.nth, &pair.retrying.channel, pair.first_id()),
            single: start(pair.nth, &pair.single.channel, SINGLE_IDS + pair.first_id()),
        });
        loads.collect()
    }

    /// Prints the row's line for each policy and asserts the zeros, as a rig does. Scores are in the order of the pairs.
    pub async fn score(self, row: &str, scores: &[Score]) {
        for channel in self.pairs.iter().flat_map(Pair::channels) {
            slots_are_free(channel, STREAMS).await;
        }
        let mut names = Vec::new();
        let mut twice = Vec::new();
        for pair in self.pairs {
            let handled = self.servers.iter().map(|server| {
                let mut handled = server.handled().split_off(&SINGLE_IDS);
                handled.retain(|id, _| pair.owns(*id));
                handled
            });
            twice.push(duplicates(handled));
            // One way to end a channel for each.
            pair.retrying.channel.close(Duration::from_secs(1)).await;
            names.push(pair.policy);
        }
        drop(self.servers);
        let leak = self.leaks.leaked().await;
        let panics = self.panics.count();
        for (nth, score) in scores.iter().enumerate() {
            let Reports { retrying, single } = &score.reports;
            let mut figures = vec![
                ("failed_idempotent", retrying.failed.len() as u64),
                ("calls", retrying.sent + single.sent),
                ("panics", panics),
            ];
            figures.extend(&score.figures);
            let report = retrying.clone().joined(single.clone());
            let line = format!("{row} {}", names[nth]);
            report.score_with(&line, &twice[nth], leak, score.recovery, &figures);
        }
        assert_eq!(panics, 0, "{row}: panics");
    }
}

impl Pair {
    pub fn channels(&self) -> [&Channel; 2] {
        [&self.retrying.channel, &self.single.channel]
    }

    fn first_id(&self) -> u64 {
        self.nth as u64 * IDS + 1
    }

    fn owns(&self, id: u64) -> bool {
        policy_of(id) == self.nth
    }
}

/// The number of the policy under which a call was made.
pub fn policy_of(id: u64) -> usize {
    (id % SINGLE_IDS / IDS) as usize
}

/// Waits for all calls of all policies.
pub async fn finish(loads: Vec<Loads>) -> Vec<Reports> {
    let mut reports = Vec::new();
    for load in loads {
        reports.push(load.finish().await);
    }
    reports
}
