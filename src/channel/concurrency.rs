//! How many calls may be in flight at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tonic::Code;

use crate::balance::{self, InFlight, Load};
use crate::error::{Error, Kind, Stage};
use crate::time::Instant;

/// How many calls may be in flight at once, and how many may wait for their turn. Default: no limits.
///
/// A call counts from the moment when it is given to an endpoint to the end of its response's body; each attempt counts. An
/// endpoint at its limit is passed over while another one has room. If none has, or the channel is at its limit, calls wait
/// in their order, under their deadline. (Envoy's circuit breakers `max_requests` and `max_pending_requests`.)
///
/// The limits are those of one channel: what others send to the same endpoints is not seen.
#[derive(Clone, Debug)]
#[must_use]
pub struct ConcurrencyLimits {
    per_endpoint: Option<u32>,
    per_channel: Option<u32>,
    max_waiting: usize,
    wait_timeout: Duration,
}

const MAX_TIME: Duration = Duration::from_secs(366 * 24 * 60 * 60);
const MAX_CALLS: u32 = 1_000_000;

impl Default for ConcurrencyLimits {
    fn default() -> Self {
        Self::new()
    }
}

impl ConcurrencyLimits {
    /// No limits.
    pub fn new() -> Self {
        Self {
            per_endpoint: None,
            per_channel: None,
            max_waiting: 1024,
            wait_timeout: Duration::from_secs(5),
        }
    }

    /// Calls in flight at each endpoint. Default no limit; from 1 to a million.
    pub fn per_endpoint(mut self, calls: u32) -> Self {
        self.per_endpoint = Some(calls);
        self
    }

    /// Calls in flight on the channel. Default no limit; from 1 to a million.
    pub fn per_channel(mut self, calls: u32) -> Self {
        self.per_channel = Some(calls);
        self
    }

    /// Calls that may wait for one of the limits. One more fails at once, with `UNAVAILABLE`, and is not repeated. Default
    /// 1,024 (Envoy's); 0 for none.
    pub fn max_waiting(mut self, calls: usize) -> Self {
        self.max_waiting = calls;
        self
    }

    /// For how long a call may wait for each of the limits, whatever its deadline. Default 5 s; more than 0, at most a year.
    pub fn wait_timeout(mut self, timeout: Duration) -> Self {
        self.wait_timeout = timeout;
        self
    }

    /// # Errors
    ///
    /// A configuration error that names the field.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        for (field, calls) in [
            ("concurrency.per_endpoint", self.per_endpoint),
            ("concurrency.per_channel", self.per_channel),
        ] {
            if calls.is_some_and(|calls| !(1..=MAX_CALLS).contains(&calls)) {
                return Err(Error::config(field, "must be from 1 to a million"));
            }
        }
        if self.wait_timeout.is_zero() || self.wait_timeout > MAX_TIME {
            let problem = "must be more than 0 and at most a year";
            return Err(Error::config("concurrency.wait_timeout", problem));
        }
        Ok(())
    }
}

/// What calls pass through where there are limits.
#[derive(Debug)]
pub(crate) struct Concurrency {
    limits: ConcurrencyLimits,
    channel: Option<Arc<Semaphore>>,
    /// Held by the one call that looks for room at the endpoints; the others that wait stand behind it, in their order.
    turn: Semaphore,
    /// Told when a call at an endpoint has ended.
    freed: Notify,
    waiting: AtomicUsize,
}

/// A place in the queue.
struct Place<'a>(&'a Concurrency);

/// The turn to look for room.
pub(super) struct Turn<'a> {
    /// Until when.
    pub(super) until: Instant,
    _turn: Option<SemaphorePermit<'a>>,
    _place: Place<'a>,
}

/// A call at an endpoint, and its part of the limits. In this order: who is told of room must find it.
#[derive(Debug)]
pub(in crate::channel) struct Reserved {
    _in_flight: InFlight,
    _limited: Option<(balance::Place, Freed)>,
}

#[derive(Debug)]
struct Freed(Arc<Concurrency>);

impl Drop for Freed {
    fn drop(&mut self) {
        self.0.freed.notify_one();
    }
}

impl Reserved {
    /// `None` if the endpoint is at its limit.
    pub(super) fn at(load: &Arc<Load>, limits: Option<&Arc<Concurrency>>) -> Option<Self> {
        let limited = match limits.and_then(|it| Some((it, it.limits.per_endpoint?))) {
            None => None,
            Some((limits, most)) => Some((load.take_place(most)?, Freed(Arc::clone(limits)))),
        };
        Some(Self {
            _in_flight: load.begin(),
            _limited: limited,
        })
    }
}

impl Concurrency {
    pub(crate) fn new(limits: ConcurrencyLimits) -> Arc<Self> {
        Arc::new(Self {
            channel: limits
                .per_channel
                .map(|calls| Arc::new(Semaphore::new(calls as usize))),
            limits,
            turn: Semaphore::new(1),
            freed: Notify::new(),
            waiting: AtomicUsize::new(0),
        })
    }

    /// A call's part of the channel's limit.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue and nothing else.
    pub(super) async fn enter(&self) -> Result<Option<OwnedSemaphorePermit>, Error> {
        let Some(channel) = &self.channel else {
            return Ok(None);
        };
        // Fails while others wait: what becomes free goes to them.
        if let Ok(permit) = Arc::clone(channel).try_acquire_owned() {
            return Ok(Some(permit));
        }
        let _place = self.place()?;
        let permit = Arc::clone(channel).acquire_owned();
        match tokio::time::timeout(self.limits.wait_timeout, permit).await {
            Ok(permit) => Ok(permit.ok()),
            Err(_) => Err(self.timed_out("concurrency.per_channel")),
        }
    }

    /// Calls in flight at each endpoint.
    pub(super) fn per_endpoint(&self) -> Option<u32> {
        self.limits.per_endpoint
    }

    /// Whether others wait for room at an endpoint: whoever comes now stands behind them.
    pub(super) fn has_queue(&self) -> bool {
        self.turn.available_permits() == 0
    }

    /// Waits for the turn to look for room at the endpoints.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue and nothing else.
    pub(super) async fn queue(&self) -> Result<Turn<'_>, Error> {
        let place = self.place()?;
        let until = Instant::now() + self.limits.wait_timeout;
        match tokio::time::timeout_at(until, self.turn.acquire()).await {
            Ok(turn) => Ok(Turn {
                until,
                _turn: turn.ok(),
                _place: place,
            }),
            Err(_) => Err(self.timed_out("concurrency.per_endpoint")),
        }
    }

    /// Waits until a call at an endpoint has ended. Whoever looks for room makes this first, and misses none.
    pub(super) fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    fn place(&self) -> Result<Place<'_>, Error> {
        let place = Place(self);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.limits.max_waiting {
            let message = "too many calls are waiting for room (concurrency.max_waiting)";
            return Err(error(message.to_owned()));
        }
        Ok(place)
    }

    pub(super) fn timed_out(&self, limit: &str) -> Error {
        let time = self.limits.wait_timeout;
        error(format!(
            "no room under {limit} within {time:?} (concurrency.wait_timeout)"
        ))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

fn error(message: String) -> Error {
    Error::new(Kind::PoolWait, Code::Unavailable, message).in_stage(Stage::Pool)
}
