//! PING keepalive after gRFC A8 and A9.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::Sleep;

use crate::error::Error;
use crate::time::Instant;

/// Whether connections are probed with HTTP/2 PINGs, and how.
///
/// Off by default: a server that does not expect PINGs closes the connection (gRPC servers accept one in five
/// minutes). Unix sockets are never probed unless asked for with [`on_unix_sockets`](Self::on_unix_sockets):
/// the kernel reports a dead peer by itself there; only a frozen one goes unnoticed.
///
/// When a server answers with `too_many_pings`, the interval of that endpoint doubles (gRFC A8).
#[derive(Clone, Debug)]
pub struct Keepalive {
    interval: Option<Duration>,
    timeout: Duration,
    while_idle: bool,
    unix: bool,
    frequent: bool,
}

/// The shortest interval without the opt-in (gRFC A8).
const MIN_INTERVAL: Duration = Duration::from_secs(10);
const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Keepalive {
    fn default() -> Self {
        Self::off()
    }
}

impl Keepalive {
    /// No PINGs. The default.
    #[must_use]
    pub fn off() -> Self {
        Self {
            interval: None,
            timeout: Duration::from_secs(20),
            while_idle: false,
            unix: false,
            frequent: false,
        }
    }

    /// A PING after each `interval` without a byte from the peer, while calls are open. 10 s to 24 h;
    /// shorter ones need [`allow_frequent`](Self::allow_frequent).
    #[must_use]
    pub fn every(interval: Duration) -> Self {
        Self {
            interval: Some(interval),
            ..Self::off()
        }
    }

    /// For networks whose servers you own too: every 30 s, 10 s for the answer, idle connections included.
    #[must_use]
    pub fn trusted_network() -> Self {
        Self::every(Duration::from_secs(30))
            .timeout(Duration::from_secs(10))
            .while_idle(true)
    }

    /// How long to wait for any byte after a PING before the connection is given up. Default 20 s (gRFC A8);
    /// at most 24 h, not zero.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Probe connections without calls too. Default no.
    #[must_use]
    pub fn while_idle(mut self, yes: bool) -> Self {
        self.while_idle = yes;
        self
    }

    /// Probe Unix sockets too: finds frozen servers. Default no.
    #[must_use]
    pub fn on_unix_sockets(mut self, yes: bool) -> Self {
        self.unix = yes;
        self
    }

    /// Allows intervals below 10 s. Only for servers that are set up for it.
    #[must_use]
    pub fn allow_frequent(mut self) -> Self {
        self.frequent = true;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        if let Some(interval) = self.interval {
            if interval < MIN_INTERVAL && !self.frequent {
                let problem = format!(
                    "{interval:?} is below 10 s, and servers close connections for that; \
                     use a longer one, or allow_frequent() if the servers expect it"
                );
                return Err(Error::config("keepalive.interval", problem));
            }
            if interval.is_zero() || interval > MAX_TIME {
                let problem = format!("{interval:?} must be more than 0 and at most 24 h");
                return Err(Error::config("keepalive.interval", problem));
            }
        }
        if self.timeout.is_zero() || self.timeout > MAX_TIME {
            let problem = format!("{:?} must be more than 0 and at most 24 h", self.timeout);
            return Err(Error::config("keepalive.timeout", problem));
        }
        Ok(())
    }
}

/// The keepalive of one endpoint: its connections share what a server's `too_many_pings` taught.
#[derive(Debug)]
pub(crate) struct KeepaliveState {
    options: Keepalive,
    on: bool,
    doublings: AtomicU32,
}

impl KeepaliveState {
    pub(crate) fn new(options: &Keepalive, unix: bool) -> Arc<Self> {
        Arc::new(Self {
            options: options.clone(),
            on: !unix || options.unix,
            doublings: AtomicU32::new(0),
        })
    }

    fn interval(&self, doublings: u32) -> Option<Duration> {
        let factor = 1u32 << doublings.min(16);
        let interval = self.options.interval.filter(|_| self.on)?;
        Some(interval.saturating_mul(factor).min(MAX_TIME))
    }
}

/// The keepalive of one connection, polled by its driver.
#[derive(Debug)]
pub(super) struct Pinger {
    state: Arc<KeepaliveState>,
    /// How often the endpoint's interval had doubled when the connection was made.
    doublings: u32,
    interval: Duration,
    pings: PingPong,
    timer: Pin<Box<Sleep>>,
    last_read: Instant,
    /// A PING is out since `last_read`.
    waiting: bool,
}

impl Pinger {
    /// `None` when keepalive is off for this endpoint.
    pub(super) fn new(state: &Arc<KeepaliveState>, pings: Option<PingPong>) -> Option<Self> {
        let doublings = state.doublings.load(Ordering::Relaxed);
        let interval = state.interval(doublings)?;
        Some(Self {
            state: Arc::clone(state),
            doublings,
            interval,
            pings: pings?,
            timer: Box::pin(tokio::time::sleep(interval)),
            last_read: Instant::now(),
            waiting: false,
        })
    }

    /// The server sent `too_many_pings`: new connections to it get twice this one's interval. Connections that
    /// are told together, or told twice, double it once. Returns the new interval if this changed it.
    pub(super) fn slow_down(&self) -> Option<Duration> {
        let doublings = self.doublings + 1;
        let before = self.state.doublings.fetch_max(doublings, Ordering::Relaxed);
        self.state
            .interval(doublings)
            .filter(|_| before < doublings)
    }

    /// Any byte from the peer is a sign of life.
    pub(super) fn bytes_were_read(&mut self) {
        self.last_read = Instant::now();
        if self.waiting {
            self.waiting = false;
            // Otherwise it would run to the end of the timeout, which may be the longer one.
            self.timer.as_mut().reset(self.last_read + self.interval);
        }
    }

    /// Ready when the peer did not answer in time.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, idle: bool) -> Poll<()> {
        // Takes the answer, so that the next PING may be sent.
        let _ = self.pings.poll_pong(cx);
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.waiting {
                return Poll::Ready(());
            }
            let quiet_until = self.last_read + self.interval;
            let now = Instant::now();
            if now < quiet_until {
                self.timer.as_mut().reset(quiet_until);
            } else if idle && !self.state.options.while_idle {
                self.timer.as_mut().reset(now + self.interval);
            } else {
                // An error means that the last one is still out or the connection is closing; the time limit
                // counts all the same.
                let _ = self.pings.send_ping(Ping::opaque());
                self.waiting = true;
                self.timer.as_mut().reset(now + self.state.options.timeout);
            }
        }
        Poll::Pending
    }
}
