//! A call with several attempts at the same time.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use http::Extensions;
use tonic::Code;

use crate::classify::{Outcome, Pushback};
use crate::endpoint::Subchannel;
use crate::error::{Delivery, Error, Kind, Stage};
use crate::lock::lock;
use crate::retry::{AttemptFacts, GiveUp, Hedging, Withdrawal};
use crate::time::Instant;

use super::super::past::{Ended, Past};
use super::{Answer, Call, Waiting};

/// Which attempt of a hedged call this one is, from 1 on, and what is known of all of them.
pub(super) struct Leg {
    number: u32,
    picks: Picks,
}

/// The endpoints that the attempts were given to.
type Picks = Arc<Mutex<Vec<Picked>>>;

struct Picked {
    number: u32,
    since: Instant,
    subchannel: Arc<Subchannel>,
    /// The request is on its way there: it does not wait for a stream any more.
    sent: bool,
}

/// An attempt under way. It owns its deadline, and resends what was not processed.
type Running = Pin<Box<dyn Future<Output = (Call, Result<Answer, Error>)> + Send>>;

/// A hedged call's course so far.
struct Race<'a> {
    hedging: &'a Hedging,
    picks: Picks,
    running: FuturesUnordered<Running>,
    begun: u32,
    /// Those that have ended.
    ended: Vec<u32>,
    /// A server asked for no more.
    forbidden: bool,
    /// A server asked for none before.
    not_before: Instant,
    /// When the next attempt follows, if it does.
    next: Option<Instant>,
}

impl Leg {
    /// The endpoints that other attempts have, or had.
    pub(super) fn tried(&self) -> Vec<u64> {
        identities(&self.picks)
    }

    pub(super) fn picked(&self, subchannel: &Arc<Subchannel>) {
        lock(&self.picks).push(Picked {
            number: self.number,
            since: Instant::now(),
            subchannel: Arc::clone(subchannel),
            sent: false,
        });
    }

    /// The request is about to be sent to the endpoint that was picked last.
    pub(super) fn sent(&self) {
        let mut picks = lock(&self.picks);
        if let Some(last) = picks.iter_mut().rfind(|it| it.number == self.number) {
            last.sent = true;
        }
    }
}

impl Call {
    /// Runs the call's attempts, each a delay after the one before or when that fails, to the first response that is no
    /// failure of the kind that is retried (gRFC A6).
    pub(super) async fn hedged(&mut self) -> Result<Answer, Error> {
        let inner = Arc::clone(&self.inner);
        let Some(hedging) = &inner.hedging else {
            return self.limited().await;
        };
        let mut race = Race {
            hedging: hedging.of(self.head.path()),
            picks: Picks::default(),
            running: FuturesUnordered::new(),
            begun: 0,
            ended: Vec::new(),
            forbidden: false,
            not_before: self.started,
            next: None,
        };
        self.begin_leg(&mut race, None);
        let mut last = None;
        loop {
            let due = race.next;
            let timer = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let ended = tokio::select! {
                biased;
                Some(ended) = race.running.next() => Some(ended),
                () = timer, if due.is_some() => None,
                else => None,
            };
            if let Some((leg, result)) = ended {
                match self.leg_ended(&mut race, leg, result) {
                    Ok(decided) => return decided,
                    Err(failure) => last = Some(failure),
                }
            } else {
                race.next = None;
                match self.may_hedge(&race) {
                    Ok(paid) => self.begin_leg(&mut race, Some(paid)),
                    Err(reason) if race.running.is_empty() => {
                        let failed = last.take().unwrap_or_else(|| Err(super::unrepeatable()));
                        return failed.map_err(|error| error.given_up(reason.why()));
                    }
                    Err(_) => {}
                }
            }
            if race.running.is_empty()
                && race.next.is_none()
                && let Some(failed) = last.take()
            {
                return failed;
            }
        }
    }

