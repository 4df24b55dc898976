//! "Not sent" is a proof: connections are cut at random bytes, the server refuses and says GOAWAY at random, and tells
//! which calls it saw.
//!
//! Seeded by the round's number. `TRUNKLINE_FUZZ_ROUNDS` sets how many rounds are run.

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

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use support::body::post;
use support::calls::request;
use support::cutter::{Cut, Cutter};
use support::leak::LeakCheck;
use support::net::{Listener, Stream};
use support::place::Place;
use support::raw_peer::RawPeer;
use support::thread::ServerThread;
use support::wait::{wait_equal, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::{Code, Status};
use trunkline::{Backoff, Channel, Connector, Delivery, Error, PoolOptions, Retry, TcpOptions};
use trunkline_proto::echo_client::EchoClient;

const LIMIT: Duration = Duration::from_secs(10);
const CALLERS: u64 = 20;
const CALLS_EACH: u64 = 4;

/// Which calls the server saw: a call counts as soon as its headers came, and before its body did.
#[derive(Debug, Default)]
struct Witness {
    seen: Mutex<BTreeMap<u64, u64>>,
    connections: AtomicU64,
    open: AtomicU64,
}

impl Witness {
    fn seen(&self, id: u64) -> u64 {
        self.seen.lock().unwrap().get(&id).copied().unwrap_or(0)
    }
}

/// Serves every connection to its end.
async fn serve(listener: Listener, witness: Arc<Witness>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let io = accepted.expect("connections can be accepted");
                let witness = Arc::clone(&witness);
                witness.open.fetch_add(1, SeqCst);
                connections.spawn(async move {
                    serve_connection(io, &witness).await;
                    witness.open.fetch_sub(1, SeqCst);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers requests. Refuses some, and at some point says GOAWAY, orderly or not.
async fn serve_connection(io: Stream, witness: &Witness) {
    let mut random = fastrand::Rng::with_seed(witness.connections.fetch_add(1, SeqCst));
    let Ok(mut connection) = h2::server::handshake(io).await else {
        return;
    };
    let last = random.usize(5..100);
    let mut served = 0;
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        if random.u8(0..16) == 0 {
            respond.send_reset(Reason::REFUSED_STREAM);
            continue;
        }
        let id = request.headers()["call"].to_str().unwrap().parse().unwrap();
        *witness.seen.lock().unwrap().entry(id).or_default() += 1;
        tokio::spawn(answer(request.into_body(), respond));
        served += 1;
        if served == last && random.bool() {
            connection.graceful_shutdown();
        } else if served == last {
            connection.abrupt_shutdown(Reason::INTERNAL_ERROR);
        }
    }
}

async fn answer(mut body: RecvStream, mut respond: SendResponse<Bytes>) {
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
    }
    let answer = http::Response::builder().header("grpc-status", 0);
    // Fails when the connection is gone.
    let _ = respond.send_response(answer.body(()).unwrap(), true);
}

/// How the calls of a fuzz ended.
#[derive(Debug, Default)]
struct Tally {
    answered: u64,
    not_sent: u64,
    in_doubt: u64,
    resends: u64,
    retries: u64,
}

/// Runs rounds of calls whose connections are cut, and asks the server about each call.
async fn fuzz(retry: Retry, rounds: u64) -> Tally {
    let witness = Arc::new(Witness::default());
    let place = Place::tcp();
    let listener = place.listen();
    let server = {
        let witness = Arc::clone(&witness);
        ServerThread::start("witness", move || serve(listener.into_listener(), witness))
    };
    let most = if retry == Retry::none() { 1 } else { 3 };
    let mut tally = Tally::default();
    for round in 0..rounds {
        let cutter = Cutter::start(place.addr(), cuts(round));
        let channel = connector(&cutter, round).retry(retry.clone());
        let channel = channel.connect_lazy().unwrap();
        let results = within(LIMIT, "a round", calls(&channel, round).join_all()).await;
        let stats = channel.stats();
        tally.resends += stats.resends;
        tally.retries += stats.retries;
        channel.close(Duration::ZERO).await;
        cutter.stop().await;
        within(LIMIT, "the server", everything_arrived(&place, &witness)).await;
        for (id, result) in results.into_iter().flatten() {
            let seen = witness.seen(id);
            assert!(seen <= most, "round {round}, {id}: seen {seen} times");
            match result {
                Ok(()) => {
                    assert!(seen >= 1, "round {round}, {id}: answered by nobody");
                    tally.answered += 1;
                }
                Err(error) if error.maybe_processed() => tally.in_doubt += 1,
                Err(error) => {
                    assert_eq!(seen, 0, "round {round}, {id}: {error:?}");
                    tally.not_sent += 1;
                }
            }
        }
    }
    drop(server);
    tally
}

/// Returns when the server has seen all that was on its way.
async fn everything_arrived(place: &Place, witness: &Witness) {
    // It accepts connections in their order, so once it has closed this one, it has all the earlier ones.
    let mut last = TcpStream::connect(place.addr()).await.unwrap();
    last.shutdown().await.unwrap();
    last.read_to_end(&mut Vec::new()).await.unwrap();
    wait_equal(LIMIT, 0, || witness.open.load(SeqCst)).await;
}

/// The first connections of a round are cut, after anything from the preface to most of the calls.
fn cuts(round: u64) -> impl FnMut() -> Cut + Send + 'static {
    let mut random = fastrand::Rng::with_seed(round);
    let mut cuts = random.u64(1..6);
    move || {
        if cuts == 0 {
            return Cut::Never;
        }
        cuts -= 1;
        Cut::After {
            bytes: (20.0 * 2_500_f64.powf(random.f64())) as usize,
            reset: random.bool(),
        }
    }
}

fn connector(cutter: &Cutter, round: u64) -> Connector {
    let backoff = Backoff::dialling()
        .initial(Duration::from_millis(1))
        .max(Duration::from_millis(3));
    let pool = PoolOptions::new()
        .max_connections(1 + round as usize % 3)
        .dial_backoff(backoff);
    Connector::tcp(cutter.addr().to_string())
        .pool(pool)
        .tcp_options(TcpOptions::new().send_buffer_size(4096))
        .wait_for_ready(round.is_multiple_of(2))
}

/// Several callers at once, each with one call after the other. Bodies are empty, whole, or stream.
fn calls(channel: &Channel, round: u64) -> JoinSet<Vec<(u64, Result<(), Error>)>> {
    let mut random = fastrand::Rng::with_seed(!round);
    let mut callers = JoinSet::new();
    let first = round * CALLERS * CALLS_EACH;
    for caller in 0..CALLERS {
        let ids = (0..CALLS_EACH).map(move |nth| first + caller * CALLS_EACH + nth);
        let channel = channel.clone();
        let mut random = random.fork();
        callers.spawn(async move {
            let mut results = Vec::new();
            for id in ids {
                results.push((id, call(&channel, id, &mut random).await));
            }
            results
        });
    }
    callers
}

async fn call(channel: &Channel, id: u64, random: &mut fastrand::Rng) -> Result<(), Error> {
    let frame = Bytes::from(vec![7; random.usize(1..4_000)]);
    let frames = std::iter::repeat_n(frame, random.usize(0..4));
    let frames = frames.map(|frame| Ok::<_, Status>(Frame::data(frame)));
    let mut request = post(Body::new(StreamBody::new(tokio_stream::iter(frames))));
    request.headers_mut().insert("call", id.into());
    let response = channel.send(request).await?;
    response.into_body().collect().await.map(drop)
}

/// 100 rounds, unless the environment says otherwise.
fn rounds() -> u64 {
    match std::env::var("TRUNKLINE_FUZZ_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("TRUNKLINE_FUZZ_ROUNDS is a number"),
        Err(_) => 100,
    }
}

/// Without retries a call is sent again only if it was not sent: so no call is seen twice, and none that failed as not
/// sent is seen at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_that_counts_as_not_sent_was_seen() {
    let leaks = LeakCheck::start().await;
    let tally = fuzz(Retry::none(), rounds()).await;
    println!("{tally:?}");
    assert_eq!(tally.retries, 0);
    assert!(tally.answered > 0 && tally.resends > 0, "{tally:?}");
    assert!(tally.not_sent > 0 && tally.in_doubt > 0, "{tally:?}");
    leaks.finish().await;
}

