//! The watch of one service: its queries, and what came of them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, HOST, HeaderName, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, sleep_until};

use crate::address::Address;
use crate::retry::Backoff;
use crate::time::Instant;
use crate::transport::security::Security;
#[cfg(feature = "tls")]
use crate::transport::tls::Tls;

use super::Consistency;
use super::bucket::Bucket;
use super::cache::Cache;
use super::error::QueryError;
use super::guard::Guard;
use super::http::{AgentConnection, Reply};
use super::index::Index;
use super::instance::Instance;
use super::query::Query;
use super::token::Token;
use super::wire;

/// What is watched, and how. Channels that agree in all of it share a watch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Terms {
    pub(super) agent: Address,
    pub(super) query: Query,
    pub(super) token: Token,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Tls>,
    pub(super) wait: Duration,
    pub(super) max_answer_bytes: usize,
    pub(super) guard: Guard,
    pub(super) cache: Option<Cache>,
}

/// One watch. It has no task: one of those who follow it asks the agent, for all of them (see `follow.rs`).
#[derive(Debug)]
pub(super) struct Watch {
    terms: Terms,
    security: Security,
    news: watch::Sender<News>,
    progress: Mutex<Progress>,
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
    pub(super) rejected: usize,
    pub(super) index: Option<u64>,
    /// ACLs hid something, says the agent.
    pub(super) hidden: bool,
    /// How old it was when it came.
    pub(super) age: Duration,
}

/// What one query leaves to the next.
#[derive(Debug)]
struct Progress {
    index: Index,
    bucket: Bucket,
    failures: u32,
    cache_tried: bool,
}

/// Queries without an index are answered at once; an agent that looks for a leader takes up to 8 s to give up (seen with
/// Consul 1.8). That comes on top of a blocking query's wait, too.
const PATIENCE: Duration = Duration::from_secs(10);
/// A full bucket lets a few changes in a row through at once; in the long run there is a query per second, whatever the
/// agent answers.
const BURST: u32 = 5;
const INTERVAL: Duration = Duration::from_secs(1);

/// Full jitter: from nothing to 1 s after the first failure, to 60 s in the end.
const BACKOFF: Backoff = Backoff::calls()
    .initial(Duration::from_millis(500))
    .max(Duration::from_secs(30))
    .jitter(1.0);
/// While there is nothing to serve from, an agent that comes up is to be found soon.
const EAGER: Backoff = BACKOFF.max(Duration::from_millis(500));
/// No query will do better until a person has done something.
const DENIED: Backoff = Backoff::calls()
    .initial(Duration::from_secs(15))
    .max(Duration::from_secs(15));

static TOKEN: HeaderName = HeaderName::from_static("x-consul-token");

impl Terms {
    fn security(&self) -> Security {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return Security::of_agent(tls, &self.agent)
                .unwrap_or_else(|error| Security::Broken(error.to_string().into()));
        }
        Security::Plaintext
    }
}

impl Watch {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            security: terms.security(),
            terms,
            news: watch::Sender::new(News::default()),
            progress: Mutex::new(Progress {
                index: Index::default(),
                bucket: Bucket::new(BURST, INTERVAL, Instant::now()),
                failures: 0,
                cache_tried: false,
            }),
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
    /// Dropping the future closes its connection; the next in line begins where it was, with a connection of its own.
    pub(super) async fn lead(self: Arc<Self>) -> Infallible {
        let mut progress = self.progress.lock().await;
        // Nobody knows what became of the query that was under way.
        progress.index.forget();
        let mut connection = None;
        loop {
            let pause = self.round(&mut progress, &mut connection).await;
            sleep(pause).await;
        }
    }

    /// Asks once. Says how long to wait before the next time.
    async fn round(
        &self,
        progress: &mut Progress,
        connection: &mut Option<AgentConnection>,
    ) -> Duration {
        match self.ask_surely(progress, connection).await {
            Ok(answer) => {
                progress.failures = 0;
                let usable = answer.instances.iter().any(Instance::is_usable);
                let instances = Arc::clone(&answer.instances);
                self.publish(answer);
                if let Some(cache) = self.terms.cache.as_ref().filter(|_| usable) {
                    cache.store(&instances).await;
                }
                Duration::ZERO
            }
            Err(error) => {
                *connection = None;
                progress.index.forget();
                progress.failures = progress.failures.saturating_add(1);
                self.report(&error);
                self.use_cache(progress).await;
                let backoff = match self.news.borrow().answer {
                    _ if error.is_denied() => DENIED,
                    None => EAGER,
                    Some(_) => BACKOFF,
                };
                backoff.delay(progress.failures, fastrand::f64())
            }
        }
    }

