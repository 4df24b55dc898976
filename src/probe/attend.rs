//! Asks one endpoint, again and again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::HeaderMap;
use tokio::time::{sleep, timeout};
use tonic::Code;

use crate::classify::Outcome;
use crate::endpoint::Subchannel;
use crate::health::Answer;
use crate::pool::Lease;

use super::ProbeTarget;
use super::check::Kind;
use super::exchange::{self, Silence};
use super::scheduler::Means;
use super::watch::{Over, watch};
use super::wire::Word;

/// An endpoint that is connected, and how it is asked.
#[derive(Debug)]
pub(super) struct Patient {
    pub(super) subchannel: Arc<Subchannel>,
    pub(super) target: ProbeTarget,
    pub(super) service: Arc<str>,
    /// The log has been told what can't be learnt of it.
    pub(super) told: Arc<AtomicBool>,
    /// The answers to calls when it was last asked.
    pub(super) answered: AtomicU64,
    pub(super) means: Arc<Means>,
}

/// What came of one question.
enum Heard {
    Answer(Answer),
    /// No answer in its time.
    Nothing,
    /// The answer broke off.
    Broken(String),
    /// No stream was free to ask with: its calls are answered, or it would not be so busy.
    Busy,
    /// There is nobody to be asked.
    NoService,
}

impl Patient {
    /// Asks until it is dropped: the endpoint has lost its connection, or is gone.
    pub(super) async fn attend(self) {
        loop {
            if matches!(self.means.check.kind, Kind::Watch) {
                self.be_told().await;
            }
            self.be_asked().await;
            // What is behind a proxy can be replaced by a server that has one, and the connection stays.
            sleep(self.means.check.rarely(fastrand::f64())).await;
        }
    }

    /// As long as there is somebody to be asked.
    async fn be_asked(&self) {
        loop {
            match self.ask().await {
                Heard::NoService => {
                    self.learn(Answer::Untold);
                    self.tell("it has no health service: it counts as healthy");
                    return;
                }
                Heard::Answer(answer) => self.learn(answer),
                Heard::Busy => self.leave_open(),
                Heard::Nothing => self.learn(self.no_answer()),
                Heard::Broken(why) => self.learn(failed(why)),
            }
            self.pause().await;
        }
    }

    /// As long as the server tells by itself. Returns if it has to be asked.
    async fn be_told(&self) {
        loop {
            match watch(self).await {
                Over::MustBeAsked => return,
                Over::Moved => {}
                // If it stays away, this is given up.
                Over::Away => sleep(self.means.check.pause(true, fastrand::f64())).await,
                Over::Ended(answer) => {
                    self.learn(answer);
                    self.pause().await;
                }
                Over::Busy => {
                    self.leave_open();
                    self.pause().await;
                }
            }
        }
    }

    /// It could not be asked. Calls wait for the first answer, and not for this.
    fn leave_open(&self) {
        if self.subchannel.health.is_pending() {
            self.learn(failed("no stream was free to ask on".to_owned()));
        }
    }

    async fn ask(&self) -> Heard {
        let _turn = self.means.turns.acquire().await;
        let since = self.asks();
        let answered = self.subchannel.health.answered();
        let heard = timeout(self.limit(), self.question()).await;
        match heard.unwrap_or(Heard::Nothing) {
            Heard::Broken(_) if self.is_contradicted(since) => Heard::Busy,
            // The health service is stuck, not the server. It is told apart from a frozen one by that.
            Heard::Nothing if self.subchannel.health.answered() > answered => Heard::Busy,
            heard => heard,
        }
    }