/// With retries the last attempt may not have been sent, and an earlier one have been seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_that_counts_as_unprocessed_was_seen_in_any_attempt() {
    let leaks = LeakCheck::start().await;
    let retry = Retry::exponential().idempotent(true).backoff(
        Backoff::calls()
            .initial(Duration::from_micros(100))
            .max(Duration::from_millis(1)),
    );
    let tally = fuzz(retry, rounds() / 2).await;
    println!("{tally:?}");
    assert!(tally.answered > 0 && tally.retries > 0, "{tally:?}");
    leaks.finish().await;
}

/// The same in one call: lost in flight, then nothing left to retry on.
#[tokio::test]
async fn a_lost_attempt_is_not_forgotten_when_the_next_finds_no_endpoint() {
    let leaks = LeakCheck::start().await;
    let mut peer = RawPeer::tcp();
    let retry = Retry::exponential().idempotent(true);
    let connecting = Connector::target(peer.uri()).retry(retry).connect();
    let (channel, mut conn) = peer.meet(&[], connecting).await;
    let mut client = EchoClient::new(channel.unwrap());
    let (result, ()) = tokio::join!(client.unary(request(1)), async {
        conn.next_echo_request().await;
        peer.stop_listening();
        conn.abort();
    });
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let error = Error::from_status(&status).unwrap();
    assert!(error.is_no_endpoint(), "{error:?}");
    // Of all attempts together: the last one found nothing to send to.
    assert_eq!(error.delivery(), Delivery::MaybeProcessed);
    assert_eq!(error.attempts(), 3);
    drop((client, peer));
    leaks.finish().await;
}
