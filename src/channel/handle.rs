//! The handle that users hold.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tokio::sync::{Semaphore, watch};
use tonic::Code;
use tonic::body::Body;
use tower_service::Service;

use crate::balance::{LoadReport, Policy as _, ReportRules};
use crate::directory::Directory;
use crate::endpoint::Subchannel;
use crate::error::{Error, Kind, Stage};
use crate::pool::State;
use crate::retry::{Budget, BudgetLimits, Hedging, Policies, Retry};
use crate::task::Tasks;
use crate::time::Instant;
use crate::token::{Held, TokenHolder};
use crate::transport::security::TlsSettings;

use super::attempt::Head;
use super::call::Call;
use super::concurrency::Concurrency;
use super::first_message::FirstMessage;
use super::options::CallDefaults;
use super::status::Counters;
use super::{ChannelStats, ChannelStatus, PinnedChannel, ResponseBody};

/// Calls, spread over the endpoints of a service. Made by a [`Connector`](crate::Connector).
///
/// It goes under any tonic client (`EchoClient::new(channel.clone())`), and takes raw requests as a
/// [`Service`] or through [`send`](Self::send). Clones are cheap and share everything.
///
/// It is always ready: readiness reserves nothing here, and a call that has to wait does so inside the call,
/// under its deadline.
///
/// When the last clone is gone and the calls made through it have ended, its connections close and its
/// tasks end. [`close`](Self::close) does that on demand.
#[derive(Clone)]
pub struct Channel {
    inner: Arc<Inner>,
}

/// What the connector puts together.
pub(crate) struct Parts {
    pub(crate) directory: Arc<Directory>,
    pub(crate) tasks: Tasks,
    pub(crate) token: Option<Arc<TokenHolder>>,
    pub(crate) tls: TlsSettings,
    pub(crate) retry: Policies<Retry>,
    /// `None`: no method's calls are hedged.
    pub(crate) hedging: Option<Policies<Hedging>>,
    pub(crate) budget: BudgetLimits,
    pub(crate) defaults: CallDefaults,
    pub(crate) concurrency: Option<Arc<Concurrency>>,
}

/// Shared by the clones, and kept by running calls.
pub(super) struct Inner {
    pub(super) directory: Arc<Directory>,
    pub(super) tasks: Tasks,
    pub(super) token: Option<Arc<TokenHolder>>,
    tls: TlsSettings,
    pub(super) retry: Policies<Retry>,
    pub(super) hedging: Option<Policies<Hedging>>,
    pub(super) budget: Arc<Budget>,
    pub(super) defaults: CallDefaults,
    pub(super) concurrency: Option<Arc<Concurrency>>,
    /// Places for calls that wait for an endpoint to be ready.
    pub(super) places: Semaphore,
    pub(super) counters: Counters,
    /// The balancing policy looks at latencies.
    pub(super) times_calls: bool,
    /// It looks at load reports, by these rules.
    reports: Option<ReportRules>,
    /// Some calls are retried or hedged.
    repeats: bool,
}

impl Inner {
    /// The token for a call with this head, if it is to have one.
    pub(super) async fn token(&self, head: &Head) -> Result<Option<Arc<Held>>, Error> {
        match &self.token {
            Some(token) if !head.has_authorization() => token.get().await.map(Some),
            _ => Ok(None),
        }
    }

    /// A server refused the token of a call. Says whether there may be another one.
    pub(super) fn token_refused(&self, token: Option<&Arc<Held>>) -> bool {
        match (&self.token, token) {
            (Some(holder), Some(token)) => holder.refused(token),
            _ => false,
        }
    }

    /// Whether this token may go there.
    pub(super) fn check_privacy(
        &self,
        token: Option<&Arc<Held>>,
        subchannel: &Subchannel,
    ) -> Result<(), Error> {
        let open = self.token.as_ref().is_some_and(|it| it.allows_plaintext());
        if token.is_none() || subchannel.private || open {
            return Ok(());
        }
        let message =
            "the token may not go over plaintext TCP; use TLS, or Credentials::allow_plaintext";
        Err(Error::new(Kind::Token, Code::Unauthenticated, message)
            .in_stage(Stage::Send)
            .at(&subchannel.name))
    }

    /// Follows an attempt that is given to this endpoint to the first message of its response, if anybody wants to know:
    /// the balancing policy of each, and whoever repeats calls of one in 16, which costs the others no look at the clock.
    pub(super) fn first_message(&self, subchannel: &Subchannel) -> Option<FirstMessage> {
        const SAMPLED: u32 = 16;
        let all = self.times_calls;
        (all || (self.repeats && fastrand::u32(..SAMPLED) == 0)).then(|| {
            let load = Arc::clone(&subchannel.load);
            FirstMessage::of(load, all, self.directory.made)
        })
    }

