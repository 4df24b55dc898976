//! The current token, and the next one.

use std::error::Error as StdError;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Code;

use crate::error::{Error, Kind, Stage};
use crate::lock::lock;
use crate::task::Tasks;
use crate::time::Instant;

use super::{Credentials, Token};

/// A channel's token. Calls read it without a lock; one task at a time gets another.
#[derive(Debug)]
pub(crate) struct TokenHolder {
    credentials: Credentials,
    current: ArcSwapOption<Held>,
    exchange: Mutex<Exchange>,
    tasks: Tasks,
}

/// A token in use.
#[derive(Debug)]
pub(crate) struct Held {
    /// What calls carry.
    pub(crate) value: HeaderValue,
    /// From when on another one is asked for.
    renew_at: Option<Instant>,
    expires_at: Option<Instant>,
}

/// The exchange under way, and the last one that failed.
#[derive(Debug, Default)]
struct Exchange {
    running: Option<watch::Receiver<Progress>>,
    /// Until when calls get the same answer without asking.
    failed: Option<(Instant, Arc<dyn StdError + Send + Sync>)>,
}

/// How an exchange stands: `None` while it runs.
type Progress = Option<Result<Arc<Held>, Arc<dyn StdError + Send + Sync>>>;

const EXCHANGE_LIMIT: Duration = Duration::from_secs(10);
/// A source that fails is not asked by each call anew.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(1);

impl TokenHolder {
    pub(crate) fn new(credentials: Credentials, tasks: Tasks) -> Arc<Self> {
        Arc::new(Self {
            credentials,
            current: ArcSwapOption::empty(),
            exchange: Mutex::default(),
            tasks,
        })
    }

    pub(crate) fn allows_plaintext(&self) -> bool {
        self.credentials.plaintext
    }

    /// The token for a call. Waits for the exchange, if there is none yet.
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
            && held.expires_at.is_none_or(|at| at > now)
        {
            if held.renew_at.is_some_and(|at| at <= now) {
                // What comes of it is for the calls to come.
                let _ = self.exchanging(now);
            }
            return Ok(held);
        }
        let mut exchange = self.exchanging(now)?;
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

    /// A server refused this token. Says whether asking again may bring another one.
    pub(crate) fn refused(&self, held: &Arc<Held>) -> bool {
        if !self.credentials.renewable {
            return false;
        }
        // Unless another call has seen to it: that one's successor is not to go, too.
        let current = self.current.load();
        if current.as_ref().is_some_and(|it| Arc::ptr_eq(it, held)) {
            self.current.compare_and_swap(&*current, None);
        }
        true
    }

    /// The exchange that is under way, or a new one.
    fn exchanging(self: &Arc<Self>, now: Instant) -> Result<watch::Receiver<Progress>, Error> {
        let mut exchange = lock(&self.exchange);
        if let Some(running) = &exchange.running {
            return Ok(running.clone());
        }
        if let Some((until, error)) = &exchange.failed
            && *until > now
        {
            return Err(failed(error));
        }
        let (progress, running) = watch::channel(None);
        exchange.running = Some(running.clone());
        drop(exchange);
        let holder = Arc::clone(self);
        self.tasks.spawn(async move {
            let asked = timeout(EXCHANGE_LIMIT, holder.credentials.source.token()).await;
            let asked = asked
                .unwrap_or_else(|_| Err(format!("it took longer than {EXCHANGE_LIMIT:?}").into()));
            let held = asked.and_then(|token| Ok(Arc::new(hold(&token, Instant::now())?)));
            let held = held.map_err(Arc::from);
            holder.finish(&held);
            progress.send_replace(Some(held));
        });
        Ok(running)
    }

    fn finish(&self, held: &Result<Arc<Held>, Arc<dyn StdError + Send + Sync>>) {
        let mut exchange = lock(&self.exchange);
        exchange.running = None;
        exchange.failed = None;
        match held {
            Ok(held) => self.current.store(Some(Arc::clone(held))),
            Err(error) => {
                tracing::warn!(%error, "no token could be got");
                exchange.failed = Some((Instant::now() + REST_AFTER_FAILURE, Arc::clone(error)));
            }
        }
    }
}

fn hold(token: &Token, now: Instant) -> Result<Held, &'static str> {
    let renew = token
        .lifetime
        .map(|time| time.mul_f64(0.85 + 0.1 * fastrand::f64()));
    let renew = renew.or(token.look_after);
    // What is longer than clocks can count does not expire.
    let at = |time: Option<Duration>| time.and_then(|time| now.checked_add(time));
    Ok(Held {
        value: header(token)?,
        renew_at: at(renew),
        expires_at: at(token.lifetime),
    })
}

/// The header's value.
///
/// # Errors
///
/// What is wrong with the token, without showing it.
pub(super) fn header(token: &Token) -> Result<HeaderValue, &'static str> {
    let text = token.text.expose();
    if text.is_empty() {
        return Err("the token is empty");
    }
    // RFC 6750 allows less; others' tokens are their business, as long as they are no second header.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the token has a space, a line break or another character that no token has");
    }
    let value = HeaderValue::try_from(format!("Bearer {text}"));
    let mut value = value.map_err(|_| "the token can't be sent in a header")?;
    value.set_sensitive(true);
    Ok(value)
}

fn failed(cause: &Arc<dyn StdError + Send + Sync>) -> Error {
    let message = format!("no token could be got for the call: {cause}");
    Error::new(Kind::Token, Code::Unauthenticated, message)
        .in_stage(Stage::Pick)
        .because(Cause(Arc::clone(cause)))
}

/// One error for all who waited for it.
#[derive(Debug)]
struct Cause(Arc<dyn StdError + Send + Sync>);

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
