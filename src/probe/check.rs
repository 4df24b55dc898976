//! Health checks, as users set them.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;

use crate::error::Error;
use crate::health::{Influence, Thresholds};

use super::Probe;

/// How endpoints are asked whether they are well.
///
/// They are asked over the connections that their calls use, with at most one stream each. An endpoint gets its first
/// call once it has answered for the first time, or the [time](Self::timeout) for that is over. After that:
///
/// - A server that says that it does not serve gets no more calls at once; other failures count after
///   [three](Self::unhealthy_threshold) in a row.
/// - It gets calls again after [two](Self::healthy_threshold) good answers, and when it has been well for
///   [1 s](Self::min_healthy_time); that time doubles each time it falls ill, up to 60 s, and is forgotten once it has been
///   well for so long.
/// - A probe without any answer in its time, or whose answer breaks off, does not count while calls are answered: it is
///   the health service that is stuck or gone, then, and not the server.
/// - A server without a health service is well (gRFC A17), and is asked again after thirty [intervals](Self::interval)
///   or on a new connection; one that does not let this client ask is well, too. The log says so once.
///
/// What is asked is no call: it does not count as one in flight, no limit on calls holds for it, and
/// [`close`](crate::Channel::close) does not wait for it. The connection over which a server tells of its health stays
/// open, also with [`min_connections(0)`](crate::PoolOptions::min_connections). An endpoint that is asked in another way falls
/// idle with that setting when calls pause for some seconds. It is not asked then: the next call opens a connection, and
/// goes by the last answer.
///
/// Frozen servers and networks are found by [`Keepalive`](crate::Keepalive) and by calls that have no answer in their
/// time; a watched server that freezes says nothing.
///
/// ```
/// use std::time::Duration;
/// use trunkline::{Connector, HealthCheck};
///
/// let connector = Connector::tcp("server1.internal:50051")
///     .health_check(HealthCheck::grpc().service("payments").interval(Duration::from_secs(5)));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct HealthCheck {
    pub(super) kind: Kind,
    pub(super) service: String,
    pub(super) interval: Duration,
    pub(super) unhealthy_interval: Duration,
    pub(super) timeout: Duration,
    thresholds: Thresholds,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// `grpc.health.v1.Health/Watch`, else `Check`.
    Watch,
    /// `grpc.health.v1.Health/Check`.
    Check,
    Tcp,
    Http(String),
    Custom(Arc<dyn Probe>),
}

/// Intervals are varied by up to this share, so that clients do not fall into step.
pub(super) const JITTER: f64 = 0.1;

/// Shorter intervals are a load, not a check.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How many intervals a server without a health service is left alone for. A policy of its own: Envoy takes the answer for a
/// failure and goes on asking; grpc-go does not ask again on the same connection.
const RARELY: u32 = 30;

impl HealthCheck {
    /// gRPC's health service, `grpc.health.v1.Health`: the server tells by itself when its health changes (`Watch`), over
    /// one stream that stays open. Servers that can't do that, or allow fewer than four streams, are asked again and
    /// again (`Check`).
    pub fn grpc() -> Self {
        Self::new(Kind::Watch)
    }

    /// The same, by asking again and again only.
    pub fn grpc_check() -> Self {
        Self::new(Kind::Check)
    }

    /// Whether a new connection can be opened; it is closed at once. The one probe that does not use the connections of
    /// calls. It shows that something listens, and no more; a Unix socket must also be what
    /// [`UnixOptions`](crate::UnixOptions) ask for.
    pub fn tcp() -> Self {
        Self::new(Kind::Tcp)
    }

    /// An HTTP/2 `GET` of this path, answered with a status from 200 to 299 and without a gRPC error: gRPC servers answer
    /// with 200 to paths that they do not know, too.
    pub fn http(path: impl Into<String>) -> Self {
        Self::new(Kind::Http(path.into()))
    }

    /// A question of your own. One that panics has failed.
    pub fn custom(probe: impl Probe) -> Self {
        Self::new(Kind::Custom(Arc::new(probe)))
    }

    fn new(kind: Kind) -> Self {
        Self {
            kind,
            service: String::new(),
            interval: Duration::from_secs(10),
            unhealthy_interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            thresholds: Thresholds::default(),
        }
    }

