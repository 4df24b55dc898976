//! The single writer of endpoint sets: one task that follows discovery and the pools' states.

mod belief;
mod health;
mod members;
mod publish;
mod selection;

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::balance::{Balance, Subset};
use crate::discover::{Discover, Outage, Resolution, Resolutions};
use crate::endpoint::{Blocked, EndpointSet, Key, Member, Subchannel};
use crate::health::Rules;
use crate::lock::lock;
use crate::pool::{PoolContext, State};
use crate::time::Instant;

use belief::{Belief, Verdict};
use health::Ticks;
use selection::Selection;

/// What calls see: the current set, and word of the next.
#[derive(Debug)]
pub(crate) struct Directory {
    set: ArcSwap<EndpointSet>,
    changed: Notify,
    state: watch::Sender<State>,
    news: Mutex<News>,
    stop: CancellationToken,
    /// When the channel was made.
    pub(crate) made: Instant,
    pub(crate) source: String,
    pub(crate) policy: Balance,
}

/// Where its endpoints come from.
pub(crate) enum Origin {
    /// A list that never changes, of which each is named once.
    Fixed(Vec<Key>),
    Discovered(Box<dyn Discover>),
}

/// What discovery said last.
#[derive(Clone, Debug, Default)]
pub(crate) struct News {
    /// When the set in use was confirmed.
    pub(crate) answered: Option<Instant>,
    /// How old it was then.
    pub(crate) age: Duration,
    /// The source's mark of that set.
    pub(crate) revision: Option<Arc<str>>,
    /// The trouble since then.
    pub(crate) error: Option<Arc<str>>,
    /// Why the source has no endpoints, by its own words.
    none: Option<Arc<str>>,
}

impl Directory {
    /// Starts the task. Without a subset, all endpoints are used.
    pub(crate) fn start(
        origin: Origin,
        policy: Balance,
        subset: Option<&Subset>,
        context: PoolContext,
        rules: Arc<Rules>,
    ) -> Arc<Self> {
        let (name, outage) = match &origin {
            Origin::Fixed(_) => ("fixed".to_owned(), Outage::keep()),
            Origin::Discovered(source) => (source.name(), source.outage()),
        };
        let directory = Arc::new(Self {
            set: ArcSwap::from_pointee(EndpointSet::blocked(0, Arc::default(), Blocked::Wait)),
            changed: Notify::new(),
            state: watch::Sender::new(State::Connecting),
            news: Mutex::default(),
            stop: CancellationToken::new(),
            made: Instant::now(),
            source: name,
            policy,
        });
        let tasks = context.tasks.clone();
        let writer = Writer {
            directory: Arc::clone(&directory),
            belief: Belief::new(outage),
            doubt: None,
            known: HashMap::new(),
            waiting: VecDeque::new(),
            selection: Selection::new(subset, fastrand::u64(..)),
            members: Arc::default(),
            context,
            rules,
            stale: false,
            rested: None,
            turning: None,
        };
        tasks.spawn(writer.run(origin));
        directory
    }

    /// The time as pure parts see it: how long ago the channel was made.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.made)
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

    /// Resolves once it has ended, or is about to.
    pub(crate) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Drains all endpoints and ends the task.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}

/// The task's own state.
struct Writer {
    directory: Arc<Directory>,
    belief: Belief,
    /// Why some endpoints are held, as long as they are.
    doubt: Option<Arc<str>>,
    /// The endpoints that are used.
    known: HashMap<Key, Arc<Subchannel>>,
    /// Those of them that do not dial yet, although nothing is in their way.
    waiting: VecDeque<Arc<Subchannel>>,
    selection: Selection,
    members: Arc<[Member]>,
    context: PoolContext,
    /// What health is judged by.
    rules: Arc<Rules>,
    /// Something has changed since the last set.
    stale: bool,
    /// When the next set may be made, if not at once.
    rested: Option<Instant>,
    /// When time alone changes an endpoint's health.
    turning: Option<Instant>,
}

