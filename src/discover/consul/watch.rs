//! The watch of one service: who asks, and what came of it.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout};

use crate::address::Address;
use crate::bucket::Bucket;
use crate::lock::lock;
use crate::retry::Backoff;
use crate::time::Instant;
use crate::transport::dial::UnixOptions;
use crate::transport::security::Security;
#[cfg(feature = "__tls")]
use crate::transport::tls::Tls;

use super::asker::{Asker, cached, longest_query, security};
use super::cache::Cache;
use super::error::QueryError;
use super::guard::Guard;
use super::instance::Instance;
use super::problems::Problems;
use super::query::Query;
use super::token::Token;

/// What is watched, and how. Channels that agree in all of it share a watch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Terms {
    pub(super) agent: Address,
    pub(super) query: Query,
    pub(super) token: Token,
    #[cfg(feature = "__tls")]
    pub(super) tls: Option<Tls>,
    pub(super) unix: UnixOptions,
    pub(super) wait: Duration,
    pub(super) max_answer_bytes: usize,
    pub(super) guard: Guard,
    pub(super) cache: Option<Cache>,
}

/// One watch. It has no task: one of those who follow it asks the agent, for all of them (see `follow.rs`).
#[derive(Debug)]
pub(super) struct Watch {
    terms: Terms,
    news: watch::Sender<News>,
    /// Held by the one who asks.
    progress: tokio::sync::Mutex<Progress>,
    /// By when that one will have given a sign of life.
    due: Mutex<Instant>,
}

/// What is known. Each part has a number that grows, so that nobody takes old news for new.
#[derive(Clone, Debug, Default)]
pub(super) struct News {
    pub(super) answers: u64,
    pub(super) answer: Option<Arc<Answer>>,
    pub(super) troubles: u64,
    /// What went wrong since the answer.
    pub(super) trouble: Option<Arc<str>>,
}

/// A good answer, from the agent or from the last run's cache.
#[derive(Debug)]
pub(super) struct Answer {
    /// The same list as long as nothing in it changes.
    pub(super) instances: Arc<[Instance]>,
    /// Entries that could not be read.
    pub(super) rejected: Problems,
    pub(super) index: Option<u64>,
    /// ACLs hid something, says the agent.
    pub(super) hidden: bool,
    /// Too much is gone in it, and was so twice.
    pub(super) doubted: bool,
    /// Why it was asked for with TLS files as they were before.
    pub(super) trouble: Option<Arc<str>>,
    /// It is the last run's.
    pub(super) cached: bool,
    pub(super) came: Instant,
    /// How old it was when it came.
    pub(super) age: Duration,
}

/// What one who asks leaves to the next.
#[derive(Debug)]
struct Progress {
    bucket: Bucket,
    failures: u32,
    /// The cache is not written before: what is in it may be better than what is known now.
    store_after: Instant,
    /// What was read of TLS files, and warned of.
    security: Security,
}

/// A full bucket lets a few changes in a row through at once; in the long run there is a query per second, whatever the
/// agent answers.
const BURST: u32 = 5;
const INTERVAL: Duration = Duration::from_secs(1);

/// Full jitter: from nothing to 1 s after the first failure, to 60 s in the end.
const BACKOFF: Backoff = Backoff::calls()
    .initial(Duration::from_millis(500))
    .max(Duration::from_secs(30))
    .jitter(1.0);
/// While there is nothing to serve from but what was cached, an agent that comes up is to be found soon.
const EAGER: Backoff = BACKOFF.max(Duration::from_millis(500));
/// No query will do better until a person has done something.
const DENIED: Backoff = Backoff::calls()
    .initial(Duration::from_secs(15))
    .max(Duration::from_secs(15));

/// An agent that takes longer for its first answer than this is as good as one that can't be reached: the cache serves.
const CACHE_AFTER: Duration = Duration::from_secs(1);
/// For how long an answer that is doubted keeps out of the cache.
const DOUBT: Duration = Duration::from_secs(120);
/// How late a sign of life may come on a busy machine.
const LATE: Duration = Duration::from_secs(5);

