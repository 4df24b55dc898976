//! From a call to a slot: which endpoint, and the wait for it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tonic::Code;

use crate::endpoint::{Choice, Origin, Subchannel, Trial};
use crate::error::{Error, Kind, Stage};
use crate::pool::{Lease, LeaseError};
use crate::time::Instant;

use super::super::concurrency::Reserved;
use super::super::first_message::FirstMessage;
use super::{Call, Waiting};

/// So many endpoints without a free stream are passed over before a call waits for one.
const PASSED_OVER: usize = 4;

/// The right to a stream, and to be the only call there if the endpoint has to prove itself.
pub(in crate::channel) struct Slot {
    pub(in crate::channel) lease: Lease,
    /// It counts as in flight until it has ended, from the moment when it was given to the endpoint.
    pub(in crate::channel) _in_flight: Reserved,
    /// Its part of the channel's limit, if there is one.
    pub(in crate::channel) _admitted: Option<OwnedSemaphorePermit>,
    pub(in crate::channel) _trial: Option<Trial>,
    /// How often the endpoint's breaker had opened when it was leased.
    pub(in crate::channel) openings: u32,
    /// Until the response has a message.
    pub(in crate::channel) first: Option<FirstMessage>,
}

impl Slot {
    pub(in crate::channel) fn origin(&self) -> Origin {
        Origin {
            connection: self.lease.connection_id(),
            openings: self.openings,
        }
    }
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
        let limits = self.inner.concurrency.clone();
        let limits = limits.as_ref();
        let mut admitted = None;
        let mut turn = None;
        // It has to pass the limits first.
        let mut outside = true;
        let per_endpoint = limits.and_then(|it| it.per_endpoint());
        // Endpoints of one set that can't be used although the set says so: it is about to change. In the next
        // set they may be ready again; a call that still held them unready there would wait for one more change.
        let mut unready = Vec::new();
        let mut unready_in = 0;
        // Endpoints of which all streams are taken. They are `unready` while another one may have a free stream.
        let mut busy: Vec<u64> = Vec::new();
        let mut may_pass_over = true;
        // Said of the one before, if its queue was full: no set will change that.
        let mut full = None;
        // From when it first waits for an endpoint to when it has a stream.
        let mut place = None;
        loop {
            if let Some(limits) = limits.filter(|_| std::mem::take(&mut outside)) {
                self.waiting = Waiting::ForRoom;
                admitted = limits.enter().await?;
                if limits.has_queue() {
                    turn = Some(limits.queue().await?);
                }
            }
            self.waiting = Waiting::ForEndpoint;
            if let Some(leg) = &self.leg {
                self.tried = leg.tried();
            }
            let mut freed = pin!(limits.filter(|_| turn.is_some()).map(|it| it.freed()));
            if let Some(freed) = freed.as_mut().as_pin_mut() {
                freed.enable();
            }
            let (version, blocked_since, choice) = {
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
                let choice = set.pick(&request, &self.tried, &unready, per_endpoint);
                (set.version, set.blocked_since, choice)
            };
            // No other has one, or only one that was tried before: it waits at one of them.
            let none_free = match &choice {
                Choice::Use(subchannel, _) => self.tried.contains(&subchannel.identity),
                Choice::Fail(_) | Choice::Wait | Choice::Full => true,
                Choice::OnTrial(_) | Choice::Drop(_) => false,
            };
            if none_free && !busy.is_empty() {
                unready.retain(|it| !busy.contains(it));
                busy.clear();
                may_pass_over = false;
                continue;
            }
            match (choice, full.take()) {
                (Choice::Use(subchannel, trial), last) => {
                    let Some(in_flight) = Reserved::at(&subchannel.load, limits) else {
                        // Another call was faster.
                        full = last;
                        continue;
                    };
                    // The next one's, however long this one waits for a stream, and so is the word of what becomes free.
                    turn = None;
                    freed.set(None);
                    self.waiting = Waiting::ForStream;
                    self.endpoint = Some(Arc::clone(&subchannel));
                    let first = self.inner.first_message(&subchannel);
                    let free = subchannel.pool.try_lease();
                    let passed_over =
                        free.is_none() && may_pass_over && subchannel.pool.is_saturated();
                    if passed_over {
                        unready.push(subchannel.identity);
                        busy.push(subchannel.identity);
                        may_pass_over = busy.len() < PASSED_OVER;
                        full = last;
                        continue;
                    }
                    if let Some(leg) = &self.leg {
                        leg.picked(&subchannel);
                    }
                    let leased = match free {
                        Some(lease) => Ok(lease),
                        None => subchannel.pool.lease().await,
                    };
                    match leased {
                        Ok(lease) => {
                            let slot = Slot {
                                lease,
                                _in_flight: in_flight,
                                _admitted: admitted,
                                _trial: trial,
                                openings: subchannel.health.openings(),
                                first,
                            };
                            return Ok((subchannel, slot));
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
                (Choice::Full, _) => {
                    self.waiting = Waiting::ForRoom;
                    match (limits, &turn, freed.as_pin_mut()) {
                        (Some(limits), Some(turn), Some(freed)) => tokio::select! {
                            () = freed => {}
                            () = directory.newer_than(version) => {}
                            () = tokio::time::sleep_until(turn.until) => {
                                return Err(limits.timed_out("concurrency.per_endpoint"));
                            }
                        },
                        (Some(limits), _, _) => turn = Some(limits.queue().await?),
                        (None, _, _) => {}
                    }
                }
                (Choice::Fail(_) | Choice::Wait, Some(full)) => return Err(full),
                (Choice::Fail(error), _) if !self.settings.wait_for_ready => return Err(error),
                (choice, _) => {
                    // Others need not wait for what this one waits for.
                    freed.set(None);
                    (admitted, turn, outside) = (None, None, true);
                    if place.is_none() {
                        place = self.inner.places.try_acquire().ok();
                    }
                    if place.is_none() {
                        return Err(no_place(choice));
                    }
                    if let Choice::Fail(error) = choice {
                        self.last_error = Some(error);
                        directory.newer_than(version).await;
                    } else {
                        self.wait_for_set(version, blocked_since).await?;
                    }
                }
            }
        }
    }

    /// Waits until the set is newer than `version`; if nothing could be picked since that time, only for so long.
    async fn wait_for_set(
        &self,
        version: u64,
        blocked_since: Option<Instant>,
    ) -> Result<(), Error> {
        let directory = &self.inner.directory;
        let newer = directory.newer_than(version);
        let Some(since) = blocked_since.filter(|_| !self.settings.wait_for_ready) else {
            newer.await;
            return Ok(());
        };
        let limit = self.inner.defaults.fail_fast_after;
        let waited = tokio::time::timeout_at(since + limit, newer).await;
        waited.map_err(|_| {
            let why = directory.set().why_not_ready();
            let message = format!("no endpoint was ready for {limit:?}: {why}");
            Error::new(Kind::NoEndpoint, Code::Unavailable, message).in_stage(Stage::Pick)
        })
    }
}

fn no_place(choice: Choice) -> Error {
    let message = "too many calls are waiting for an endpoint to be ready (max_waiting)";
    let error = Error::new(Kind::PoolWait, Code::Unavailable, message).in_stage(Stage::Pick);
    match choice {
        Choice::Fail(reason) => error.because(reason),
        _ => error,
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