impl Writer {
    async fn run(mut self, origin: Origin) {
        let mut resolutions = match origin {
            Origin::Fixed(keys) => {
                self.learn(keys, Resolution::default());
                None
            }
            Origin::Discovered(source) => Some(source.resolutions()),
        };
        // Clients that were started together, and find new certificates together, are not to replace their connections
        // together too.
        let every = self.context.options.upkeep_interval();
        let first = Instant::now() + every.mul_f64(fastrand::f64());
        let mut upkeep = tokio::time::interval_at(first, every);
        upkeep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut samples = Ticks::new(self.rules.sample_interval());
        let mut refreshes = Ticks::new(publish::refresh_interval(&self.directory.policy));
        let mut sweeps = Ticks::new(self.rules.sweep_interval());
        let stop = self.directory.stop.clone();
        let flips = Arc::clone(&self.context.flips);
        loop {
            let rested = self.rested;
            let leaving = self.belief.next();
            let turning = self.turning.filter(|_| !self.stale);
            tokio::select! {
                () = stop.cancelled() => return,
                () = flips.notified(), if !self.stale => match rested {
                    Some(_) => self.stale = true,
                    None => self.follow_states(),
                },
                () = until(rested) => {
                    self.rested = None;
                    if self.stale {
                        self.follow_states();
                    }
                }
                () = tokio::task::yield_now(), if !self.waiting.is_empty() => self.begin_some(),
                () = until(leaving) => self.let_go(),
                () = until(turning) => match rested {
                    Some(_) => self.stale = true,
                    None => self.review(),
                },
                now = samples.next() => self.sample(now),
                _ = refreshes.next() => self.refresh(),
                now = sweeps.next() => self.sweep(now),
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

    /// Makes `resolution` the set, as far as it is believed.
    fn apply(&mut self, mut resolution: Resolution) {
        let answer = self.usable(std::mem::take(&mut resolution.endpoints));
        self.learn(answer, resolution);
    }

    /// The same, of an answer whose endpoints are these.
    fn learn(&mut self, answer: Vec<Key>, resolution: Resolution) {
        let now = Instant::now();
        let unchanged = self.belief.is_unchanged(&answer);
        let verdict = if unchanged {
            Verdict::Believed
        } else {
            let known = &self.known;
            let is_ready = |key: &Key| is_ready(known, key);
            self.belief.learn(now, answer, resolution.certain, is_ready)
        };
        let note = resolution.note.map(Arc::from);
        let trouble = verdict.trouble(self.belief.rules(), note.as_deref());
        if verdict == Verdict::Empty {
            lock(&self.directory.news).none = note;
            self.rebuild();
            return self.note_trouble(trouble.as_deref().unwrap_or_default());
        }
        if trouble.is_some() {
            self.doubt = trouble.as_deref().map(Arc::from);
        }
        let doubt = self.doubt.clone().filter(|_| self.belief.holds());
        *lock(&self.directory.news) = News {
            answered: Some(now),
            age: resolution.age,
            revision: resolution.revision.map(Arc::from),
            error: doubt.or_else(|| resolution.warning.map(Arc::from)),
            none: note,
        };
        if !unchanged {
            self.rebuild();
        }
        if let Some(trouble) = trouble {
            tracing::warn!(
                source = self.directory.source,
                trouble,
                "discovery is doubted"
            );
        }
    }

    fn note_trouble(&mut self, error: &str) {
        let last = lock(&self.directory.news).error.replace(error.into());
        // Once, and not with each try.
        if last.as_deref() != Some(error) {
            tracing::warn!(source = self.directory.source, error, "discovery failed");
        }
        // Calls that wait for a first answer learn why there is none.
        self.publish();
    }

    /// The source's stream is over. What it said last stays; if it never said anything, nothing will come.
    fn note_end(&mut self) {
        let News {
            answered, error, ..
        } = self.directory.news();
        if answered.is_none() && error.is_none() {
            self.note_trouble("it ended without an answer");
        }
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

/// Whether the endpoint has a connection.
fn is_ready(known: &HashMap<Key, Arc<Subchannel>>, key: &Key) -> bool {
    known
        .get(key)
        .is_some_and(|it| it.pool.state() == State::Ready)
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
