//! Score card rows 30 to 32: callers that go away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;

use fastrand::Rng;
use rows::apart::{Apart, say, told, wait_for_end};
use rows::calls::{call, call_with, request};
use rows::dials::Dials;
use rows::memory::{self, resident_kib};
use rows::panics::Panics;
use rows::rig::{self, LIMIT, pool, server, settings, slots_are_free};
use rows::{limit, number};
use support::frames::{code, setting};
use support::journal::duplicates;
use support::leak::LeakCheck;
use support::load::Load;
use support::raw_peer::RawPeer;
use support::raw_serve::ServedPeer;
use support::reaction::{Reaction, RequestInfo};
use support::report::Report;
use support::response;
use support::server::EchoServer;
use support::wait::{holds_within, wait_equal, wait_until, within};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, interval, timeout};
use tokio_stream::StreamExt;
use trunkline::{Address, Channel, Connector, Dial, Dialing, Endpoint, State};
use trunkline_proto::EchoRequest;
use trunkline_proto::echo_client::EchoClient;

/// Row 30: the stream limit of its peers and the connections to each, fewer streams than callers, so that some calls are
/// cancelled while they wait for one.
const STREAMS: usize = 10;
const CONNECTIONS: usize = 2;
const CALLERS: u64 = 64;

/// Each connection remembers up to 10,000 streams that were reset in the last 5 s, of at most 512 bytes each. How many
/// there are follows from the rate of cancels; only that of a full run is kept steady.
const REMEMBERED_KIB: u64 = 2 * CONNECTIONS as u64 * 10_000 / 2;

/// A full run's callers begin together, as often as this, so that there are more of them than streams each time.
const TOGETHER: Duration = Duration::from_millis(100);

/// The calls that each makes then.
const AT_A_TIME: u64 = 2;

/// What a call asks of a peer of row 30, as its `delay_ms`.
const ANSWER: u32 = 0;
const ANSWER_SOON: u32 = 1;
const BEGIN_TO_ANSWER: u32 = 2;
const SAY_NOTHING: u32 = 3;

/// Calls are given up at any point of their way, and everything that they held comes back. The peers are apart: what is
/// measured is the memory of the client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_30_cancels_at_random_points() {
    let leaks = LeakCheck::start().await;
    let panics = Panics::watch();
    let mut peers = Apart::start("peers_of_row_30", "");
    let uris = block_in_place(|| peers.said("peers"));
    let pool = pool().max_connections(CONNECTIONS);
    let connector = settings(Connector::endpoints(uris.split(' ').map(Endpoint::uri))).pool(pool);
    let channel = connector.connect().await.unwrap();

    let cancels = number("TRUNKLINE_CANCELS", 10_000);
    // As many before the measurement bring the memory to its level: the most streams that were ever remembered at once.
    let mut cancelled = cancel_calls(&channel, cancels).await;
    let before = resident_kib();
    cancelled += cancel_calls(&channel, cancels).await;
    let after = resident_kib();

    slots_are_free(&channel, STREAMS).await;
    // And usable, all of them.
    let calls = channel.clone();
    let load = Load::new(1000.0).duration(Duration::from_millis(500));
    let report = load.run(move |id| call(calls.clone(), id)).await;

    let seen = block_in_place(|| peers.end("seen"));
    let seen: Vec<u64> = seen.split(' ').map(|it| it.parse().unwrap()).collect();
    let [open, started, resets, unending] = seen[..] else {
        panic!("{seen:?}");
    };
    drop(channel);
    let figures = [
        ("cancels", cancelled),
        ("started", started),
        ("resets", resets),
        ("rss_kib_before", before),
        ("rss_kib_after", after),
        ("panics", panics.count()),
    ];
    report.score_with("30", &[], leaks.leaked().await, None, &figures);
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert!(cancelled >= cancels, "{cancelled} were cancelled");
    assert!(started >= cancels, "{started} reached a peer");
    assert_eq!(open, 0, "streams that are not over at their peers");
    assert!(
        resets >= unending,
        "{resets} resets, {unending} streams without an end"
    );
    let mut allowed = before / 20;
    if !(rows::is_strict() && memory::is_steady()) {
        allowed += REMEMBERED_KIB;
    }
    assert!(after.abs_diff(before) <= allowed, "{before} to {after} KiB");
    assert_eq!(panics.count(), 0);
}