    /// The service whose health is asked for, as the server has registered it. Default: the empty name, which is the
    /// server as a whole. An endpoint's own name ([`Endpoint::health_service`](crate::Endpoint::health_service)) goes
    /// before it. Of gRPC's health service only.
    ///
    /// A server that does not know the name counts as one that does not serve (gRFC A17). Where that is all of them, as with a
    /// name that is misspelt, they get calls all the same ([`Health::Tolerated`](crate::Health::Tolerated)), and the status
    /// says why.
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.service = name.into();
        self
    }

    /// How often a healthy endpoint is asked, varied by a tenth. Default 10 s; from 100 ms to a day.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// The same for one that is not healthy, or about to become so. Default 2 s; from 100 ms to a day. Where it is
    /// longer than [`interval`](Self::interval), that counts.
    pub fn unhealthy_interval(mut self, interval: Duration) -> Self {
        self.unhealthy_interval = interval;
        self
    }

    /// How long an answer may take. Default 1 s; more than 0, at most a day.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Failures in a row until it is unhealthy. Default 3; at least 1. A server's own word that it does not serve needs no
    /// second one.
    pub fn unhealthy_threshold(mut self, failures: u32) -> Self {
        self.thresholds.unhealthy = failures;
        self
    }

    /// Good answers in a row until it is healthy again. Default 2; at least 1. Of a server that tells by itself, one is
    /// enough.
    pub fn healthy_threshold(mut self, answers: u32) -> Self {
        self.thresholds.healthy = answers;
        self
    }

    /// How long it must have been well before it gets calls again, the first time and at most: the time doubles with each
    /// time that it falls ill before it was well for the longest time. Default 1 s and 60 s; from 0 to a day.
    pub fn min_healthy_time(mut self, first: Duration, longest: Duration) -> Self {
        self.thresholds.min_healthy = first;
        self.thresholds.max_min_healthy = longest;
        self
    }

    /// What it does to the endpoint. Default [`Influence::Veto`].
    pub fn influence(mut self, influence: Influence) -> Self {
        self.thresholds.influence = influence;
        self
    }

    pub(crate) fn thresholds(&self) -> Thresholds {
        self.thresholds.clone()
    }

    /// # Errors
    ///
    /// A configuration error that names the field.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        for (field, time) in [
            ("health_check.interval", self.interval),
            ("health_check.unhealthy_interval", self.unhealthy_interval),
        ] {
            if time < SHORTEST || time > LONGEST {
                return Err(Error::config(field, "must be from 100 ms to a day"));
            }
        }
        if self.timeout.is_zero() || self.timeout > LONGEST {
            let problem = "must be more than 0 and at most a day";
            return Err(Error::config("health_check.timeout", problem));
        }
        if self.service.len() > 1024 || self.service.chars().any(char::is_control) {
            let problem = "must have at most 1,024 bytes and no control characters";
            return Err(Error::config("health_check.service", problem));
        }
        if let Kind::Http(path) = &self.kind
            && !(path.starts_with('/') && PathAndQuery::try_from(path.as_str()).is_ok())
        {
            let problem = format!("{path:?} is no path; write one like /healthz");
            return Err(Error::config("health_check.http", problem));
        }
        self.thresholds.validate()
    }

    /// The time from one probe to the next.
    pub(super) fn pause(&self, undecided: bool, random: f64) -> Duration {
        let interval = match undecided {
            true => self.unhealthy_interval.min(self.interval),
            false => self.interval,
        };
        vary(interval, random)
    }

    /// The time until a server without a health service is asked again.
    pub(super) fn rarely(&self, random: f64) -> Duration {
        vary(self.interval.saturating_mul(RARELY), random)
    }
}

fn vary(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(1.0 + JITTER * (2.0 * random - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// Whether these are the pauses with the least and the most jitter, to a microsecond.
    fn spans(pause: impl Fn(f64) -> Duration, least: f64, most: f64) -> bool {
        let near = |a: Duration, b: Duration| a.abs_diff(b) < Duration::from_micros(1);
        near(pause(0.0), secs(least)) && near(pause(1.0), secs(most))
    }

    #[test]
    fn pauses_vary_by_a_tenth_and_are_shorter_while_it_is_undecided() {
        let check = HealthCheck::grpc()
            .interval(secs(10.0))
            .unhealthy_interval(secs(2.0));
        assert!(spans(|random| check.pause(false, random), 9.0, 11.0));
        assert!(spans(|random| check.pause(true, random), 1.8, 2.2));
        // Nobody wants what is ill asked less often.
        let check = check.unhealthy_interval(secs(60.0));
        assert!(spans(|random| check.pause(true, random), 9.0, 11.0));
        assert!(spans(|random| check.rarely(random), 270.0, 330.0));
    }
}