    /// The next answer. One in which too much is gone is asked for twice, the second time from the leader's own state.
    async fn ask_surely(
        &self,
        progress: &mut Progress,
        connection: &mut Option<AgentConnection>,
    ) -> Result<Answer, QueryError> {
        let answer = self.ask(&self.terms.query, progress, connection).await?;
        let last = self.news.borrow().answer.clone();
        let suspicious = |last: Arc<Answer>| {
            self.terms
                .guard
                .is_suspicious(&last.instances, &answer.instances)
        };
        if !last.is_some_and(suspicious) {
            return Ok(answer);
        }
        let mut query = self.terms.query.clone();
        if query.consistency == Consistency::Stale {
            query.consistency = Consistency::Default;
        }
        progress.index.forget();
        self.ask(&query, progress, connection).await
    }

    async fn ask(
        &self,
        query: &Query,
        progress: &mut Progress,
        connection: &mut Option<AgentConnection>,
    ) -> Result<Answer, QueryError> {
        let kept = connection.is_some();
        let first = self.exchange(query, progress, connection).await;
        let reply = match first {
            // The agent may have closed the connection while nothing was asked, or may have been restarted: then the
            // index is that of another life, and a query with it would wait for nothing.
            Err(QueryError::Exchange(_)) if kept => {
                *connection = None;
                progress.index.forget();
                self.exchange(query, progress, connection).await?
            }
            other => other?,
        };
        let header = |name: &str| reply.headers.get(name)?.to_str().ok();
        progress.index.advance(header("x-consul-index"));
        let hidden = header("x-consul-results-filtered-by-acls") == Some("true");
        let parsed = wire::parse(&reply.body).map_err(QueryError::NotAList)?;
        for problem in &parsed.rejected {
            tracing::warn!(
                service = query.service,
                problem,
                "an entry of Consul's answer was left out"
            );
        }
        Ok(Answer {
            instances: parsed.instances.into(),
            rejected: parsed.rejected.len(),
            index: progress.index.wanted(),
            hidden,
            age: Duration::ZERO,
        })
    }

    /// One request and its answer.
    async fn exchange(
        &self,
        query: &Query,
        progress: &mut Progress,
        connection: &mut Option<AgentConnection>,
    ) -> Result<Reply, QueryError> {
        sleep_until(progress.bucket.take(Instant::now())).await;
        let wait = self.terms.wait;
        let index = progress.index.wanted();
        let path = query.path(index.map(|index| (index, wait)));
        // The server adds up to a sixteenth, so that not all clients come back together.
        let patience = index.map_or(PATIENCE, |_| wait + wait / 16 + PATIENCE);
        let token = self.terms.token.header().await?;
        let mut headers = HeaderMap::with_capacity(4);
        let fixed = [
            (HOST, self.terms.agent.authority()),
            (ACCEPT, "application/json".to_owned()),
            (
                USER_AGENT,
                concat!("trunkline/", env!("CARGO_PKG_VERSION")).to_owned(),
            ),
        ];
        for (name, value) in fixed {
            headers.extend(value.try_into().ok().map(|value| (name, value)));
        }
        headers.extend(token.clone().map(|token| (TOKEN.clone(), token)));
        let mut request = Request::new(String::new());
        *request.uri_mut() = path.try_into().unwrap_or_default();
        *request.headers_mut() = headers;

        let mut open = match connection.take() {
            Some(open) => open,
            None => AgentConnection::open(&self.terms.agent, &self.security).await?,
        };
        let reply = open
            .get(request, patience, self.terms.max_answer_bytes)
            .await?;
        *connection = Some(open);
        if reply.status == StatusCode::OK {
            return Ok(reply);
        }
        let token = token.as_ref().map(|token| token.as_bytes());
        Err(QueryError::status(reply.status, &reply.body, token))
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

    /// What the last run of the program found serves until the agent can be reached.
    async fn use_cache(&self, progress: &mut Progress) {
        let Some(cache) = &self.terms.cache else {
            return;
        };
        if std::mem::replace(&mut progress.cache_tried, true) || self.news.borrow().answer.is_some()
        {
            return;
        }
        if let Some((instances, age)) = cache.load().await {
            let trouble = self.news.borrow().trouble.clone();
            self.publish(Answer {
                instances: instances.into(),
                rejected: 0,
                index: None,
                hidden: false,
                age,
            });
            // It is still so.
            self.news.send_modify(|news| {
                news.troubles += 1;
                news.trouble = trouble;
            });
        }
    }
}