/// The process of row 30's peers. At its end it says how many streams are not over (answered, or reset), how many
/// requests came, how many streams were reset, and how many would not have ended otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is started by row 30"]
async fn peers_of_row_30() {
    if told().is_none() {
        return;
    }
    let unending = Arc::new(AtomicU64::new(0));
    let peers = [choosy_peer(&unending), choosy_peer(&unending)];
    say("peers", &peers.each_ref().map(|peer| peer.uri()).join(" "));
    block_in_place(wait_for_end);
    let sum = |of: fn(&ServedPeer) -> u64| peers.iter().map(of).sum::<u64>();
    let open = || sum(|peer| peer.seen().streams());
    holds_within(LIMIT, || open() == 0).await;
    let started = sum(|peer| peer.seen().requests());
    let resets = sum(|peer| peer.seen().resets(code::CANCEL));
    let unending = unending.load(SeqCst);
    say("seen", &format!("{} {started} {resets} {unending}", open()));
}

/// A peer that does as a request asks, and counts those that it will never end.
fn choosy_peer(unending: &Arc<AtomicU64>) -> ServedPeer {
    let unending = Arc::clone(unending);
    let settings = [(setting::MAX_CONCURRENT_STREAMS, STREAMS as u32)];
    RawPeer::tcp().serve(&settings, move |request: &RequestInfo| {
        let answer = Reaction::echo(request, "peer");
        let asked = request.echo().unwrap().delay_ms;
        if asked >= BEGIN_TO_ANSWER {
            unending.fetch_add(1, SeqCst);
        }
        match asked {
            ANSWER => answer,
            ANSWER_SOON => answer.after(Duration::from_millis(1)),
            BEGIN_TO_ANSWER => {
                let stream = request.stream;
                let half = vec![response::headers(stream), response::data(stream, &[8, 1])];
                Reaction::Frames(half)
            }
            _ => Reaction::Silence,
        }
    })
}

/// Makes about this many calls and gives each up at a random point. Gives the number of those that had not ended.
async fn cancel_calls(channel: &Channel, count: u64) -> u64 {
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let channel = channel.clone();
        callers.spawn(async move {
            let mut rng = Rng::with_seed(caller ^ count);
            let mut cancelled = 0;
            let mut together = interval(TOGETHER);
            for nth in 0..count / CALLERS {
                if rows::is_strict() && nth % AT_A_TIME == 0 {
                    together.tick().await;
                }
                let call = any_call(channel.clone(), caller, &mut rng);
                cancelled += u64::from(given_up(call, &mut rng).await);
            }
            cancelled
        });
    }
    callers.join_all().await.into_iter().sum()
}

/// A call of any kind, to the end of its response.
fn any_call(channel: Channel, id: u64, rng: &mut Rng) -> impl Future<Output = ()> + use<> {
    let mut client = EchoClient::new(channel);
    let mut request = request(id);
    request.delay_ms = rng.u32(ANSWER..=SAY_NOTHING);
    if rng.u8(..) < 64 {
        // More than one DATA frame.
        request.payload.resize(40_000, 0);
    }
    let kind = rng.u8(..4);
    async move {
        let replies = match kind {
            0 => return drop(client.unary(request).await),
            1 => client.server_stream(request).await,
            2 => {
                // A request that goes on until the call is over.
                let messages = tokio_stream::iter([request]).chain(tokio_stream::pending());
                return drop(client.client_stream(messages).await);
            }
            _ => {
                let messages = tokio_stream::iter([request.clone(), request]);
                client.bidi_stream(messages).await
            }
        };
        let Ok(replies) = replies else { return };
        let mut replies = replies.into_inner();
        while let Ok(Some(_)) = replies.message().await {}
    }
}

/// Polls a call a few times, for a few milliseconds at most, and drops it: between a wake and its poll too, when
/// something may just have been given to it. True if it had not ended.
async fn given_up(call: impl Future<Output = ()>, rng: &mut Rng) -> bool {
    let mut polls = rng.u32(..8);
    let span = Duration::from_micros(rng.u64(..4000));
    let mut call = Box::pin(call);
    let polled = poll_fn(|cx| {
        if polls == 0 {
            return Poll::Ready(true);
        }
        polls -= 1;
        call.as_mut().poll(cx).map(|()| false)
    });
    timeout(span, polled).await.unwrap_or(true)
}

