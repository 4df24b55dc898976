//! The builder.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::balance::{Balance, Subset};
use crate::channel::ConcurrencyLimits;
#[cfg(feature = "consul")]
use crate::discover::Consul;
use crate::discover::Discover;
use crate::endpoint::Endpoint;
use crate::health::{Breaker, EjectionLimits, Influence, OVERLOAD, OutlierDetection, SlowStart};
use crate::pool::PoolOptions;
use crate::probe::HealthCheck;
use crate::retry::{BudgetLimits, Hedge, Retry};
use crate::token::Credentials;
use crate::transport::connection::{Http2Options, Keepalive};
use crate::transport::dial::{Dial, TcpOptions, UnixOptions};
#[cfg(feature = "__tls")]
use crate::transport::tls::Tls;

/// Builds a [`Channel`](crate::Channel).
///
/// Everything has a working default. The setters take any value; [`connect`](Self::connect) and
/// [`connect_lazy`](Self::connect_lazy) check them all, and their error names the field and the fix.
///
/// ```no_run
/// use trunkline::{Balance, Connector, Endpoint, Retry};
///
/// # async fn connect() -> Result<(), trunkline::Error> {
/// let channel = Connector::endpoints([
///         Endpoint::tcp("server1.internal:50051").weight(3),
///         Endpoint::tcp("server2.internal:50051").weight(2),
///         Endpoint::unix("/run/app/plugin.sock"),
///     ])
///     .balance(Balance::weighted())
///     .retry(Retry::exponential().attempts(3))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct Connector {
    pub(super) source: Source,
    pub(super) balance: Balance,
    pub(super) subset: Option<Subset>,
    pub(super) retry: Retry,
    pub(super) retry_for: HashMap<String, Retry>,
    pub(super) hedge: Hedge,
    pub(super) hedge_for: HashMap<String, Hedge>,
    pub(super) retry_budget: BudgetLimits,
    pub(super) health_check: Option<HealthCheck>,
    pub(super) breaker: Option<Breaker>,
    pub(super) outliers: Option<OutlierDetection>,
    pub(super) discovery_influence: Influence,
    pub(super) overload_influence: Influence,
    pub(super) limits: EjectionLimits,
    pub(super) slow_start: Option<SlowStart>,
    pub(super) concurrency: Option<ConcurrencyLimits>,
    pub(super) pool: PoolOptions,
    pub(super) http2: Http2Options,
    pub(super) keepalive: Keepalive,
    pub(super) tcp: TcpOptions,
    pub(super) unix: UnixOptions,
    pub(super) dialer: Option<Arc<dyn Dial>>,
    #[cfg(feature = "__tls")]
    pub(super) tls: Option<Tls>,
    pub(super) credentials: Option<Credentials>,
    pub(super) timeout: Option<Duration>,
    pub(super) wait_for_ready: bool,
    pub(super) fail_fast_after: Duration,
    pub(super) max_waiting: usize,
    pub(super) ready_timeout: Duration,
}

/// Where the endpoints come from. A fixed list is known now, and can be checked as a whole.
#[derive(Debug)]
pub(super) enum Source {
    Fixed(Vec<Endpoint>),
    #[cfg(feature = "consul")]
    Consul(Box<Consul>),
    Discover(Box<dyn Discover>),
}

impl Source {
    /// The same with what was left open taken from the environment.
    pub(super) fn resolved(self) -> Self {
        match self {
            #[cfg(feature = "consul")]
            Self::Consul(source) => {
                let environment = crate::discover::consul::Environment::of_process();
                Self::Consul(Box::new(source.resolved(&environment)))
            }
            known => known,
        }
    }
}

impl Connector {
    /// A channel over these endpoints.
    pub fn endpoints(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self::new(Source::Fixed(endpoints.into_iter().collect()))
    }

    /// A channel to one TCP server, `host:port`.
    pub fn tcp(address: impl AsRef<str>) -> Self {
        Self::endpoints([Endpoint::tcp(address)])
    }

