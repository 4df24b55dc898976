//! Three servers, two channels over them, and the load on both.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tonic::Status;
use trunkline::{
    Backoff, Balance, Channel, Connector, Endpoint, Error, HealthCheck, Keepalive, PoolOptions,
    Retry, Stage, State,
};

use crate::support::chaos::Chaos;
use crate::support::health::{HealthMode, HealthScript};
use crate::support::journal::duplicates;
use crate::support::leak::LeakCheck;
use crate::support::load::{Load, RunningLoad};
use crate::support::raw_serve::ServedPeer;
use crate::support::reaction::{Reaction, RequestInfo};
use crate::support::report::{Failure, Report};
use crate::support::server::EchoServer;
use crate::support::wait::{holds_within, wait_until};

use super::calls::call;
use super::panics::Panics;
use super::served::{NAMES, Served, raw_server, server_aging};
pub use super::served::{endpoints, server};
pub use super::side::Side;
use super::source::{Answers, TestSource};

/// How long a condition may take that no row limits.
pub const LIMIT: Duration = Duration::from_secs(5);

/// The share of each channel in the load of 500 calls/s.
const RATE: f64 = 250.0;

/// Ids of the channel that does not retry begin here.
pub const SINGLE_IDS: u64 = 1_000_000_000;

/// What the channels of a rig with health checks ask for: the one that retries, which watches, and the other.
pub const WATCHES: &str = "watches";
pub const ASKS: &str = "asks";

/// The servers' stream limit.
pub const STREAMS: usize = 200;

/// The settings under which the rows are run.
pub fn settings(connector: Connector) -> Connector {
    connector
        .keepalive(keepalive())
        .pool(pool())
        .timeout(Duration::from_secs(1))
}

/// A dead connection is found within the sum of the two.
pub fn keepalive() -> Keepalive {
    Keepalive::every(Duration::from_millis(500))
        .timeout(Duration::from_millis(500))
        .allow_frequent()
}

/// The pool's part of the settings.
pub fn pool() -> PoolOptions {
    PoolOptions::new()
        .connect_timeout(Duration::from_millis(500))
        .unix_connect_timeout(Duration::from_millis(500))
        .dial_backoff(Backoff::dialling().max(Duration::from_secs(2)))
}

/// The most dials that one endpoint can see within `span` when every one fails: the first at once, the others after
/// the shortest delays of the settings' backoff.
pub fn most_dials(span: Duration) -> usize {
    let backoff = Backoff::dialling().max(Duration::from_secs(2));
    let mut time = Duration::ZERO;
    let mut dials = 1;
    while time <= span {
        time += backoff.delay(dials, 0.0);
        dials += 1;
    }
    dials as usize
}

/// The default policy, for calls that are marked idempotent.
pub fn idempotent() -> Retry {
    Retry::exponential().idempotent(true)
}

/// The connectors of a rig's two channels: its calls marked idempotent, and not.
fn both(connector: impl Fn() -> Connector) -> [Connector; 2] {
    [connector().retry(idempotent()), connector()]
}

/// A row under load: servers, channels, and the watch for what must not be left behind.
///
/// Both have the default retry policy. The calls of one are marked idempotent, those of the other are not: of these
/// none may be handled twice.
pub struct Rig<S = EchoServer> {
    pub servers: Vec<S>,
    pub retrying: Side,
    pub single: Side,
    /// The stream limit of each.
    streams: usize,
    /// Streams to each that are nobody's calls: a health check's.
    watching: usize,
    leaks: LeakCheck,
    panics: Panics,
}

/// The endpoints of both channels.
pub struct Endpoints([Answers; 2]);

/// What a rig has before its channels.
pub(super) struct Parts<S> {
    pub(super) servers: Vec<S>,
    streams: usize,
    leaks: LeakCheck,
    panics: Panics,
}

/// The load on both channels.
pub struct Loads {
    pub(super) duration: Duration,
    pub retrying: RunningLoad,
    pub single: RunningLoad,
}

/// What became of it.
#[derive(Clone)]
pub struct Reports {
    pub retrying: Report,
    pub single: Report,
}

impl Rig {
    /// Three servers with this delay, and channels that are connected to all of them.
    pub async fn start(delay: Duration) -> Self {
        Self::start_aging(delay, None).await
    }

