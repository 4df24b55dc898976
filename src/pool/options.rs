//! The pool's settings.

use std::time::Duration;

use crate::error::Error;
use crate::retry::Backoff;

/// How many connections each endpoint gets, how long they live, and how calls wait for them.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    pub(super) min: usize,
    pub(super) max: usize,
    pub(super) max_waiting: usize,
    pub(super) wait_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) max_age: Option<Duration>,
    /// `None`: the default.
    tcp_timeout: Option<Duration>,
    unix_timeout: Option<Duration>,
    pub(super) backoff: Backoff,
}

/// ±10 %, as gRPC servers spread their maximum connection age (gRFC A9).
pub(super) const AGE_JITTER: f64 = 0.1;
/// A connection that lived this long proves that the endpoint works: its dialling backoff starts anew.
pub(super) const PROVEN_AFTER: Duration = Duration::from_secs(1);

const TCP_TIMEOUT: Duration = Duration::from_secs(1);
const UNIX_TIMEOUT: Duration = Duration::from_millis(250);
const MAX_TIME: Duration = Duration::from_secs(366 * 24 * 60 * 60);

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            min: 1,
            max: 4,
            max_waiting: 1024,
            wait_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(5 * 60),
            max_age: None,
            tcp_timeout: None,
            unix_timeout: None,
            backoff: Backoff::dialling(),
        }
    }
}

impl PoolOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Connections that are opened at once and kept open. Default 1; 0 to [`max_connections`].
    ///
    /// With 0 an endpoint is still dialled once, to see that it is there, but its last connection may be
    /// closed when idle; the next call opens one.
    ///
    /// [`max_connections`]: Self::max_connections
    #[must_use]
    pub fn min_connections(mut self, connections: usize) -> Self {
        self.min = connections;
        self
    }

    /// Connections that an endpoint has at most. Default 4; 1 to 1,024. One more is opened only when calls
    /// wait because all streams of the others are taken (gRFC A105).
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max = connections;
        self
    }

    /// Calls that may wait for a stream of one endpoint. Default 1,024; at least 1. The next one goes to another
    /// endpoint, and fails at once if there is none ([`Error::is_pool_wait`]).
    #[must_use]
    pub fn max_waiting(mut self, calls: usize) -> Self {
        self.max_waiting = calls;
        self
    }

    /// How long a call waits for a stream before it fails ([`Error::is_pool_wait`]). Default 5 s; the call's
    /// deadline limits it too. More than 0, at most a year.
    #[must_use]
    pub fn wait_timeout(mut self, timeout: Duration) -> Self {
        self.wait_timeout = timeout;
        self
    }

    /// How long a connection above the minimum may be without calls before it is closed. Default 5 min; more
    /// than 0, at most a year.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// How old a connection may grow, ±10 %. Its replacement is connected before it takes its last call, and
    /// its calls finish. Default unlimited; more than the connect timeouts, at most a year.
    #[must_use]
    pub fn max_connection_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// One limit over name resolution, TCP connect, HTTP/2 handshake and the peer's SETTINGS, for TCP
    /// endpoints. Default 1 s; more than 0, and at most the calls' default timeout.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.tcp_timeout = Some(timeout);
        self
    }

    /// The same for Unix sockets. Default 250 ms.
    #[must_use]
    pub fn unix_connect_timeout(mut self, timeout: Duration) -> Self {
        self.unix_timeout = Some(timeout);
        self
    }

    /// Delays between failed dials of one endpoint. Default 100 ms × 1.6, at most 30 s, ±20 %. They start
    /// anew only after a connection has lived for 1 s.
    #[must_use]
    pub fn dial_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    pub(super) fn connect_timeout_for(&self, unix: bool) -> Duration {
        if unix {
            self.unix_timeout.unwrap_or(UNIX_TIMEOUT)
        } else {
            self.tcp_timeout.unwrap_or(TCP_TIMEOUT)
        }
    }

    /// How often [`upkeep`](super::upkeep) should look.
    pub(crate) fn upkeep_interval(&self) -> Duration {
        let shortest = self
            .max_age
            .map_or(self.idle_timeout, |age| age.min(self.idle_timeout));
        (shortest / 8).clamp(Duration::from_millis(10), Duration::from_secs(10))
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        if !(1..=1024).contains(&self.max) {
            return Err(Error::config("pool.max_connections", "must be 1 to 1,024"));
        }
        if self.min > self.max {
            let problem = format!("{} is above max_connections ({})", self.min, self.max);
            return Err(Error::config("pool.min_connections", problem));
        }
        if self.max_waiting == 0 || self.max_waiting > tokio::sync::Semaphore::MAX_PERMITS {
            return Err(Error::config(
                "pool.max_waiting",
                "must be at least 1 and below 2^60",
            ));
        }
        for (field, time) in [
            ("pool.wait_timeout", self.wait_timeout),
            ("pool.idle_timeout", self.idle_timeout),
            ("pool.connect_timeout", self.connect_timeout_for(false)),
            ("pool.unix_connect_timeout", self.connect_timeout_for(true)),
            ("pool.max_connection_age", self.max_age.unwrap_or(MAX_TIME)),
        ] {
            if time.is_zero() || time > MAX_TIME {
                let problem = format!("{time:?} must be more than 0 and at most a year");
                return Err(Error::config(field, problem));
            }
        }
        let connect = self
            .connect_timeout_for(false)
            .max(self.connect_timeout_for(true));
        if let Some(age) = self.max_age.filter(|age| *age <= connect) {
            let problem = format!("{age:?} must be longer than the connect timeouts");
            return Err(Error::config("pool.max_connection_age", problem));
        }
        self.backoff.validate("pool.dial_backoff")
    }

    /// Calls must have the time to connect. The defaults give way to a shorter timeout of calls.
    pub(crate) fn validate_under(&self, call_timeout: Duration) -> Result<(), Error> {
        for (field, time) in [
            ("pool.connect_timeout", self.tcp_timeout),
            ("pool.unix_connect_timeout", self.unix_timeout),
        ] {
            if let Some(time) = time.filter(|time| *time > call_timeout) {
                let problem =
                    format!("{time:?} is longer than the calls' timeout ({call_timeout:?})");
                return Err(Error::config(field, problem));
            }
        }
        Ok(())
    }
}
