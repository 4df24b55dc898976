//! Checks the settings, and starts the channel.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::Notify;
use tonic::Code;

use crate::balance::Policy as _;
use crate::channel::{CallDefaults, Channel, Concurrency, Parts};
use crate::deadline::format_timeout;
use crate::directory::{Directory, Origin};
use crate::endpoint::{Endpoint, Key};
use crate::error::{Error, Kind, Stage};
use crate::health::Rules;
use crate::pool::{DialGate, PoolContext, State};
use crate::probe::{self, HealthCheck};
use crate::retry::{Hedge, Hedging, Policies, validate_method_name};
use crate::task::Tasks;
use crate::token::TokenHolder;
use crate::transport::dial::SocketDialer;
use crate::transport::security::TlsSettings;

use super::Connector;
use super::builder::Source;

/// More endpoints than this in one list is a mistake.
const MAX_ENDPOINTS: usize = 65_536;
const MAX_TIME: Duration = Duration::from_secs(366 * 24 * 60 * 60);

impl Connector {
    /// Starts the channel, and waits until an endpoint is ready.
    ///
    /// # Errors
    ///
    /// If a setting is wrong, outside a tokio runtime, or if no endpoint became ready within
    /// [`ready_timeout`](Self::ready_timeout): then the error says what happened at each.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes what it opened.
    pub async fn connect(self) -> Result<Channel, Error> {
        let limit = self.ready_timeout;
        let channel = self.connect_lazy()?;
        let mut state = channel.watch_state();
        let ready = state.wait_for(|state| matches!(state, State::Ready | State::Shutdown));
        match tokio::time::timeout(limit, ready).await {
            Ok(Ok(state)) if *state == State::Ready => {}
            Ok(_) => {
                let why = channel.directory().set().why_not_ready();
                let error = Error::new(Kind::Closed, Code::Unavailable, why);
                return Err(error.in_stage(Stage::Connect));
            }
            Err(_) => return Err(not_ready(&channel, limit)),
        }
        drop(state);
        Ok(channel)
    }

    /// Starts the channel, and does not wait: calls do, while endpoints connect.
    ///
    /// # Errors
    ///
    /// If a setting is wrong, or outside a tokio runtime.
    pub fn connect_lazy(self) -> Result<Channel, Error> {
        let connector = Self {
            source: self.source.resolved(),
            ..self
        };
        let keys = connector.validate()?;
        connector.start(keys)
    }

    /// `keys` are those of the fixed list.
    fn start(self, keys: Vec<Key>) -> Result<Channel, Error> {
        let tasks = Tasks::new()?;
        let tls = self.tls_settings(&keys, &tasks)?;
        let rules = Arc::new(Rules {
            breaker: self.breaker,
            outliers: self.outliers,
            probes: self.health_check.as_ref().map(HealthCheck::thresholds),
            discovery: self.discovery_influence,
            overload: self.overload_influence,
            limits: self.limits,
            slow_start: self.slow_start,
        });
        let tls_of_channel = tls.clone();
        let context = PoolContext {
            options: self.pool,
            http2: self.http2,
            keepalive: self.keepalive,
            dialer: self
                .dialer
                .unwrap_or_else(|| Arc::new(SocketDialer::new().tcp(self.tcp))),
            unix: self.unix,
            tasks: tasks.clone(),
            flips: Arc::new(Notify::new()),
            gate: DialGate::default(),
            tls,
        };
        let token = self
            .credentials
            .map(|it| TokenHolder::new(it, tasks.clone()));
        let needs_all = self.balance.needs_all();
        let subset = self.subset.filter(|it| it.is_asked_for() || !needs_all);
        let origin = match self.source {
            Source::Fixed(_) => Origin::Fixed(keys),
            #[cfg(feature = "consul")]
            Source::Consul(source) => Origin::Discovered(source),
            Source::Discover(source) => Origin::Discovered(source),
        };
        let directory = Directory::start(origin, self.balance, subset.as_ref(), context, rules);
        if let Some(check) = self.health_check {
            let means = probe::Means::new(check, token.clone(), tasks.clone());
            tasks.spawn(probe::watch_over(Arc::clone(&directory), means));
        }
        Ok(Channel::new(Parts {
            directory,
            token,
            tasks,
            tls: tls_of_channel,
            hedging: hedging(self.hedge, self.hedge_for),
            retry: Policies::new(self.retry, self.retry_for),
            budget: self.retry_budget,
            defaults: CallDefaults {
                timeout: self.timeout,
                timeout_header: self
                    .timeout
                    .and_then(|timeout| HeaderValue::try_from(format_timeout(timeout)).ok()),
                wait_for_ready: self.wait_for_ready,
                fail_fast_after: self.fail_fast_after,
                max_waiting: self.max_waiting,
            },
            concurrency: self.concurrency.map(Concurrency::new),
        }))
    }

    /// The TLS options, read and checked.
    #[cfg(feature = "__tls")]
    fn tls_settings(&self, keys: &[Key], tasks: &Tasks) -> Result<TlsSettings, Error> {
        let tls = TlsSettings::new(self.tls.clone());
        tls.load(tasks)?;
        for key in keys {
            tls.validate(key.address(), key.security(), tasks)?;
        }
        Ok(tls)
    }