    /// Keeps what the endpoint says of its load in these trailers, if the balancing policy looks at that.
    pub(super) fn note_report(&self, subchannel: &Subchannel, trailers: &HeaderMap) {
        if let Some(rules) = &self.reports
            && let Some(report) = LoadReport::from_trailers(trailers)
        {
            let now = self.age(Instant::now());
            subchannel.load.note_report(&report, rules, now);
        }
    }

    /// The clock of budget and pickers.
    pub(super) fn age(&self, now: Instant) -> Duration {
        self.directory.age(now)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

/// Flushing the last frames to peers that do not read takes at most this long after the grace.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

impl Channel {
    pub(crate) fn new(parts: Parts) -> Self {
        let budget = Arc::new(Budget::new(parts.budget));
        let repeats = parts.hedging.is_some() || parts.retry.all().any(Retry::has_retries);
        let times_calls = parts.directory.policy.uses_latency();
        let reports = parts.directory.policy.load_reports();
        Self {
            inner: Arc::new(Inner {
                directory: parts.directory,
                tasks: parts.tasks,
                token: parts.token,
                tls: parts.tls,
                repeats,
                retry: parts.retry,
                hedging: parts.hedging,
                budget,
                places: Semaphore::new(parts.defaults.max_waiting),
                defaults: parts.defaults,
                concurrency: parts.concurrency,
                counters: Counters::default(),
                times_calls,
                reports,
            }),
        }
    }

    /// Sends a request, as the [`Service`] does, without a box for the future. That borrows nothing, and the call's time
    /// limit counts from here on, not from when it is polled first.
    ///
    /// Scheme and authority of the request's URI are replaced by those of the endpoint. The request's body
    /// is kept until the response begins, up to the replay limit, so that the call can be repeated.
    ///
    /// # Errors
    ///
    /// If no attempt got an answer. An error status that an endpoint answered with is a response.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future resets the stream and gives back all that the call held. The call may have been
    /// processed.
    pub fn send(
        &self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<ResponseBody>, Error>> + Send + use<> {
        // The future of an `async fn` would have room for the request beside that for the call.
        Call::new(Arc::clone(&self.inner), request).run()
    }

    /// Pins a sequence of calls to one connection, and gives it back when dropped.
    ///
    /// It leases one stream of one connection, which is picked like a call's and waited for in the same
    /// queue; the calls made through the returned channel run one after the other.
    ///
    /// # Errors
    ///
    /// As for a call that can't be sent.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue and nothing else.
    pub async fn acquire(&self) -> Result<PinnedChannel, Error> {
        PinnedChannel::lease(Arc::clone(&self.inner)).await
    }

    /// What every endpoint is doing, and why.
    #[must_use]
    pub fn status(&self) -> ChannelStatus {
        ChannelStatus::of(&self.inner)
    }

    /// Counts since the channel was made.
    #[must_use]
    pub fn stats(&self) -> ChannelStats {
        let [tls_failures, tls_expiring, tls_peers_expiring] = self.inner.tls.counts();
        ChannelStats {
            tls_failures,
            tls_expiring,
            tls_peers_expiring,
            ..self.inner.counters.snapshot()
        }
    }

    /// Follows the state of the channel as a whole. It also wakes when the [health](crate::EndpointStatus::health) of an
    /// endpoint flips while the whole stays as it is, or when somebody else decides of it. Quick changes may be seen as one.
    #[must_use]
    pub fn watch_state(&self) -> watch::Receiver<State> {
        self.inner.directory.watch_state()
    }

    /// Closes the channel for all clones. New calls are refused from now on, running ones may finish within
    /// `grace`; then all connections are closed. Returns when every task and socket is gone.
    ///
    /// It may be called more than once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the channel closed to new calls; running calls then have no limit but
    /// their own. Call it again to wait.
    pub async fn close(&self, grace: Duration) {
        self.inner.directory.stop();
        self.inner.tasks.stop();
        let ended = self.inner.tasks.ended();
        if tokio::time::timeout(grace, ended).await.is_err() {
            self.inner.tasks.cancel();
            let _ = tokio::time::timeout(CLOSE_LIMIT, self.inner.tasks.ended()).await;
        }
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.inner.directory
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<ResponseBody>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(Call::new(Arc::clone(&self.inner), request).run())
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directory = &self.inner.directory;
        f.debug_struct("Channel")
            .field("source", &directory.source)
            .field("policy", &directory.policy)
            .field("state", &directory.set().state())
            .finish_non_exhaustive()
    }
}
