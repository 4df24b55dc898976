//! One query after the other, by the rules.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONNECTION, HOST, HeaderName, USER_AGENT};
use http::{HeaderMap, Request, StatusCode, Uri};
use tokio::time::sleep_until;

use crate::bucket::Bucket;
use crate::time::Instant;
use crate::transport::security::Security;

use super::Consistency;
use super::error::QueryError;
use super::http::{AgentConnection, Reply};
use super::index::Index;
use super::problems::Problems;
use super::query::Query;
use super::token::TokenReader;
use super::watch::{Answer, Terms};
use super::wire;

/// What whoever asks has for itself, and what nobody else may go on with.
pub(super) struct Asker {
    security: Security,
    connection: Option<AgentConnection>,
    token: TokenReader,
    index: Index,
}

/// Queries without an index are answered at once; an agent that looks for a leader takes up to 8 s to give up (seen with
/// Consul 1.8). That comes on top of a blocking query's wait, too.
const PATIENCE: Duration = Duration::from_secs(10);

/// More than any query takes, from the moment it may be sent: connecting and the body have limits of their own.
pub(super) fn longest_query(terms: &Terms) -> Duration {
    patience(terms.wait) + super::http::OTHER_LIMITS
}

/// How long the agent may take. It adds up to a sixteenth, so that not all clients come back together.
fn patience(wait: Duration) -> Duration {
    wait + wait / 16 + PATIENCE
}

static TOKEN: HeaderName = HeaderName::from_static("x-consul-token");

impl Asker {
    pub(super) fn new(security: &Security) -> Self {
        Self {
            security: security.clone(),
            connection: None,
            token: TokenReader::default(),
            index: Index::default(),
        }
    }

    /// The next answer. One in which too much is gone is asked for twice, the second time from the leader's own state.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped, the asker must be dropped, too: an answer may be under way on its connection.
    pub(super) async fn ask(
        &mut self,
        terms: &Terms,
        bucket: &mut Bucket,
        last: Option<&Answer>,
    ) -> Result<Answer, QueryError> {
        let mut answer = self.ask_once(terms, &terms.query, bucket).await?;
        let doubted = |answer: &Answer| {
            let guard = terms.guard;
            last.is_some_and(|last| guard.is_suspicious(&last.instances, &answer.instances))
        };
        if doubted(&answer) {
            let mut query = terms.query.clone();
            if query.consistency == Consistency::Stale {
                query.consistency = Consistency::Default;
            }
            self.index.forget();
            answer = self.ask_once(terms, &query, bucket).await?;
            answer.doubted = doubted(&answer);
        }
        Ok(answer)
    }

    /// Forgets what the last answer was about: whatever failed, the next one may be of another life.
    pub(super) fn start_over(&mut self) {
        self.connection = None;
        self.index.forget();
    }

    async fn ask_once(
        &mut self,
        terms: &Terms,
        query: &Query,
        bucket: &mut Bucket,
    ) -> Result<Answer, QueryError> {
        let kept = self.connection.is_some();
        let reply = match self.exchange(terms, query, bucket).await {
            // The agent may have closed the connection while nothing was asked, or may have been restarted: then the
            // index is that of another life, and a query with it would wait for nothing.
            Err(QueryError::Exchange(_)) if kept => {
                self.start_over();
                self.exchange(terms, query, bucket).await?
            }
            other => other?,
        };
        let header = |name: &str| reply.headers.get(name)?.to_str().ok();
        self.index.advance(header("x-consul-index"));
        let hidden = header("x-consul-results-filtered-by-acls") == Some("true");
        // How far a stale answer is behind.
        let behind = header("x-consul-lastcontact").and_then(|millis| millis.parse().ok());
        let parsed = wire::parse(&reply.body).map_err(QueryError::NotAList)?;
        Ok(Answer {
            instances: parsed.instances.into(),
            rejected: parsed.rejected,
            index: self.index.wanted(),
            hidden,
            doubted: false,
            trouble: self.security.trouble(),
            cached: false,
            came: Instant::now(),
            age: Duration::from_millis(behind.unwrap_or(0)),
        })
    }

    /// One request and its answer.
    async fn exchange(
        &mut self,
        terms: &Terms,
        query: &Query,
        bucket: &mut Bucket,
    ) -> Result<Reply, QueryError> {
        sleep_until(bucket.ready(Instant::now())).await;
        bucket.take(Instant::now());
        let waiting = self.index.wanted().map(|index| (index, terms.wait));
        let patience = waiting.map_or(PATIENCE, |(_, wait)| patience(wait));
        let token = self.token.header(&terms.token).await?;
        let mut headers = HeaderMap::with_capacity(4);
        let agent = env!("CARGO_PKG_VERSION");
        for (name, value) in [
            (HOST, terms.agent.authority()),
            (ACCEPT, "application/json".to_owned()),
            (USER_AGENT, format!("trunkline/{agent}")),
        ] {
            headers.extend(value.try_into().ok().map(|value| (name, value)));
        }
        headers.extend(token.clone().map(|token| (TOKEN.clone(), token)));
        let mut request = Request::new(String::new());
        *request.uri_mut() = Uri::try_from(query.path(waiting)).map_err(QueryError::Path)?;
        *request.headers_mut() = headers;

        // It has a limit of its own, after which what was read before stays in use.
        self.security.refresh().await;
        let kept = self.connection.take();
        let mut open = match kept.filter(|it| !self.security.is_newer_than(&it.identity)) {
            Some(open) => open,
            None => AgentConnection::open(&terms.agent, &terms.unix, &self.security).await?,
        };
        self.security.warn_of_peer(&open.identity);
        let reply = open.get(request, patience, terms.max_answer_bytes).await?;
        // With a connection that the agent closes on purpose, the index stays what it is.
        self.connection = (!closes(&reply)).then_some(open);
        if reply.status == StatusCode::OK {
            return Ok(reply);
        }
        let token = token.as_ref().map(|token| token.as_bytes());
        Err(QueryError::status(reply.status, &reply.body, token))
    }
}

/// How the connections to the agent are secured.
pub(super) fn security(terms: &Terms) -> Security {
    #[cfg(feature = "__tls")]
    if let Some(tls) = &terms.tls {
        return Security::of_agent(tls, &terms.agent)
            .unwrap_or_else(|error| Security::Broken(error.to_string().into()));
    }
    let _ = terms;
    Security::Plaintext
}

/// Whether the agent, or a proxy before it, wants no other request on this connection.
fn closes(reply: &Reply) -> bool {
    let said = reply
        .headers
        .get(CONNECTION)
        .and_then(|it| it.to_str().ok());
    match said.map(str::to_ascii_lowercase) {
        Some(said) if said.contains("close") => true,
        Some(said) if said.contains("keep-alive") => false,
        _ => reply.version < http::Version::HTTP_11,
    }
}

/// An answer that nobody gave: the instances of a cached one, which was good so long ago.
pub(super) fn cached(instances: Vec<super::instance::Instance>, age: Duration) -> Answer {
    Answer {
        instances: Arc::from(instances),
        rejected: Problems::default(),
        index: None,
        hidden: false,
        doubted: false,
        trouble: None,
        cached: true,
        came: Instant::now(),
        age,
    }
}