    async fn question(&self) -> Heard {
        let check = &self.means.check;
        match &check.kind {
            Kind::Watch | Kind::Check => {
                let Some(lease) = self.lease().await else {
                    return Heard::Busy;
                };
                let (means, service) = (&self.means, &self.service);
                let asked = exchange::check(&self.subchannel, means, &lease, service);
                match asked.await {
                    Ok(serving) => Heard::Answer(self.answer_of(serving)),
                    Err(Silence::Unimplemented) => Heard::NoService,
                    Err(Silence::Late) => Heard::Nothing,
                    // It broke off everything on that connection; another one is to be asked.
                    Err(Silence::Broken(_)) if lease.connection().end().is_some() => Heard::Busy,
                    Err(Silence::Broken(why)) => Heard::Broken(why),
                    Err(silence) => Heard::Answer(self.answer_to(silence)),
                }
            }
            Kind::Http(path) => {
                let Some(lease) = self.lease().await else {
                    return Heard::Busy;
                };
                let got = exchange::get(&self.subchannel, &self.means, &lease, path).await;
                Heard::Answer(match got {
                    Ok(response) => match grpc_error(response.headers()) {
                        None if response.status().is_success() => Answer::Serving,
                        None => failed(format!("GET {path}: HTTP {}", response.status())),
                        Some(code) => failed(format!("GET {path}: gRPC status {code:?}")),
                    },
                    Err(error) => failed(format!("GET {path}: {}", error.message())),
                })
            }
            Kind::Tcp => Heard::Answer(match self.subchannel.pool.open_stream().await {
                Ok(_) => Answer::Serving,
                Err(error) => failed(format!("no connection: {}", error.io_error())),
            }),
            Kind::Custom(probe) => {
                // All endpoints are asked by one task: one that panics must not end it.
                let probing = AssertUnwindSafe(async { probe.probe(&self.target).await });
                Heard::Answer(match probing.catch_unwind().await {
                    Ok(Ok(())) => Answer::Serving,
                    Ok(Err(error)) => failed(error.to_string()),
                    Err(_) => failed("the probe panicked".to_owned()),
                })
            }
        }
    }

    /// A stream, waited for like a call's.
    pub(super) async fn lease(&self) -> Option<Lease> {
        let lease = self.subchannel.pool.lease().await.ok()?;
        Some(lease.for_a_question())
    }

    pub(super) fn learn(&self, answer: Answer) {
        self.subchannel.health.probed(answer);
    }

    pub(super) fn answer_of(&self, serving: Word) -> Answer {
        let service = &self.service;
        match serving {
            Word::Serving => Answer::Serving,
            Word::NotServing => Answer::NotServing("NOT_SERVING".into()),
            Word::Unknown => Answer::NotServing("its health is UNKNOWN".into()),
            Word::ServiceUnknown => unknown(service),
        }
    }

    pub(super) fn answer_to(&self, silence: Silence) -> Answer {
        match silence {
            Silence::Unimplemented => Answer::Untold,
            Silence::ServiceUnknown => unknown(&self.service),
            Silence::Forbidden(why) => {
                self.tell(&format!(
                    "it can't be asked for its health ({why}): it counts as healthy"
                ));
                Answer::Untold
            }
            Silence::Late => self.no_answer(),
            Silence::Broken(why) | Silence::Failed(why) => Answer::Failed(why.into()),
        }
    }

    /// It is asked now. Gives the answers to calls when it was asked before.
    pub(super) fn asks(&self) -> u64 {
        let now = self.subchannel.health.answered();
        self.answered.swap(now, Ordering::Relaxed)
    }

    /// Whether calls have been answered since then. If so, an answer that breaks off, which takes no time, says no more
    /// against the server than one that does not come.
    pub(super) fn is_contradicted(&self, since: u64) -> bool {
        let answers = self.subchannel.health.answered() > since;
        if answers {
            self.tell("its health service breaks off its answers: that does not count while calls are answered");
        }
        answers
    }

    pub(super) fn no_answer(&self) -> Answer {
        failed(format!("no answer within {:?}", self.limit()))
    }

    /// Says it in the log, once in the endpoint's life.
    fn tell(&self, what: &str) {
        if !self.told.swap(true, Ordering::Relaxed) {
            let endpoint = &*self.subchannel.name;
            tracing::warn!(endpoint, "{what}");
        }
    }

    async fn pause(&self) {
        let undecided = self.subchannel.health.is_undecided();
        sleep(self.means.check.pause(undecided, fastrand::f64())).await;
    }

    pub(super) fn limit(&self) -> Duration {
        self.means.check.timeout
    }
}

/// gRPC servers answer with status 200 to paths that they do not know.
fn grpc_error(headers: &HeaderMap) -> Option<Code> {
    let code = Outcome::of_headers(headers)?.code;
    (code != Code::Ok).then_some(code)
}

fn failed(why: String) -> Answer {
    Answer::Failed(why.into())
}

fn unknown(service: &str) -> Answer {
    Answer::NotServing(format!("it does not know the service {service:?}").into())
}