    /// The same, with an age at which the servers retire connections.
    pub async fn start_aging(delay: Duration, age: Option<Duration>) -> Self {
        let start = || NAMES.map(|name| server_aging(name, delay, age)).into();
        Parts::start(STREAMS, start).await.connect(|it| it).await
    }

    /// The same, with endpoints that can be changed. They are the three servers at first.
    pub async fn start_discovered(delay: Duration) -> (Self, Endpoints) {
        let start = || NAMES.map(|name| server(name, delay)).into();
        let parts = Parts::start(STREAMS, start).await;
        let (retrying, source) = TestSource::new();
        let first = Connector::discover(source).retry(idempotent());
        let (single, source) = TestSource::new();
        let second = Connector::discover(source);
        let set = Endpoints([retrying, single]);
        set.become_these(&endpoints(&parts.servers)).await;
        (parts.rig([first, second], |it| it).await, set)
    }

    /// The same, with a proxy in front of each server.
    pub async fn start_behind_proxies(delay: Duration, seed: u64) -> (Self, Vec<Chaos>) {
        let start = || NAMES.map(|name| server(name, delay)).into();
        let parts = Parts::start(STREAMS, start).await;
        let proxy = |server: &EchoServer| Chaos::tcp(server.addr(), seed);
        let proxies: Vec<_> = parts.servers.iter().map(proxy).collect();
        let channels =
            both(|| Connector::endpoints(proxies.iter().map(|it| Endpoint::uri(it.uri()))));
        (parts.rig(channels, |it| it).await, proxies)
    }

    /// The same, with health services that the channels ask: the one that retries watches, the other asks each time. They ask
    /// for the health of a service that has their name.
    pub async fn start_checked(
        modes: [HealthMode; 3],
        check: impl Fn(HealthCheck) -> HealthCheck,
    ) -> (Self, [HealthScript; 3]) {
        let scripts = modes.map(HealthScript::new);
        let start = |nth: usize| {
            let builder = EchoServer::builder(NAMES[nth]).max_concurrent_streams(STREAMS as u32);
            builder.health(scripts[nth].clone()).tcp()
        };
        let parts = Parts::start(STREAMS, || (0..3).map(start).collect()).await;
        let [retrying, single] = both(|| Connector::endpoints(endpoints(&parts.servers)));
        let channels = [
            retrying.health_check(check(HealthCheck::grpc()).service(WATCHES)),
            single.health_check(check(HealthCheck::grpc_check()).service(ASKS)),
        ];
        let mut rig = parts.rig(channels, |it| it).await;
        rig.watching = 1;
        (rig, scripts)
    }

    /// Three servers, and channels that find the servers for themselves. `publish` is given the servers, once the watch for
    /// leaks has begun, and gives what makes a channel's connector, and what must live as long as the channels do.
    pub async fn start_published<C, T>(
        delay: Duration,
        publish: impl AsyncFnOnce(&[EchoServer]) -> (C, T),
    ) -> (Self, T)
    where
        C: Fn() -> Connector,
    {
        let (rig, publisher) = Self::start_lazy(delay, publish).await;
        let ready = |side: &Side| side.channel.status().state == State::Ready;
        wait_until(LIMIT, || ready(&rig.retrying) && ready(&rig.single)).await;
        rig.all_ready().await;
        (rig, publisher)
    }

    /// The same without a wait for the channels, which may know of no server yet.
    pub async fn start_lazy<C, T>(
        delay: Duration,
        publish: impl AsyncFnOnce(&[EchoServer]) -> (C, T),
    ) -> (Self, T)
    where
        C: Fn() -> Connector,
    {
        let start = || NAMES.map(|name| server(name, delay)).into();
        let parts = Parts::start(STREAMS, start).await;
        let (connector, publisher) = publish(&parts.servers).await;
        (parts.lazy(both(connector)), publisher)
    }
}

impl Rig<ServedPeer> {
    /// Three raw peers with this stream limit. `react` is told which of them has the request.
    pub async fn start_raw(
        streams: usize,
        react: impl Fn(usize, &RequestInfo) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        Self::start_raw_with(streams, react, |connector| connector).await
    }

