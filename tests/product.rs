//! Every place where creating, leasing, picking or sending waits, times all that can happen there.
//!
//! Each cell of the product has a channel of its own: what is wanted is stopped at the place, ends as the table says, and
//! leaves nothing behind; and the next call succeeds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod stops;
mod support;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use stops::stop::{Act, Stop};
use stops::table::{End, Happens, PLACES, Place, Want, expected};
use stops::world::{Answers, LIMIT, SHORT, World};
use support::leak::LeakCheck;
use support::wait::{wait_until, within};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use trunkline::{CallOptions, Channel, Connector, Error, PinnedChannel, State};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connecting_whatever_happens() {
    assert_eq!(all_cells(Want::Connection).await, 27);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leasing_whatever_happens() {
    assert_eq!(all_cells(Want::Lease).await, 35);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calling_whatever_happens() {
    assert_eq!(all_cells(Want::Call).await, 66);
}

/// Runs each cell. Gives their number.
async fn all_cells(want: Want) -> usize {
    use Happens::*;

    let mut cells = 0;
    for place in PLACES {
        for happens in [
            Nothing,
            Failure,
            Delay,
            LateFailure,
            Limit,
            Deadline,
            Cancel,
        ] {
            let Some(end) = expected(want, place, happens) else {
                continue;
            };
            let cell = Cell {
                want,
                place,
                happens,
            };
            let leaks = LeakCheck::start().await;
            cell.run(end).await;
            let leak = leaks.leaked().await;
            assert_eq!(leak.total(), 0, "{cell}: {leak:?}");
            cells += 1;
        }
    }
    cells
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    want: Want,
    place: Place,
    happens: Happens,
}

/// The only stream, taken.
struct Taken {
    pinned: PinnedChannel,
    /// A call that waits for it.
    waiting: Option<JoinHandle<Result<(), Error>>>,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            want,
            place,
            happens,
        } = self;
        write!(f, "{want:?} at {place:?} with {happens:?}")
    }
}

impl Cell {
    async fn run(self, end: Result<(), End>) {
        let world = Arc::new(World::start().await);
        if self.want == Want::Connection {
            return self.connect(&world, end).await;
        }
        let (connector, answers) = self.connector(&world);
        let stop = self.stop(&world);
        let act = self.act();
        if self.place <= Place::Handshake {
            stop.set(act);
        }
        let channel = connector.connect_lazy().unwrap();
        if self.place > Place::Handshake {
            let state = || channel.status().state;
            wait_until(LIMIT, || state() == State::Ready).await;
            world.is_as_before(&channel).await;
            stop.set(act);
            world.headers.set(Act::Pass);
        }
        let mut taken = self.take_the_stream(&world, &channel).await;
        let given_up = world.peer.counts.given_up.load(SeqCst);
        let began = Instant::now();

        let wanted = {
            let (world, channel) = (Arc::clone(&world), channel.clone());
            tokio::spawn(async move {
                match self.want {
                    Want::Call => world.call(&channel, self.options()).await,
                    _ => channel.acquire().await.map(drop),
                }
            })
        };
        let there = || match self.place {
            Place::Stream => channel.status().endpoints[0].waiting == 1,
            Place::ResponseMessage | Place::ResponseTrailers => {
                stop.is_reached() && world.headers.is_reached()
            }
            _ => stop.is_reached(),
        };
        match self.happens {
            Happens::Delay | Happens::LateFailure => {
                wait_until(LIMIT, there).await;
                assert!(!wanted.is_finished(), "{self}");
                stop.set(self.later());
                answers.say(2);
                drop(taken.take());
                self.ended(within(LIMIT, "the end", wanted).await.unwrap(), end);
            }
            Happens::Cancel => {
                wait_until(LIMIT, there).await;
                wanted.abort();
                assert!(wanted.await.unwrap_err().is_cancelled(), "{self}");
            }
            _ => {
                let result = within(LIMIT, "the end", wanted).await.unwrap();
                self.ended(result, end);
                let limited = matches!(self.happens, Happens::Limit | Happens::Deadline);
                assert!(!limited || began.elapsed() >= SHORT, "{self}: too early");
            }
        }

        // The peer was told, where it could know of the request.
        let gone = matches!(self.happens, Happens::Deadline | Happens::Cancel);
        if gone && self.place > Place::RequestHeaders {
            let told = || world.peer.counts.given_up.load(SeqCst) > given_up;
            wait_until(LIMIT, told).await;
        }
        stop.set(Act::Pass);
        answers.say(3);
        if let Some(Taken { pinned, waiting }) = taken {
            drop(pinned);
            if let Some(waiting) = waiting {
                waiting.await.unwrap().unwrap();
            }
        }
        world.is_as_before(&channel).await;
    }