/// A response that is dropped half read gives its stream back at once, and what it left unread does not count against
/// the connection's window: far more is left than fits into it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_31_body_dropped_half_read() {
    const ROUNDS: u64 = 40;
    let leaks = LeakCheck::start().await;
    let panics = Panics::watch();
    let server = EchoServer::builder("a").max_concurrent_streams(1).tcp();
    let connector = settings(Connector::tcp(server.addr().to_string()));
    let channel = connector
        .pool(pool().max_connections(1))
        .connect()
        .await
        .unwrap();
    let in_flight = || channel.status().endpoints[0].in_flight;

    let mut slowest = Duration::ZERO;
    for id in 1..=ROUNDS {
        let asked = EchoRequest {
            id,
            payload: vec![0; 64 * 1024],
            repeat: 1000,
            ..EchoRequest::default()
        };
        let mut replies = EchoClient::new(channel.clone())
            .server_stream(asked)
            .await
            .unwrap()
            .into_inner();
        for sequence in 0..3 {
            assert_eq!(replies.message().await.unwrap().unwrap().sequence, sequence);
        }
        assert_eq!(in_flight(), 1);
        let dropped = Instant::now();
        drop(replies);
        wait_equal(LIMIT, 0, in_flight).await;
        slowest = slowest.max(dropped.elapsed());
        wait_equal(LIMIT, id, || server.journal().cancelled()).await;
    }
    let calls = channel.clone();
    let report = Load::new(100.0)
        .first_id(ROUNDS + 1)
        .run(move |id| call(calls.clone(), id))
        .await;
    slots_are_free(&channel, 1).await;
    assert_eq!(
        server.journal().accepted(),
        1,
        "all of it on one connection"
    );

    drop(channel);
    let twice = duplicates([server.journal().handled()]);
    drop(server);
    let figures = [
        ("lease_back_us", slowest.as_micros() as u64),
        ("panics", panics.count()),
    ];
    report.score_with("31", &twice, leaks.leaked().await, None, &figures);
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert!(slowest <= limit(Duration::from_millis(10)), "{slowest:?}");
    assert_eq!(panics.count(), 0);
}

/// A dial belongs to no caller: those who came first may go, the others get their connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_32_the_first_callers_leave_while_dialling() {
    const CALLS: u64 = 100;
    let leaks = LeakCheck::start().await;
    let panics = Panics::watch();
    let server = server("a", Duration::ZERO);
    let gate = Gate::default();
    let dials = gate.dials.clone();
    let opened = Arc::clone(&gate.opened);
    let connector = settings(Connector::tcp(server.addr().to_string()));
    let channel = connector.dialer(gate).connect_lazy().unwrap();

    let mut calls: Vec<_> = (1..=CALLS)
        .map(|id| tokio::spawn(call_with(channel.clone(), request(id))))
        .collect();
    let began = || channel.stats().calls == CALLS;
    wait_until(LIMIT, || {
        began() && channel.status().state == State::Connecting
    })
    .await;
    // The one that came first, and a few more.
    let left = 5;
    for leaver in calls.drain(..left) {
        leaver.abort();
        assert!(leaver.await.unwrap_err().is_cancelled());
    }
    opened.add_permits(Semaphore::MAX_PERMITS);
    let mut report = Report::default();
    for call in calls {
        report.sent += 1;
        within(LIMIT, "a waiting call", call)
            .await
            .unwrap()
            .unwrap();
        report.ok += 1;
    }
    slots_are_free(&channel, rig::STREAMS).await;

    drop(channel);
    let handled = server.journal().handled();
    assert_eq!(handled.len(), CALLS as usize - left);
    let twice = duplicates([handled]);
    drop(server);
    let dialled = dials.count() as u64;
    let figures = [
        ("ok", report.ok),
        ("dials", dialled),
        ("panics", panics.count()),
    ];
    report.score_with("32", &twice, leaks.leaked().await, None, &figures);
    assert!((1..=2).contains(&dialled), "{dialled} dials");
    assert_eq!(panics.count(), 0);
}

/// A dialler whose dials wait until it is opened.
#[derive(Debug)]
struct Gate {
    opened: Arc<Semaphore>,
    dials: Dials,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            opened: Arc::new(Semaphore::new(0)),
            dials: Dials::default(),
        }
    }
}

impl Dial for Gate {
    fn dial<'a>(&'a self, address: &'a Address) -> Dialing<'a> {
        Box::pin(async move {
            let _opened = self
                .opened
                .acquire()
                .await
                .expect("the gate is never closed");
            self.dials.dial(address).await
        })
    }
}
