//! The current token, and the next one.

use std::error::Error as StdError;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Code;

use crate::bucket::Bucket;
use crate::error::{Error, Kind, Stage};
use crate::lock::lock;
use crate::task::Tasks;
use crate::time::Instant;

use super::Credentials;
use super::held::Held;

/// A channel's token. Calls read it without a lock; one task at a time gets another.
#[derive(Debug)]
pub(crate) struct TokenHolder {
    credentials: Credentials,
    current: ArcSwapOption<Held>,
    exchange: Mutex<Exchange>,
    tasks: Tasks,
}

/// The exchange under way, and the last one that failed.
#[derive(Debug)]
struct Exchange {
    /// Those who wait for it subscribe under the lock.
    running: Option<Arc<watch::Sender<Progress>>>,
    /// Until when calls get the same answer without asking.
    failed: Option<(Instant, Problem)>,
    /// How many more tokens may be dropped because a server refused them.
    refusals: Bucket,
}

type Problem = Arc<dyn StdError + Send + Sync>;

/// How an exchange stands: `None` while it runs.
type Progress = Option<Result<Arc<Held>, Problem>>;

const EXCHANGE_LIMIT: Duration = Duration::from_secs(10);
/// A token that may still be good is not worth waiting longer.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// A source that fails is not asked by each call anew.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Nor is one whose tokens are all refused: so many at once, and then one in each interval.
const REFUSALS: (u32, Duration) = (5, Duration::from_secs(1));

impl TokenHolder {
    pub(crate) fn new(credentials: Credentials, tasks: Tasks) -> Arc<Self> {
        Arc::new(Self {
            credentials,
            current: ArcSwapOption::empty(),
            exchange: Mutex::new(Exchange {
                running: None,
                failed: None,
                refusals: Bucket::new(REFUSALS.0, REFUSALS.1, Instant::now()),
            }),
            tasks,
        })
    }

    pub(crate) fn allows_plaintext(&self) -> bool {
        self.credentials.plaintext
    }

    /// The token for a call. Waits for the exchange if there is none yet, and for a moment if nobody has looked for long.
    ///
    /// # Errors
    ///
    /// If the source failed.
    ///
    /// # Cancel safety
    ///
    /// The exchange goes on, for the others.
    pub(crate) async fn get(self: &Arc<Self>) -> Result<Arc<Held>, Error> {
        let now = Instant::now();
        if let Some(held) = self.current.load_full()
            && !held.has_expired(now)
        {
            if !held.is_due(now) {
                return Ok(held);
            }
            let exchange = self.exchanging(now);
            if !held.is_stale(now) {
                // What comes of it is for the calls to come.
                return Ok(held);
            }
            if let Ok(exchange) = exchange
                && let Ok(Ok(next)) = timeout(LOOK_LIMIT, result(exchange)).await
            {
                return Ok(next);
            }
            held.looked_in_vain();
            return Ok(held);
        }
        result(self.exchanging(now)?).await
    }

    /// A server refused this token. Says whether asking again may bring another one.
    pub(crate) fn refused(&self, held: &Arc<Held>) -> bool {
        if !self.credentials.renewable {
            return false;
        }
        let mut exchange = lock(&self.exchange);
        // Unless another call has seen to it: that one's successor is not to go, too.
        let current = self.current.load();
        if current.as_ref().is_some_and(|it| Arc::ptr_eq(it, held)) {
            let now = Instant::now();
            if exchange.refusals.ready(now) > now {
                return false;
            }
            exchange.refusals.take(now);
            self.current.store(None);
        }
        true
    }