    /// The same, with other settings of the channels.
    pub async fn start_raw_with(
        streams: usize,
        react: impl Fn(usize, &RequestInfo) -> Reaction + Send + Sync + 'static,
        settings: impl Fn(Connector) -> Connector,
    ) -> Self {
        Self::start_raw_many(3, streams, react, settings).await
    }

    /// The same with more of them.
    pub async fn start_raw_many(
        peers: usize,
        streams: usize,
        react: impl Fn(usize, &RequestInfo) -> Reaction + Send + Sync + 'static,
        settings: impl Fn(Connector) -> Connector,
    ) -> Self {
        let react = Arc::new(react);
        let start = |nth| raw_server(nth, streams, &react);
        let start = || (0..peers).map(start).collect();
        Parts::start(streams, start).await.connect(settings).await
    }
}

impl<S: Served> Rig<S> {
    /// Servers of another kind, with the usual stream limit, and channels to them.
    pub async fn start_of(
        servers: impl FnOnce() -> Vec<S>,
        settings: impl Fn(Connector) -> Connector,
    ) -> Self {
        Parts::start(STREAMS, servers).await.connect(settings).await
    }

    /// As the channels' errors and status write it.
    pub fn address(&self, server: usize) -> String {
        self.single.channel.status().endpoints[server]
            .address
            .clone()
    }

    /// Waits until both channels are connected to all servers.
    pub async fn all_ready(&self) {
        for nth in 0..self.servers.len() {
            self.ready(nth, LIMIT).await;
        }
    }

    /// Waits until both channels are connected to this server.
    pub async fn ready(&self, server: usize, limit: Duration) {
        wait_until(limit, || self.states(server) == [State::Ready; 2]).await;
    }

    /// How both channels are connected to this server.
    pub fn states(&self, server: usize) -> [State; 2] {
        [&self.retrying, &self.single].map(|side| side.channel.status().endpoints[server].state)
    }

    /// Begins to call through both channels, for as long as a row takes.
    pub fn load(&self) -> Loads {
        self.load_with(call)
    }

    /// The same with a call of your own.
    pub fn load_with<F, Fut>(&self, call: F) -> Loads
    where
        F: Fn(Channel, u64) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let duration = super::duration();
        let start = |channel: &Channel, first_id| {
            let (channel, call) = (channel.clone(), call.clone());
            let load = Load::new(RATE).duration(duration).first_id(first_id);
            load.start(move |id| call(channel.clone(), id))
        };
        Loads {
            duration,
            retrying: start(&self.retrying.channel, 1),
            single: start(&self.single.channel, SINGLE_IDS),
        }
    }

    /// Prints the row's line and asserts the zeros: nothing lost, wrong, handled twice without leave, left behind; no
    /// panic; every slot back.
    pub async fn score(
        self,
        row: &str,
        reports: &Reports,
        recovery: Option<Duration>,
        figures: &[(&str, u64)],
    ) {
        for side in [&self.retrying, &self.single] {
            slots_are_free_but(&side.channel, self.streams, self.watching).await;
        }
        // One way to end a channel for each.
        self.retrying.channel.close(Duration::from_secs(1)).await;
        drop((self.retrying, self.single));
        let handled = self.servers.iter().map(|server| {
            let mut handled = server.handled();
            handled.split_off(&SINGLE_IDS)
        });
        let twice = duplicates(handled);
        drop(self.servers);
        let leak = self.leaks.leaked().await;
        let panics = self.panics.count();
        let mut all = vec![
            ("failed_idempotent", reports.retrying.failed.len() as u64),
            ("calls", reports.retrying.sent + reports.single.sent),
            ("panics", panics),
        ];
        all.extend(figures);
        let report = reports.retrying.clone().joined(reports.single.clone());
        report.score_with(row, &twice, leak, recovery, &all);
        assert_eq!(panics, 0, "{row}: panics");
    }
}

impl<S: Served> Parts<S> {
    pub(super) async fn start(streams: usize, servers: impl FnOnce() -> Vec<S>) -> Self {
        // Before there is anything that could leak.
        let leaks = LeakCheck::start().await;
        Self {
            servers: servers(),
            streams,
            leaks,
            panics: Panics::watch(),
        }
    }

    async fn connect(self, adjust: impl Fn(Connector) -> Connector) -> Rig<S> {
        let channels = both(|| Connector::endpoints(endpoints(&self.servers)));
        self.rig(channels, adjust).await
    }

