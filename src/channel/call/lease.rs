//! From a call to a slot: which endpoint, and the wait for it.

use std::sync::Arc;
use std::time::Duration;

use tonic::Code;

use crate::balance::InFlight;
use crate::endpoint::{Choice, Subchannel, Trial};
use crate::error::{Error, Kind, Stage};
use crate::pool::{Lease, LeaseError};

use super::super::first_message::FirstMessage;
use super::{Call, Waiting};

/// The right to a stream, and to be the only call there if the endpoint has to prove itself.
pub(in crate::channel) struct Slot {
    pub(in crate::channel) lease: Lease,
    /// It counts as in flight until it has ended, from the moment when it was given to the endpoint.
    pub(in crate::channel) _in_flight: InFlight,
    pub(in crate::channel) _trial: Option<Trial>,
    /// Until the response has a message.
    pub(in crate::channel) first: Option<FirstMessage>,
}

impl Call {
    /// Only picks an endpoint and leases a slot of it, under the deadline.
    pub(in crate::channel) async fn lease_only(mut self) -> Result<(Arc<Subchannel>, Slot), Error> {
        match &self.settings.limit {
            None => self.lease().await,
            Some(limit) => {
                let deadline = limit.deadline.instant();
                let leased = tokio::time::timeout_at(deadline, self.lease()).await;
                leased.unwrap_or_else(|_| Err(self.deadline_passed()))
            }
        }
    }

    /// How long the endpoint takes to answer of late that another attempt would go to, were it made now.
    pub(super) fn next_takes(&self, tried: &[u64], now: Duration) -> Option<Duration> {
        let request = self
            .head
            .pick_request(&self.extensions)
            .with_attempt(self.past.attempts + 1)
            .at(now);
        let set = self.inner.directory.set();
        set.next(&request, tried)?.load.recent_median(now)
    }

    /// Picks an endpoint, and waits for a slot of it. An endpoint that turns out not to be ready costs no attempt.
    pub(super) async fn lease(&mut self) -> Result<(Arc<Subchannel>, Slot), Error> {
        let directory = Arc::clone(&self.inner.directory);
        // Endpoints of one set that can't be used although the set says so: it is about to change. In the next
        // set they may be ready again; a call that still held them unready there would wait for one more change.
        let mut unready = Vec::new();
        let mut unready_in = 0;
        // Said of the one before, if its queue was full: no set will change that.
        let mut full = None;
        loop {
            self.waiting = Waiting::ForEndpoint;
            if let Some(leg) = &self.leg {
                self.tried = leg.tried();
            }
            let (version, choice) = {
                let set = directory.set();
                if set.version != unready_in {
                    unready.clear();
                    unready_in = set.version;
                }
                let request = self
                    .head
                    .pick_request(&self.extensions)
                    .with_attempt(self.past.attempts)
                    .at(self.inner.age(self.past.began()));
                (set.version, set.pick(&request, &self.tried, &unready))
            };
            match (choice, full.take()) {
                (Choice::Use(subchannel, trial), _) => {
                    self.waiting = Waiting::ForStream;
                    self.endpoint = Some(Arc::clone(&subchannel));
                    if let Some(leg) = &self.leg {
                        leg.picked(&subchannel);
                    }
                    let in_flight = subchannel.load.begin();
                    let first = self.inner.first_message(&subchannel);
                    match subchannel.pool.lease().await {
                        Ok(lease) => {
                            return Ok((
                                subchannel,
                                Slot {
                                    lease,
                                    _in_flight: in_flight,
                                    _trial: trial,
                                    first,
                                },
                            ));
                        }
                        Err(LeaseError::Unready) => unready.push(subchannel.identity),
                        Err(error @ LeaseError::QueueFull) => {
                            unready.push(subchannel.identity);
                            full = Some(pool_error(error, &subchannel));
                        }
                        Err(error) => return Err(pool_error(error, &subchannel)),
                    }
                }
                (Choice::OnTrial(identity), last) => {
                    unready.push(identity);
                    full = last;
                }
                (Choice::Drop(error), _) => return Err(error),
                (Choice::Fail(_) | Choice::Wait, Some(full)) => return Err(full),
                (Choice::Fail(error), _) if !self.settings.wait_for_ready => return Err(error),
                (Choice::Fail(error), _) => {
                    self.last_error = Some(error);
                    directory.newer_than(version).await;
                }
                (Choice::Wait, _) => directory.newer_than(version).await,
            }
        }
    }
}

fn pool_error(error: LeaseError, subchannel: &Subchannel) -> Error {
    let message = match error {
        LeaseError::QueueFull => "too many calls are waiting for a free stream (pool.max_waiting)",
        LeaseError::TimedOut => "no stream became free in time (pool.wait_timeout)",
        LeaseError::Unready => "no connection is open",
    };
    Error::new(Kind::PoolWait, Code::Unavailable, message)
        .in_stage(Stage::Pool)
        .at(&subchannel.name)
}