    /// A channel to one server on a Unix socket.
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::endpoints([Endpoint::unix(path)])
    }

    /// A channel to the target that a text names: one endpoint in any form of [`Endpoint::uri`], several of them with
    /// commas between, or a service in Consul, `consul://127.0.0.1:8500/payments?tag=v2` (see `Consul::target`).
    pub fn target(target: impl AsRef<str>) -> Self {
        let target = target.as_ref();
        #[cfg(feature = "consul")]
        if crate::discover::consul::is_target(target) {
            return Self::consul(Consul::target(target));
        }
        Self::endpoints(target.split(',').map(|text| Endpoint::uri(text.trim())))
    }

    /// A channel over the instances of a service in Consul: its name, or a [`Consul`] with more to say.
    #[cfg(feature = "consul")]
    pub fn consul(service: impl Into<Consul>) -> Self {
        Self::new(Source::Consul(Box::new(service.into())))
    }

    /// A channel over the endpoints that a source of your own finds.
    pub fn discover(source: impl Discover) -> Self {
        Self::new(Source::Discover(Box::new(source)))
    }

    fn new(source: Source) -> Self {
        Self {
            source,
            balance: Balance::default(),
            subset: Some(Subset::default()),
            retry: Retry::exponential(),
            retry_for: HashMap::new(),
            hedge: Hedge::none(),
            hedge_for: HashMap::new(),
            retry_budget: BudgetLimits::default(),
            health_check: None,
            breaker: Some(Breaker::new()),
            outliers: None,
            discovery_influence: Influence::Hint,
            overload_influence: OVERLOAD,
            limits: EjectionLimits::new(),
            slow_start: Some(SlowStart::new()),
            concurrency: None,
            pool: PoolOptions::new(),
            http2: Http2Options::new(),
            keepalive: Keepalive::off(),
            tcp: TcpOptions::default(),
            unix: UnixOptions::default(),
            dialer: None,
            #[cfg(feature = "__tls")]
            tls: None,
            credentials: None,
            timeout: Some(Duration::from_secs(30)),
            wait_for_ready: false,
            fail_fast_after: Duration::from_secs(3),
            max_waiting: 10_000,
            ready_timeout: Duration::from_secs(5),
        }
    }

    /// How calls are spread. Default: by weight where weights differ, else to the less busy of two, and in turn while
    /// none is.
    pub fn balance(mut self, balance: Balance) -> Self {
        self.balance = balance;
        self
    }

    /// How many endpoints of a very large set are used, and which. Default [`Subset::default`]: 500.
    pub fn subset(mut self, subset: Subset) -> Self {
        self.subset = Some(subset);
        self
    }

    /// All endpoints are used, however many there are.
    pub fn no_subset(mut self) -> Self {
        self.subset = None;
        self
    }

    /// When failed calls are repeated. Default [`Retry::exponential`].
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The same for one method, `package.Service/Method`, or for a whole service, `package.Service`. A
    /// method's policy goes before its service's, and that before [`retry`](Self::retry); nothing of theirs is
    /// combined. Given twice for one name, the last holds.
    ///
    /// ```
    /// use trunkline::{Connector, Retry};
    ///
    /// let connector = Connector::tcp("inventory.internal:50051")
    ///     .retry_for("shop.Inventory", Retry::exponential().idempotent(true))
    ///     .retry_for("shop.Inventory/Reserve", Retry::none());
    /// ```
    pub fn retry_for(mut self, method: impl Into<String>, retry: Retry) -> Self {
        self.retry_for.insert(method.into(), retry);
        self
    }

    /// When idempotent calls without an answer are sent to another endpoint, too. Default [`Hedge::none`].
    ///
    /// A hedged call is not retried; of its [`retry`](Self::retry) policy the codes, the limit on an attempt and the replay
    /// buffer hold.
    pub fn hedge(mut self, hedge: Hedge) -> Self {
        self.hedge = hedge;
        self
    }

    /// The same for one method or service, with the rules of [`retry_for`](Self::retry_for).
    ///
    /// ```
    /// use trunkline::{Connector, Hedge, Retry};
    ///
    /// let connector = Connector::tcp("inventory.internal:50051")
    ///     .retry_for("shop.Inventory/Find", Retry::exponential().idempotent(true))
    ///     .hedge_for("shop.Inventory/Find", Hedge::percentile(0.95));
    /// ```
    pub fn hedge_for(mut self, method: impl Into<String>, hedge: Hedge) -> Self {
        self.hedge_for.insert(method.into(), hedge);
        self
    }

    /// How much the channel as a whole may retry and hedge, whatever its methods' policies. Default
    /// [`BudgetLimits::default`].
    pub fn retry_budget(mut self, limits: BudgetLimits) -> Self {
        self.retry_budget = limits;
        self
    }

    /// How many calls may be in flight at once. Default: no limit but the connections' streams.
    pub fn concurrency(mut self, limits: ConcurrencyLimits) -> Self {
        self.concurrency = Some(limits);
        self
    }

    /// How many connections each endpoint gets, and how they are made. Default [`PoolOptions::new`].
    pub fn pool(mut self, pool: PoolOptions) -> Self {
        self.pool = pool;
        self
    }

    /// HTTP/2 limits and windows. Default [`Http2Options::new`].
    pub fn http2(mut self, http2: Http2Options) -> Self {
        self.http2 = http2;
        self
    }

    /// Whether idle connections are probed. Default [`Keepalive::off`].
    pub fn keepalive(mut self, keepalive: Keepalive) -> Self {
        self.keepalive = keepalive;
        self
    }

    /// Socket options of TCP connections. Default [`TcpOptions::new`].
    pub fn tcp_options(mut self, tcp: TcpOptions) -> Self {
        self.tcp = tcp;
        self
    }

    /// What must be true of Unix sockets, but for those of endpoints that have [options of their
    /// own](Endpoint::unix_options). Default: nothing is checked. Without effect on TCP servers. They hold with a
    /// [`dialer`](Self::dialer) of your own, too.
    pub fn unix_options(mut self, options: UnixOptions) -> Self {
        self.unix = options;
        self
    }

    /// Opens sockets in a way of your own: in-memory, vsock, simulated. Replaces
    /// [`tcp_options`](Self::tcp_options). Default: TCP and Unix sockets of the system ([`SocketDialer`](crate::SocketDialer)).
    pub fn dialer(mut self, dialer: impl Dial) -> Self {
        self.dialer = Some(Arc::new(dialer));
        self
    }

    /// Encrypts the connections to all endpoints, but for those that have [options of their own](Endpoint::tls). Default:
    /// only `https://` endpoints are encrypted.
    #[cfg(feature = "__tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The token that calls carry. Default none.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// The time limit of calls that set none themselves, from their start to the end of their response.
    /// Default 30 s; more than 0, at most a year.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// No time limit for calls that set none themselves: for channels that carry long streams. Everything
    /// else set them a limit with [`CallOptions`](crate::CallOptions).
    pub fn no_timeout(mut self) -> Self {
        self.timeout = None;
        self
    }

    /// Whether calls wait while no endpoint is ready, until their deadline. Default no: they wait while
    /// endpoints connect for the first time or anew, and fail once all have failed (gRPC's
    /// `wait-for-ready.md`).
    pub fn wait_for_ready(mut self, yes: bool) -> Self {
        self.wait_for_ready = yes;
        self
    }

    /// For how long calls that do not [wait for readiness](Self::wait_for_ready) wait while endpoints connect, or while
    /// discovery has not answered. If there was no endpoint to be picked for that long, those that wait fail, and new ones
    /// fail at once, with the reason, until there is one. Default 3 s, as linkerd's; more than 0, at most a year.
    pub fn fail_fast_after(mut self, time: Duration) -> Self {
        self.fail_fast_after = time;
        self
    }

    /// Calls of this channel that may wait at once for an endpoint to be ready, each attempt of a [hedged](Self::hedge) call
    /// counted. One more fails at once, with `UNAVAILABLE` ([`Error::is_pool_wait`](crate::Error::is_pool_wait)), and is
    /// not repeated. Default 10,000, which hold some tens of MiB beside their requests; at least 1. (Envoy's
    /// `max_pending_requests` is 1,024 for each cluster and priority.)
    pub fn max_waiting(mut self, calls: usize) -> Self {
        self.max_waiting = calls;
        self
    }

    /// How long [`connect`](Self::connect) waits for the first ready endpoint. Default 5 s; more than 0, at
    /// most a year.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.ready_timeout = timeout;
        self
    }
}
