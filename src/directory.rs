//! The single writer of endpoint sets: one task that follows discovery and the pools' states.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::balance::Balance;
use crate::discover::{Discover, Resolution, Resolutions};
use crate::endpoint::{Blocked, EndpointSet, Key, Member, Subchannel};
use crate::lock::lock;
use crate::pool::{PoolContext, State};
use crate::time::Instant;

/// What calls see: the current set, and word of the next.
#[derive(Debug)]
pub(crate) struct Directory {
    set: ArcSwap<EndpointSet>,
    changed: Notify,
    state: watch::Sender<State>,
    news: Mutex<News>,
    stop: CancellationToken,
    pub(crate) source: String,
    pub(crate) policy: Balance,
}

/// What discovery said last.
#[derive(Clone, Debug, Default)]
pub(crate) struct News {
    /// When the set in use was confirmed.
    pub(crate) answered: Option<Instant>,
    /// The trouble since then.
    pub(crate) error: Option<Arc<str>>,
}

impl Directory {
    /// Starts the task.
    pub(crate) fn start(
        source: Box<dyn Discover>,
        policy: Balance,
        context: PoolContext,
    ) -> Arc<Self> {
        let directory = Arc::new(Self {
            set: ArcSwap::from_pointee(EndpointSet::blocked(0, Arc::default(), Blocked::Wait)),
            changed: Notify::new(),
            state: watch::Sender::new(State::Connecting),
            news: Mutex::default(),
            stop: CancellationToken::new(),
            source: source.name(),
            policy,
        });
        let tasks = context.tasks.clone();
        let writer = Writer {
            directory: Arc::clone(&directory),
            known: HashMap::new(),
            members: Arc::default(),
            context,
            stale: false,
            rested: None,
        };
        tasks.spawn(writer.run(source.resolutions()));
        directory
    }

    pub(crate) fn set(&self) -> arc_swap::Guard<Arc<EndpointSet>> {
        self.set.load()
    }

    /// Waits until the set is newer than `version`.
    pub(crate) async fn newer_than(&self, version: u64) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.set.load().version > version {
                return;
            }
            changed.await;
        }
    }

    pub(crate) fn watch_state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(crate) fn news(&self) -> News {
        lock(&self.news).clone()
    }

    /// Drains all endpoints and ends the task.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}

/// The task's own state.
struct Writer {
    directory: Arc<Directory>,
    known: HashMap<Key, Arc<Subchannel>>,
    members: Arc<[Member]>,
    context: PoolContext,
    /// A pool's state has changed since the last set.
    stale: bool,
    /// When the next set may be made, if not at once.
    rested: Option<Instant>,
}

/// How long the writer rests after making a set, as a multiple of the time that took.
///
/// A set of three endpoints takes microseconds, one of ten thousand a millisecond. Made anew for each of ten thousand
/// endpoints as it connects, they would take the time that connecting needs.
const REST: u32 = 4;
/// Shorter rests are none: timers have this resolution.
const SHORTEST_REST: Duration = Duration::from_millis(1);

impl Writer {
    async fn run(mut self, resolutions: Resolutions) {
        let mut resolutions = Some(resolutions);
        let mut upkeep = tokio::time::interval(self.context.options.upkeep_interval());
        upkeep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let stop = self.directory.stop.clone();
        let flips = Arc::clone(&self.context.flips);
        loop {
            let rested = self.rested;
            tokio::select! {
                () = stop.cancelled() => return,
                () = flips.notified(), if !self.stale => match rested {
                    Some(_) => self.stale = true,
                    None => self.publish(),
                },
                () = until(rested) => {
                    self.rested = None;
                    if self.stale {
                        self.publish();
                    }
                }
                answer = next(&mut resolutions) => match answer {
                    // A source that always has an answer must not keep its thread from everybody else.
                    Some(answer) => {
                        match answer {
                            Ok(resolution) => self.apply(resolution),
                            Err(error) => self.note_trouble(&error.to_string()),
                        }
                        tokio::task::coop::consume_budget().await;
                    }
                    None => {
                        resolutions = None;
                        self.note_end();
                    }
                },
                now = upkeep.tick() => {
                    for subchannel in self.known.values() {
                        subchannel.pool.upkeep(now);
                    }
                }
            }
        }
    }

