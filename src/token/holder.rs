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
    running: Option<watch::Receiver<Progress>>,
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
            return Ok(running.clone());
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
        exchange.running = Some(running.clone());
        drop(exchange);
        let unfinished = Unfinished {
            holder: Arc::clone(self),
            progress,
        };
        self.tasks.spawn(async move {
            let source = &unfinished.holder.credentials.source;
            let asked = timeout(EXCHANGE_LIMIT, source.token()).await;
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
    progress: watch::Sender<Progress>,
}

impl Unfinished {
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
            // The channel is gone: whoever waits learns that from the sender's end.
            lock(&self.holder.exchange).running = None;
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
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use super::super::Token;
    use super::*;

    #[tokio::test]
    async fn a_call_that_looked_before_an_exchange_ended_asks_for_no_other() {
        let (holder, count) = scripted(|_| async { Ok(Token::new("t")) });
        let held = holder.get().await.unwrap();
        // It had found no token, and is late.
        let mut late = holder.exchanging(Instant::now()).unwrap();
        let found = late.wait_for(Option::is_some).await.unwrap().clone();
        assert!(Arc::ptr_eq(&held, &found.unwrap().unwrap()));
        assert_eq!(count.load(SeqCst), 1);
    }

    /// A holder whose nth exchange does what a function says, and the exchanges so far.
    fn scripted<Fut>(
        script: impl Fn(u64) -> Fut + Send + Sync + 'static,
    ) -> (Arc<TokenHolder>, Arc<AtomicU64>)
    where
        Fut: Future<Output = Result<Token, Box<dyn StdError + Send + Sync>>> + Send + 'static,
    {
        let count = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&count);
        let credentials = Credentials::exchange(move || script(counter.fetch_add(1, SeqCst) + 1));
        let tasks = Tasks::new().unwrap();
        (TokenHolder::new(credentials, tasks), count)
    }

    const LIFETIME: Duration = Duration::from_secs(100);
    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_fails_leaves_the_token_in_use_until_it_expires() {
        let (holder, count) = scripted(|nth| async move {
            match nth {
                1 | 4 => Ok(Token::new(format!("t{nth}")).expires_in(LIFETIME)),
                _ => Err("the provider is down".into()),
            }
        });
        let first = holder.get().await.unwrap();
        tokio::time::advance(LIFETIME - 3 * SECOND).await;
        for exchanges in [2, 3] {
            // Until the failure is known, and after it, within its rest.
            for _ in 0..10 {
                assert!(Arc::ptr_eq(&first, &holder.get().await.unwrap()));
                tokio::task::yield_now().await;
            }
            assert_eq!(count.load(SeqCst), exchanges);
            tokio::time::advance(REST_AFTER_FAILURE).await;
        }
        tokio::time::advance(SECOND).await;
        assert_eq!(holder.get().await.unwrap().value, "Bearer t4");
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_calls_that_find_it_expired_make_one_exchange() {
        let (holder, count) = scripted(|nth| async move {
            // While it is under way, the others come.
            tokio::time::sleep(SECOND).await;
            Ok(Token::new(format!("t{nth}")).expires_in(LIFETIME))
        });
        holder.get().await.unwrap();
        tokio::time::advance(LIFETIME).await;
        let calls = (0..1000).map(|_| holder.get());
        for held in futures_util::future::join_all(calls).await {
            assert_eq!(held.unwrap().value, "Bearer t2");
        }
        assert_eq!(count.load(SeqCst), 2);
    }

    /// As from a provider whose clock is behind.
    #[tokio::test(start_paused = true)]
    async fn what_has_expired_when_it_comes_is_not_asked_for_by_each_call() {
        let token = || Token::new("t").expires_in(Duration::ZERO);
        let (holder, count) = scripted(move |_| async move { Ok(token()) });
        for _ in 0..100 {
            holder.get().await.unwrap();
        }
        assert_eq!(count.load(SeqCst), 1);
        tokio::time::advance(SECOND).await;
        holder.get().await.unwrap();
        assert_eq!(count.load(SeqCst), 2);
    }

    /// As a file's token, in a channel that has made no call for long.
    #[tokio::test(start_paused = true)]
    async fn what_nobody_has_looked_at_for_long_is_looked_at_first() {
        let (holder, count) = scripted(|nth| async move {
            match nth {
                1 | 2 | 5 => Ok(Token::new(format!("t{nth}")).look_again_after(SECOND)),
                3 => Err("the file is gone".into()),
                _ => std::future::pending().await,
            }
        });
        let get = async || {
            let held = holder.get().await.unwrap();
            held.value.to_str().unwrap().to_owned()
        };
        assert_eq!(get().await, "Bearer t1");
        tokio::time::advance(3600 * SECOND).await;
        assert_eq!(get().await, "Bearer t2");
        // It is better than none, and nobody waits a second time.
        tokio::time::advance(3600 * SECOND).await;
        for exchanges in [3, 4] {
            let start = Instant::now();
            assert_eq!(get().await, "Bearer t2");
            tokio::task::yield_now().await;
            assert_eq!(
                (count.load(SeqCst), start.elapsed()),
                (exchanges, Duration::ZERO)
            );
            tokio::time::advance(REST_AFTER_FAILURE).await;
        }
        tokio::time::sleep(EXCHANGE_LIMIT + REST_AFTER_FAILURE).await;
        assert_eq!(get().await, "Bearer t2");
        tokio::task::yield_now().await;
        assert_eq!(get().await, "Bearer t5");
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_hangs_is_given_up() {
        let (holder, count) = scripted(|nth| async move {
            match nth {
                2 => std::future::pending().await,
                _ => Ok(Token::new(format!("t{nth}")).expires_in(LIFETIME)),
            }
        });
        holder.get().await.unwrap();
        tokio::time::advance(LIFETIME).await;
        let start = Instant::now();
        let error = holder.get().await.unwrap_err();
        assert!(error.to_string().contains("longer than 10s"), "{error}");
        assert_eq!(start.elapsed().as_secs(), EXCHANGE_LIMIT.as_secs());
        tokio::time::advance(REST_AFTER_FAILURE).await;
        assert_eq!(holder.get().await.unwrap().value, "Bearer t3");
        assert_eq!(count.load(SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_paid_for_once_each_and_have_a_limit() {
        let (holder, count) = scripted(|_| async { Ok(Token::new("t")) });
        for exchanges in 1..=u64::from(REFUSALS.0) {
            let held = holder.get().await.unwrap();
            assert_eq!(count.load(SeqCst), exchanges);
            // However many calls had it.
            for _ in 0..10 {
                assert!(holder.refused(&held));
            }
        }
        let held = holder.get().await.unwrap();
        assert!(!holder.refused(&held), "the bucket is empty");
        assert!(Arc::ptr_eq(&held, &holder.get().await.unwrap()));
        tokio::time::advance(REFUSALS.1).await;
        assert!(holder.refused(&held));
        assert!(!Arc::ptr_eq(&held, &holder.get().await.unwrap()));
    }

    #[tokio::test]
    async fn an_exchange_that_the_channels_end_cuts_leaves_nobody_waiting() {
        let (holder, _) = scripted(|_| std::future::pending());
        let waiting = holder.exchanging(Instant::now()).unwrap();
        tokio::task::yield_now().await;
        holder.tasks.cancel();
        assert_eq!(holder.get().await.unwrap_err().kind(), Kind::Closed);
        drop(waiting);
        assert!(lock(&holder.exchange).running.is_none());
    }
}