    /// What an attempt's end means: the call's end, or a failure after which others go on.
    #[expect(
        clippy::result_large_err,
        reason = "it is the failure that is kept, not an error on its way"
    )]
    fn leg_ended(
        &mut self,
        race: &mut Race<'_>,
        mut leg: Self,
        mut result: Result<Answer, Error>,
    ) -> Result<Result<Answer, Error>, Result<Answer, Error>> {
        let number = leg.number();
        race.ended.push(number);
        self.in_doubt |= leg.in_doubt;
        self.past.adopt(&mut leg.past, race.begun);
        let now = Instant::now();
        let outcome = match &result {
            Ok(answer) => answer.ended.filter(|it| it.code != Code::Ok),
            Err(error) => Some(Outcome::of_error(error)),
        };
        let tolerable = match &result {
            Ok(_) => true,
            Err(error) => matches!(
                error.kind(),
                Kind::Timeout
                    | Kind::Connect
                    | Kind::Refused
                    | Kind::Disconnected
                    | Kind::Protocol
                    | Kind::NoEndpoint
            ),
        };
        let late = self
            .settings
            .limit
            .as_ref()
            .is_some_and(|it| it.has_passed());
        if let Some(mut outcome) = outcome
            && !late
        {
            let alone = matches!(&result, Err(error) if error.kind() == Kind::NoEndpoint);
            if alone {
                outcome.delivery = Delivery::Answered;
            }
            let facts = self.facts(outcome, now);
            let policy = self.inner.retry.of(self.head.path());
            if tolerable && policy.tolerates(&facts) {
                if let Ok(answer) = &mut result {
                    // Others may be waiting for just this one's stream, or its part of a limit. A proxy's page is lost with it.
                    answer.response.body_mut().discard();
                    answer.slot = None;
                    let endpoint = leg.endpoint.as_ref().map(|it| &it.name);
                    self.past.failed(&Ended {
                        endpoint,
                        stage: Stage::Response,
                        delivery: outcome.delivery,
                        code: outcome.code,
                    });
                }
                let soonest = race.not_before.max(now);
                race.next = match outcome.pushback {
                    _ if race.forbidden || race.begun >= race.hedging.attempts() => None,
                    Some(Pushback::Never) => {
                        race.forbidden = true;
                        None
                    }
                    Some(Pushback::After(delay)) => {
                        race.not_before = soonest.max(now + delay);
                        Some(race.not_before)
                    }
                    None if alone => {
                        let pause = policy.pause(race.begun, fastrand::f64());
                        Some(soonest.max(now + pause))
                    }
                    None => Some(soonest),
                };
                // Nobody would wait for it.
                race.next = race.next.filter(|next| !facts.is_too_late(*next - now));
                return Err(result);
            }
            // Nobody but this attempt had a part in it: it found no room or no endpoint, was not processed, or another one
            // reads the request alone.
            let unprocessed = matches!(outcome.delivery, Delivery::NotSent | Delivery::Refused);
            let own = result.is_err() && (!tolerable || alone || unprocessed);
            if own && !race.running.is_empty() {
                race.next = None;
                return Err(result);
            }
        }
        self.settle(race, leg, number, late);
        if number > 1 && result.is_ok() {
            self.inner.counters.hedge_won();
        }
        Ok(result)
    }

    /// The call ends with this attempt: those that still run have lost.
    fn settle(&mut self, race: &mut Race<'_>, leg: Self, number: u32, late: bool) {
        let (now, inner) = (Instant::now(), Arc::clone(&self.inner));
        if late {
            // They have run out of time as well, and tell their endpoints.
            while let Some(Some((mut late, _))) = race.running.next().now_or_never() {
                race.ended.push(late.number());
                self.in_doubt |= late.in_doubt;
                self.past.adopt(&mut late.past, race.begun);
            }
        }
        leg.replay.commit();
        let picks = std::mem::take(&mut *lock(&race.picks));
        race.running.clear();
        for number in (1..=race.begun).filter(|it| !race.ended.contains(it)) {
            match picks.iter().rfind(|it| it.number == number) {
                Some(lost) if lost.sent => {
                    self.past.lost(&lost.subchannel.name, now - lost.since);
                    self.in_doubt = true;
                }
                // It was still waiting: as if it had not been.
                _ => self.past.attempts -= 1,
            }
        }
        if number == 1 || !race.ended.contains(&1) {
            let took = now - self.started;
            race.hedging.record(took, inner.age(now));
        }
        self.token.clone_from(&leg.token);
        self.endpoint.clone_from(&leg.endpoint);
    }

    /// Whether another attempt may be made now, and what the budget gives for it.
    fn may_hedge(&self, race: &Race<'_>) -> Result<Withdrawal, GiveUp> {
        if race.begun >= race.hedging.attempts() {
            return Err(GiveUp::AttemptsUsed);
        }
        if self.replay.is_committed() {
            return Err(GiveUp::Committed);
        }
        let now = Instant::now();
        let age = self.inner.age(now);
        let tried = identities(&race.picks);
        let takes = self.next_takes(&tried, age).unwrap_or_default();
        let facts = self.facts(Outcome::ANSWERED, now);
        if facts.is_too_late(takes) {
            return Err(GiveUp::DeadlineTooClose);
        }
        self.inner
            .budget
            .try_withdraw(age)
            .ok_or(GiveUp::BudgetUsed)
    }

    fn facts(&self, outcome: Outcome, now: Instant) -> AttemptFacts {
        let limit = self.settings.limit.as_ref();
        AttemptFacts {
            outcome,
            idempotent: true,
            attempts_made: self.past.attempts,
            attempts_since_pushback: self.past.attempts,
            refused_before: true,
            committed: self.replay.is_committed(),
            remaining: limit.map(|limit| limit.deadline.remaining(now)),
            next_takes: None,
        }
    }

    fn begin_leg(&self, race: &mut Race<'_>, paid: Option<Withdrawal>) {
        race.begun += 1;
        let now = Instant::now();
        let leg = Self {
            inner: Arc::clone(&self.inner),
            head: self.head.clone(),
            extensions: Extensions::clone(&self.extensions),
            settings: self.settings.clone(),
            replay: self.replay.share(),
            past: Past::before(race.begun, now),
            refused: false,
            token: None,
            token_refused: false,
            paid,
            tried: Vec::new(),
            in_doubt: false,
            started: now,
            sent: None,
            openings: 0,
            waiting: Waiting::ForEndpoint,
            endpoint: None,
            last_error: None,
            leg: Some(Leg {
                number: race.begun,
                picks: Arc::clone(&race.picks),
            }),
        };
        race.running.push(leg.run_leg());
        let delay = race.hedging.delay(self.inner.age(now));
        race.next = delay
            .filter(|_| race.begun < race.hedging.attempts())
            .map(|delay| now + delay);
    }

    /// Which attempt of a hedged call it is. The count of its own past goes down where it resends.
    fn number(&self) -> u32 {
        self.leg.as_ref().map_or(1, |it| it.number)
    }

    fn run_leg(mut self) -> Running {
        Box::pin(async move {
            let result = self.limited().await;
            (self, result)
        })
    }
}

fn identities(picks: &Picks) -> Vec<u64> {
    let picks = lock(picks);
    picks.iter().map(|it| it.subchannel.identity).collect()
}