    /// Makes `resolution` the set: endpoints that stayed keep their connections, new ones are dialled,
    /// those that are gone finish their calls.
    fn apply(&mut self, resolution: Resolution) {
        let mut members = Vec::with_capacity(resolution.endpoints.len());
        let mut known = HashMap::with_capacity(resolution.endpoints.len());
        let mut drained = HashSet::new();
        for endpoint in resolution.endpoints {
            let key = match endpoint.key() {
                Ok(key) => key,
                Err(error) => {
                    tracing::warn!(source = self.directory.source, %error, "endpoint left out");
                    continue;
                }
            };
            if known.contains_key(&key) || drained.contains(&key) {
                tracing::warn!(source = self.directory.source, %endpoint, "endpoint given twice");
                continue;
            }
            let subchannel = if endpoint.weight_or_default() > 0 {
                let kept = self.known.remove(&key);
                let subchannel = kept.unwrap_or_else(|| Subchannel::start(&key, &self.context));
                known.insert(key, Arc::clone(&subchannel));
                Some(subchannel)
            } else {
                drained.insert(key);
                None
            };
            members.push(Member {
                endpoint,
                subchannel,
            });
        }
        if members.is_empty() && !self.members.is_empty() {
            // Likelier a fault of the source than the end of the service.
            self.known.extend(known);
            return self
                .note_trouble("the answer had no usable endpoint; the last ones stay in use");
        }
        let gone = std::mem::replace(&mut self.known, known);
        self.members = members.into();
        *lock(&self.directory.news) = News {
            answered: Some(Instant::now()),
            error: None,
        };
        self.publish();
        // After the set that doesn't have them is out: fewer calls meet a closed pool.
        for subchannel in gone.values() {
            subchannel.pool.close();
        }
    }

    fn note_trouble(&mut self, error: &str) {
        tracing::warn!(source = self.directory.source, error, "discovery failed");
        lock(&self.directory.news).error = Some(error.into());
        // Calls that wait for a first answer learn why there is none.
        self.publish();
    }

    /// The source's stream is over. What it said last stays; if it never said anything, nothing will come.
    fn note_end(&mut self) {
        let News { answered, error } = self.directory.news();
        if answered.is_none() && error.is_none() {
            self.note_trouble("it ended without an answer");
        }
    }

    fn publish(&mut self) {
        let start = Instant::now();
        self.stale = false;
        let News { answered, error } = self.directory.news();
        let members = Arc::clone(&self.members);
        self.set(|version| match (answered, error) {
            (Some(_), _) => EndpointSet::build(version, members, &self.directory.policy),
            (None, None) => EndpointSet::blocked(version, members, Blocked::Wait),
            (None, Some(error)) => {
                let reason = format!("{} failed: {error}", self.directory.source);
                EndpointSet::blocked(version, members, Blocked::Fail(Some(reason.into())))
            }
        });
        let rest = start.elapsed() * REST;
        self.rested = (rest >= SHORTEST_REST).then(|| Instant::now() + rest);
    }

    fn set(&self, make: impl FnOnce(u64) -> EndpointSet) {
        let set = make(self.directory.set.load().version + 1);
        let state = set.state();
        self.directory.set.store(Arc::new(set));
        self.directory.changed.notify_waiters();
        self.directory
            .state
            .send_if_modified(|old| std::mem::replace(old, state) != state);
    }
}

/// However the task ends (stopped, its runtime gone, a panic in foreign code), its endpoints drain, and calls
/// learn that nothing will change any more.
impl Drop for Writer {
    fn drop(&mut self) {
        let why = if std::thread::panicking() {
            "the channel has ended: its source of endpoints or its balancing policy panicked"
        } else {
            "the channel is closed"
        };
        self.directory.stop.cancel();
        self.set(|version| {
            EndpointSet::blocked(version, Arc::clone(&self.members), Blocked::Closed(why))
        });
        for subchannel in self.known.values() {
            subchannel.pool.close();
        }
    }
}

async fn until(rested: Option<Instant>) {
    match rested {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn next(
    resolutions: &mut Option<Resolutions>,
) -> Option<Result<Resolution, Box<dyn std::error::Error + Send + Sync>>> {
    match resolutions {
        Some(stream) => poll_fn(|cx| stream.as_mut().poll_next(cx)).await,
        None => std::future::pending().await,
    }
}