    pub(super) async fn rig(
        self,
        [retrying, single]: [Connector; 2],
        adjust: impl Fn(Connector) -> Connector,
    ) -> Rig<S> {
        // In turn: rows are about connections and servers, and want calls to go on where others are stuck. Those that are
        // about policies run under each (`policies.rs`).
        let adjust = |connector: Connector| adjust(connector.balance(Balance::round_robin()));
        let rig = Rig {
            retrying: Side::start_with(retrying, &adjust).await,
            single: Side::start_with(single, &adjust).await,
            servers: self.servers,
            streams: self.streams,
            watching: 0,
            leaks: self.leaks,
            panics: self.panics,
        };
        rig.all_ready().await;
        rig
    }

    fn lazy(self, [retrying, single]: [Connector; 2]) -> Rig<S> {
        Rig {
            retrying: Side::start_lazy(retrying),
            single: Side::start_lazy(single),
            servers: self.servers,
            streams: self.streams,
            watching: 0,
            leaks: self.leaks,
            panics: self.panics,
        }
    }
}

impl Endpoints {
    pub async fn become_these(&self, endpoints: &[Endpoint]) {
        for answers in &self.0 {
            answers.send(endpoints.to_vec()).await;
        }
    }
}

impl Loads {
    /// Waits until this part of the row's time is over: `part(1, 3)` is one third. Gives the load's clock.
    pub async fn part(&self, part: u32, of: u32) -> Duration {
        self.watch(part, of, || {}).await
    }

    /// The same, with a look at something again and again meanwhile.
    pub async fn watch(&self, part: u32, of: u32, mut look: impl FnMut()) -> Duration {
        let at = self.duration * part / of;
        let over = || {
            look();
            self.elapsed() >= at
        };
        wait_until(self.duration * 2, over).await;
        self.elapsed()
    }

    /// The clock of the reports' times.
    pub fn elapsed(&self) -> Duration {
        self.single.elapsed()
    }

    pub fn sent(&self) -> u64 {
        self.retrying.sent() + self.single.sent()
    }

    pub async fn finish(self) -> Reports {
        Reports {
            retrying: self.retrying.finish().await,
            single: self.single.finish().await,
        }
    }
}

impl Reports {
    /// See [`Report::recovery`].
    pub fn recovery(&self, healed: Duration) -> Duration {
        let recovery = |report: &Report| report.recovery(healed);
        recovery(&self.retrying).max(recovery(&self.single))
    }

    /// Panics if any call of either channel failed.
    pub fn none_failed(&self) {
        self.no_idempotent_failed();
        assert!(self.single.failed.is_empty(), "{:?}", self.single.failed);
    }

    /// Panics if any call failed that might have been retried.
    pub fn no_idempotent_failed(&self) {
        assert!(
            self.retrying.failed.is_empty(),
            "{:?}",
            self.retrying.failed
        );
    }

    /// The same where packets are lost, which part a response's headers from its message: with the headers the call is
    /// committed (gRFC A6). At most one call can be so far at the moment of the cut.
    pub fn no_idempotent_failed_but_one_begun(&self) {
        let begun = |it: &&Failure| {
            Error::from_status(&it.status).and_then(|error| error.stage()) == Some(Stage::Body)
        };
        let begun = self.retrying.failed.iter().filter(begun).count();
        assert!(
            begun <= 1 && begun == self.retrying.failed.len(),
            "{:?}",
            self.retrying.failed
        );
    }
}

/// Waits until no call is on the channel or waits, and each of its connections has all its `streams` free. A slot that
/// never comes back shows here.
pub async fn slots_are_free(channel: &Channel, streams: usize) {
    slots_are_free_but(channel, streams, 0).await;
}

/// The same where up to so many streams of each endpoint belong to its health check, which is no call in flight.
async fn slots_are_free_but(channel: &Channel, streams: usize, watching: usize) {
    let all_free = || {
        channel.status().endpoints.iter().all(|endpoint| {
            let all = streams * endpoint.connections;
            (endpoint.in_flight, endpoint.waiting) == (0, 0)
                && (all.saturating_sub(watching)..=all).contains(&endpoint.free_streams)
        })
    };
    let free = holds_within(LIMIT, all_free).await;
    assert!(free, "slots are missing: {:#?}", channel.status());
}