impl Watch {
    pub(super) fn new(terms: Terms) -> Self {
        let now = Instant::now();
        Self {
            news: watch::Sender::new(News::default()),
            progress: tokio::sync::Mutex::new(Progress::new(now, &terms)),
            terms,
            due: Mutex::new(now + LATE),
        }
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<News> {
        let mut news = self.news.subscribe();
        // What was found before is new to who comes now.
        news.mark_changed();
        news
    }

    /// Waits until nobody else leads, then asks again and again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes its connection; the next in line begins anew, with a connection of its own.
    pub(super) async fn lead(self: Arc<Self>) -> Infallible {
        tokio::select! {
            mut progress = self.progress.lock() => self.ask(&mut progress).await,
            // Whoever leads belongs to a runtime that does not run: it can't be asked to leave.
            () = self.silence() => self.ask(&mut Progress::new(Instant::now(), &self.terms)).await,
        }
    }

    /// Returns when no sign of life came although one was due; to one caller each time.
    async fn silence(&self) {
        loop {
            let due = *lock(&self.due);
            sleep_until(due).await;
            let mut last = lock(&self.due);
            if *last == due {
                *last = Instant::now() + LATE;
                return;
            }
        }
    }

    /// There will be another sign of life within this time, or this one was the last.
    fn is_alive_for(&self, time: Duration) {
        *lock(&self.due) = Instant::now() + time + LATE;
    }

    async fn ask(&self, progress: &mut Progress) -> Infallible {
        let mut asker = Asker::new(&progress.security);
        let mut cache = self.terms.cache.as_ref();
        loop {
            let pause = self.round(progress, &mut asker, &mut cache).await;
            self.is_alive_for(pause);
            sleep(pause).await;
        }
    }

    /// Asks once. Says how long to wait before the next time.
    async fn round(
        &self,
        progress: &mut Progress,
        asker: &mut Asker,
        cache: &mut Option<&Cache>,
    ) -> Duration {
        // Twice, as an answer may be asked for; and as the bucket may be empty.
        self.is_alive_for((longest_query(&self.terms) + INTERVAL) * 2);
        let asked = self.ask_or_use_cache(progress, asker, *cache).await;
        match asked {
            Ok(answer) => {
                progress.failures = 0;
                let now = Instant::now();
                if answer.doubted {
                    progress.store_after = now + DOUBT;
                }
                let usable = answer.is_usable();
                let instances = Arc::clone(&answer.instances);
                self.publish(answer);
                if let Some(stored) = *cache
                    && usable
                    && progress.store_after <= now
                    && !stored.store(&instances).await
                {
                    // One that can't be written, or takes for ever, is not tried again and again.
                    *cache = None;
                }
                Duration::ZERO
            }
            Err(error) => {
                asker.start_over();
                progress.failures = progress.failures.saturating_add(1);
                if let Some(stored) = *cache {
                    self.use_cache(stored).await;
                }
                self.report(&error);
                let answer = self.news.borrow().answer.clone();
                let serving = answer.is_some_and(|it| it.is_usable() && !it.cached);
                let backoff = match serving {
                    _ if error.is_denied() => DENIED,
                    false => EAGER,
                    true => BACKOFF,
                };
                backoff.delay(progress.failures, fastrand::f64())
            }
        }
    }

    async fn ask_or_use_cache(
        &self,
        progress: &mut Progress,
        asker: &mut Asker,
        cache: Option<&Cache>,
    ) -> Result<Answer, QueryError> {
        let last = self.news.borrow().answer.clone();
        let mut asking = pin!(asker.ask(&self.terms, &mut progress.bucket, last.as_deref()));
        if let Some(cache) = cache
            && last.is_none()
        {
            if let Ok(asked) = timeout(CACHE_AFTER, &mut asking).await {
                return asked;
            }
            self.use_cache(cache).await;
        }
        asking.await
    }

    fn publish(&self, mut answer: Answer) {
        self.news.send_modify(|news| {
            if let Some(last) = &news.answer
                && last.instances == answer.instances
            {
                answer.instances = Arc::clone(&last.instances);
            }
            news.answers += 1;
            news.answer = Some(Arc::new(answer));
            news.trouble = None;
        });
    }

    fn report(&self, error: &QueryError) {
        let trouble = error.to_string();
        if error.is_denied() {
            let (agent, service) = (&self.terms.agent, &self.terms.query.service);
            tracing::error!(%agent, service, trouble, "Consul denies access; what was found before stays in use");
        }
        self.news.send_modify(|news| {
            news.troubles += 1;
            news.trouble = Some(trouble.into());
        });
    }

    /// What the last run of the program found serves until there is an answer.
    async fn use_cache(&self, cache: &Cache) {
        if self.news.borrow().answer.is_none()
            && let Some((instances, age)) = cache.load().await
        {
            self.publish(cached(instances, age));
        }
    }
}

impl Progress {
    fn new(now: Instant, terms: &Terms) -> Self {
        Self {
            bucket: Bucket::new(BURST, INTERVAL, now),
            failures: 0,
            store_after: now,
            security: security(terms),
        }
    }
}

impl Answer {
    /// Whether calls may go to any of its instances.
    fn is_usable(&self) -> bool {
        self.instances.iter().any(Instance::is_usable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> Arc<Watch> {
        let agent = Address::tcp("127.0.0.1:1").unwrap();
        Arc::new(Watch::new(Terms {
            agent,
            query: Query::default(),
            token: Token::None,
            #[cfg(feature = "__tls")]
            tls: None,
            unix: UnixOptions::new(),
            wait: Duration::from_secs(60),
            max_answer_bytes: 1024,
            guard: Guard::new(0.5),
            cache: None,
        }))
    }

    /// A leader on a runtime that nobody drives has the lock for ever. One of the others takes over, and only one.
    #[tokio::test(start_paused = true)]
    async fn a_leader_that_falls_silent_is_replaced() {
        let watch = watch();
        let _held = watch.progress.lock().await;
        watch.is_alive_for(longest_query(&watch.terms));
        let limit = longest_query(&watch.terms) + LATE;
        assert!(timeout(limit - INTERVAL, watch.silence()).await.is_err());
        assert!(timeout(INTERVAL * 2, watch.silence()).await.is_ok());
        // Whoever took over has promised to live.
        assert!(timeout(LATE / 2, watch.silence()).await.is_err());
        watch.is_alive_for(limit);
        assert!(timeout(limit, watch.silence()).await.is_err());
    }
}