    /// The exchange that is under way, or a new one.
    fn exchanging(self: &Arc<Self>, now: Instant) -> Result<watch::Receiver<Progress>, Error> {
        let mut exchange = lock(&self.exchange);
        if let Some(running) = &exchange.running {
            return Ok(running.subscribe());
        }
        // One that has ended since the caller looked.
        if let Some(held) = self.current.load_full().filter(|it| !it.is_due(now)) {
            return Ok(watch::channel(Some(Ok(held))).1);
        }
        let rests = exchange.failed.clone().filter(|(until, _)| *until > now);
        if let Some((_, problem)) = rests {
            // Which others' code puts into words, so not under the lock.
            drop(exchange);
            return Err(failed(&problem));
        }
        let (progress, running) = watch::channel(None);
        let progress = Arc::new(progress);
        exchange.running = Some(Arc::clone(&progress));
        drop(exchange);
        let unfinished = Unfinished {
            holder: Arc::clone(self),
            progress,
        };
        self.tasks.spawn(async move {
            let source = &unfinished.holder.credentials.source;
            let asked = tokio::select! {
                asked = timeout(EXCHANGE_LIMIT, source.token()) => asked,
                () = unfinished.is_needless() => return,
            };
            let asked = asked
                .unwrap_or_else(|_| Err(format!("it took longer than {EXCHANGE_LIMIT:?}").into()));
            let held = asked.and_then(|token| Ok(Arc::new(Held::new(&token, Instant::now())?)));
            unfinished.finish(held.map_err(Arc::from));
        });
        Ok(running)
    }
}

/// What comes of an exchange.
async fn result(mut exchange: watch::Receiver<Progress>) -> Result<Arc<Held>, Error> {
    let progress = exchange.wait_for(Option::is_some).await;
    match progress.map(|progress| progress.clone()) {
        Ok(Some(Ok(held))) => Ok(held),
        Ok(Some(Err(error))) => Err(failed(&error)),
        // Its task is gone, and with it the channel.
        _ => Err(Error::new(
            Kind::Closed,
            Code::Unavailable,
            "the channel is closed",
        )),
    }
}

/// An exchange under way. However its task ends, the next call can begin another one.
struct Unfinished {
    holder: Arc<TokenHolder>,
    progress: Arc<watch::Sender<Progress>>,
}

impl Unfinished {
    /// Resolves once the channel closes and no call waits for the token: its end must not wait for it either.
    async fn is_needless(&self) {
        self.holder.tasks.stopped().await;
        loop {
            self.progress.closed().await;
            let mut exchange = lock(&self.holder.exchange);
            // Unless another call has come since.
            if self.progress.receiver_count() == 0 {
                exchange.running = None;
                return;
            }
        }
    }

    fn finish(&self, held: Result<Arc<Held>, Problem>) {
        if let Err(error) = &held {
            tracing::warn!(%error, "no token could be got");
        }
        let until = Instant::now() + REST_AFTER_FAILURE;
        let failed = held.as_ref().err().map(|it| (until, Arc::clone(it)));
        let before = {
            let mut exchange = lock(&self.holder.exchange);
            if let Ok(held) = &held {
                self.holder.current.store(Some(Arc::clone(held)));
            }
            exchange.running = None;
            std::mem::replace(&mut exchange.failed, failed)
        };
        drop(before);
        self.progress.send_replace(Some(held));
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.progress.borrow().is_some() {
            return;
        }
        if std::thread::panicking() {
            self.finish(Err(Arc::from(Box::from("its source panicked"))));
        } else {
            // The channel is gone: whoever waits learns that from the sender's end. One that nobody waited for may have a
            // successor by now.
            let mut exchange = lock(&self.holder.exchange);
            exchange
                .running
                .take_if(|it| Arc::ptr_eq(it, &self.progress));
        }
    }
}

fn failed(cause: &Problem) -> Error {
    let message = format!("no token could be got for the call: {cause}");
    Error::new(Kind::Token, Code::Unauthenticated, message)
        .in_stage(Stage::Pick)
        .because(Cause(Arc::clone(cause)))
}

/// One error for all who waited for it.
#[derive(Debug)]
struct Cause(Problem);

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests;