    #[cfg(not(feature = "__tls"))]
    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "as its other form"
    )]
    fn tls_settings(&self, _: &[Key], _: &Tasks) -> Result<TlsSettings, Error> {
        Ok(TlsSettings::default())
    }

    /// Checks everything. Gives the keys of a fixed list: of ten thousand endpoints they take milliseconds to make, so they
    /// are made once.
    fn validate(&self) -> Result<Vec<Key>, Error> {
        let mut keys = Vec::new();
        match &self.source {
            Source::Fixed(endpoints) => keys = self.validate_endpoints(endpoints)?,
            #[cfg(feature = "consul")]
            Source::Consul(consul) => consul.validate()?,
            Source::Discover(source) => source.outage().validate("outage")?,
        }
        self.validate_options()?;
        Ok(keys)
    }

    fn validate_options(&self) -> Result<(), Error> {
        if let Some(subset) = &self.subset {
            subset.validate()?;
        }
        self.validate_retry()?;
        self.validate_hedging()?;
        if let Some(credentials) = &self.credentials {
            credentials.validate()?;
        }
        if let Some(check) = &self.health_check {
            check.validate()?;
        }
        if let Some(breaker) = &self.breaker {
            breaker.validate()?;
        }
        if let Some(outliers) = &self.outliers {
            outliers.validate()?;
        }
        self.discovery_influence.validate("discovery")?;
        self.overload_influence.validate_mild("overload")?;
        self.limits.validate()?;
        if let Some(slow_start) = &self.slow_start {
            slow_start.validate()?;
        }
        if let Some(concurrency) = &self.concurrency {
            concurrency.validate()?;
        }
        self.pool.validate()?;
        self.http2.validate()?;
        self.keepalive.validate()?;
        self.tcp
            .validate()
            .map_err(|(field, problem)| Error::config(&format!("tcp.{field}"), problem))?;
        self.unix
            .validate()
            .map_err(|(field, problem)| Error::config(&format!("unix.{field}"), problem))?;
        time("ready_timeout", self.ready_timeout)?;
        time("fail_fast_after", self.fail_fast_after)?;
        if self.max_waiting == 0 || self.max_waiting > tokio::sync::Semaphore::MAX_PERMITS {
            return Err(Error::config(
                "max_waiting",
                "must be at least 1 and below 2^60",
            ));
        }
        let Some(timeout) = self.timeout else {
            return Ok(());
        };
        time("timeout", timeout)?;
        self.pool.validate_under(timeout)
    }

    fn validate_retry(&self) -> Result<(), Error> {
        self.retry_budget.validate("retry_budget")?;
        let named = self.retry_for.iter().map(|(name, retry)| {
            validate_method_name("retry_for", name)?;
            Ok((format!("retry_for({name:?})"), retry))
        });
        for policy in std::iter::once(Ok(("retry".to_owned(), &self.retry))).chain(named) {
            let (field, retry) = policy?;
            retry.validate(&field)?;
            if let Some(timeout) = self.timeout {
                retry.validate_under(&field, timeout)?;
            }
        }
        Ok(())
    }

    fn validate_hedging(&self) -> Result<(), Error> {
        self.hedge.validate("hedge")?;
        for (name, hedge) in &self.hedge_for {
            validate_method_name("hedge_for", name)?;
            hedge.validate(&format!("hedge_for({name:?})"))?;
        }
        Ok(())
    }

    fn validate_endpoints(&self, endpoints: &[Endpoint]) -> Result<Vec<Key>, Error> {
        if endpoints.is_empty() {
            return Err(Error::config(
                "endpoints",
                "the list is empty; name at least one",
            ));
        }
        if endpoints.len() > MAX_ENDPOINTS {
            let problem = format!("{} are too many; at most {MAX_ENDPOINTS}", endpoints.len());
            return Err(Error::config("endpoints", problem));
        }
        let keys: Result<Vec<_>, _> = endpoints.iter().map(Endpoint::key).collect();
        let keys = keys?;
        let mut seen = HashSet::with_capacity(keys.len());
        for key in &keys {
            if !seen.insert(key) {
                let endpoint = key.endpoint();
                let problem = format!("{endpoint} is given twice; give it once, with a weight");
                return Err(Error::config("endpoints", problem));
            }
        }
        if endpoints
            .iter()
            .all(|endpoint| endpoint.weight_or_default() == 0)
        {
            let problem = "all are 0, so no endpoint would get a call; give one a weight";
            return Err(Error::config("endpoints.weight", problem));
        }
        let weighted = endpoints.iter().any(Endpoint::has_weight);
        if self.balance.needs_weights() && !weighted {
            let problem = format!(
                "{} needs weights, and no endpoint has one; give them weights or use round robin",
                self.balance.name()
            );
            return Err(Error::config("balance", problem));
        }
        if weighted && !self.balance.uses_weights() {
            tracing::warn!(
                policy = self.balance.name(),
                "endpoint weights have no effect"
            );
        }
        Ok(keys)
    }
}

/// Nothing where no method's calls are hedged.
fn hedging(default: Hedge, named: HashMap<String, Hedge>) -> Option<Policies<Hedging>> {
    let mut all = std::iter::once(&default).chain(named.values());
    all.any(|it| *it != Hedge::none()).then(|| {
        let named = named.into_iter();
        let named = named.map(|(name, hedge)| (name, Hedging::new(hedge)));
        Policies::new(Hedging::new(default), named.collect())
    })
}

fn time(field: &str, time: Duration) -> Result<(), Error> {
    if time.is_zero() || time > MAX_TIME {
        let problem = format!("{time:?} must be more than 0 and at most a year");
        return Err(Error::config(field, problem));
    }
    Ok(())
}

/// Why `connect` gave up.
fn not_ready(channel: &Channel, limit: Duration) -> Error {
    let directory = channel.directory();
    let news = directory.news();
    let detail = match (news.answered, news.error) {
        (None, None) => format!("{} has not answered", directory.source),
        _ => directory.set().why_not_ready(),
    };
    let message = format!("no endpoint was ready within {limit:?}: {detail}");
    let stage = directory.set().failed_stage().unwrap_or(Stage::Connect);
    Error::new(Kind::Timeout, Code::Unavailable, message).in_stage(stage)
}