    /// The same for a channel as a whole. The next one succeeds.
    async fn connect(self, world: &Arc<World>, end: Result<(), End>) {
        let stop = self.stop(world);
        stop.set(self.act());
        let (connector, answers) = self.connector(world);
        let wanted = tokio::spawn(async move { connector.connect().await.map(drop) });
        match self.happens {
            Happens::Delay | Happens::LateFailure => {
                wait_until(LIMIT, || stop.is_reached()).await;
                assert!(!wanted.is_finished(), "{self}");
                stop.set(self.later());
                self.ended(within(LIMIT, "the end", wanted).await.unwrap(), end);
            }
            Happens::Cancel => {
                wait_until(LIMIT, || stop.is_reached()).await;
                wanted.abort();
                assert!(wanted.await.unwrap_err().is_cancelled(), "{self}");
            }
            _ => self.ended(within(LIMIT, "the end", wanted).await.unwrap(), end),
        }
        drop(answers);
        stop.set(Act::Pass);
        let (connector, _answers) = world.connector(LIMIT, LIMIT);
        let channel = connector.connect().await.unwrap();
        world.is_as_before(&channel).await;
    }

    fn connector(self, world: &World) -> (Connector, Answers) {
        let wait = if self.happens == Happens::Limit {
            SHORT
        } else {
            LIMIT
        };
        let deadline = if (self.want, self.happens) == (Want::Lease, Happens::Deadline) {
            SHORT
        } else {
            LIMIT
        };
        let (connector, answers) = world.connector(wait, deadline);
        let ready = match self.happens {
            // Several dials end before it.
            Happens::Failure | Happens::LateFailure | Happens::Limit => SHORT * 4,
            Happens::Deadline => SHORT,
            _ => LIMIT,
        };
        let connector = connector.ready_timeout(ready).wait_for_ready(self.waits());
        (connector, answers)
    }

    /// A picker that holds a call holds those that would wait for an endpoint; others it fails.
    fn waits(self) -> bool {
        self.place == Place::Pick && self.act() == Act::Hold
    }

    fn options(self) -> CallOptions {
        if self.happens == Happens::Deadline {
            CallOptions::new().timeout(SHORT)
        } else {
            CallOptions::new()
        }
    }

    /// Takes the only stream, and the only place in the queue for it if that is to be full.
    async fn take_the_stream(self, world: &Arc<World>, channel: &Channel) -> Option<Taken> {
        if self.place != Place::Stream || self.happens == Happens::Nothing {
            return None;
        }
        let pinned = channel.acquire().await.unwrap();
        let mut waiting = None;
        if self.happens == Happens::Failure {
            let (world, calling) = (Arc::clone(world), channel.clone());
            waiting = Some(tokio::spawn(async move {
                world.call(&calling, CallOptions::new()).await
            }));
            wait_until(LIMIT, || channel.status().endpoints[0].waiting == 1).await;
        }
        Some(Taken { pinned, waiting })
    }

    /// What the place does at first.
    fn act(self) -> Act {
        match self.happens {
            Happens::Nothing => Act::Pass,
            Happens::Failure => Act::Fail,
            _ => Act::Hold,
        }
    }

    /// What it does in the end.
    fn later(self) -> Act {
        match self.happens {
            Happens::LateFailure => Act::Fail,
            _ => Act::Pass,
        }
    }

    fn stop(self, world: &World) -> Stop {
        match self.place {
            Place::Discovery => world.discovery.clone(),
            Place::Resolve => world.dial.resolve.clone(),
            Place::Connect => world.dial.connect.clone(),
            Place::Handshake => world.dial.read.clone(),
            Place::Pick => world.pick.clone(),
            Place::Stream => Stop::default(),
            Place::RequestHeaders => world.dial.write.clone(),
            Place::RequestBody => world.body.clone(),
            Place::ResponseHeaders => world.peer.stops.headers.clone(),
            Place::ResponseMessage => world.peer.stops.message.clone(),
            Place::ResponseTrailers => world.peer.stops.trailers.clone(),
        }
    }

    fn ended(self, result: Result<(), Error>, end: Result<(), End>) {
        let result = result.map_err(|error| {
            let end = (
                question(&error),
                error.code(),
                error.stage().unwrap(),
                error.delivery(),
            );
            (end, error)
        });
        match (result, end) {
            (Ok(()), Ok(())) => {}
            (Err((found, error)), Err(end)) => assert_eq!(found, end, "{self}: {error:?}"),
            (result, end) => panic!("{self}: {result:?} instead of {end:?}"),
        }
    }
}

/// The question that an error answers with yes.
fn question(error: &Error) -> &'static str {
    let answers = [
        ("config", error.is_config()),
        ("connect", error.is_connect()),
        ("timeout", error.is_timeout()),
        ("pool_wait", error.is_pool_wait()),
        ("no_endpoint", error.is_no_endpoint()),
        ("refused", error.is_refused()),
        ("disconnected", error.is_disconnected()),
        ("protocol", error.is_protocol()),
        ("dropped", error.is_dropped()),
        ("closed", error.is_closed()),
    ];
    let mut yes = answers.iter().filter(|(_, yes)| *yes);
    let first = yes.next().map_or("request", |(name, _)| name);
    assert!(yes.next().is_none(), "{error:?}");
    first
}
