//! PING keepalive: who is probed and when, what finds a dead peer, what a server's complaint changes.
//!
//! The clock is paused, so spans are exact and cost nothing. The sockets are Unix sockets, because what is written to
//! one is there at once: with TCP the kernel may take a moment, and a paused clock would run on meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use support::burst::{all_ok, burst, ended};
use support::calls::request;
use support::frames::{code, flag, kind};
use support::leak::LeakCheck;
use support::raw_conn::RawConn;
use support::raw_peer::RawPeer;
use support::response;
use support::scratch::Scratch;
use tokio::time::Instant;
use trunkline::{Channel, Connector, Delivery, Error, Keepalive, PoolOptions, Retry};
use trunkline_proto::echo_client::EchoClient;

const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_millis(500);
/// Less than what matters here, more than the spread of a redial.
const MOMENT: Duration = Duration::from_millis(200);

fn probing() -> Keepalive {
    Keepalive::every(INTERVAL)
        .timeout(TIMEOUT)
        .allow_frequent()
        .on_unix_sockets(true)
}

/// A peer, and a channel to it.
struct Pair {
    peer: RawPeer,
    channel: Channel,
    conn: RawConn,
    _scratch: Scratch,
}

impl Pair {
    async fn connect(keepalive: Keepalive) -> Self {
        let scratch = Scratch::new();
        let peer = RawPeer::unix(scratch.path("peer.sock"));
        let connecting = Connector::target(peer.uri())
            .keepalive(keepalive)
            .retry(Retry::none())
            .no_timeout()
            .connect();
        let (channel, mut conn) = peer.meet(&[], connecting).await;
        conn.settings_acked().await;
        conn.auto.ping = false;
        Self {
            peer,
            channel: channel.unwrap(),
            conn,
            _scratch: scratch,
        }
    }

    fn client(&self) -> EchoClient<Channel> {
        EchoClient::new(self.channel.clone())
    }

    /// Whether the client has sent nothing at all on an idle connection: then its answer to a PING comes first.
    async fn is_quiet(&mut self) -> bool {
        self.conn.ping(*b"anything").await;
        let next = self.conn.recv().await.unwrap();
        next.kind == kind::PING && next.has(flag::ACK)
    }

    async fn close(self) {
        drop(self.channel);
        self.conn.closed().await;
    }
}

/// Waits for a PING, answers it, and gives its time.
async fn answered_ping(conn: &mut RawConn) -> Instant {
    let data = conn.next_ping().await;
    conn.pong(data).await;
    Instant::now()
}

/// The span between two PINGs that are answered.
async fn spacing(conn: &mut RawConn) -> Duration {
    let first = answered_ping(conn).await;
    answered_ping(conn).await - first
}

/// Lets several intervals pass, by the PINGs of a connection that is probed.
async fn let_intervals_pass() {
    let mut clock = Pair::connect(probing().while_idle(true)).await;
    for _ in 0..5 {
        answered_ping(&mut clock.conn).await;
    }
    clock.close().await;
}

fn about(actual: Duration, expected: Duration) -> bool {
    (expected..expected + MOMENT).contains(&actual)
}

#[tokio::test(start_paused = true)]
async fn a_frozen_peer_is_found_while_idle() {
    let leaks = LeakCheck::start().await;
    let pair = Pair::connect(probing().while_idle(true)).await;
    let start = Instant::now();
    // Nothing reads its socket any more; the dial that replaces it shows when it was given up.
    let mut new = pair.peer.accept().await;
    assert!(about(start.elapsed(), INTERVAL + TIMEOUT), "{start:?}");
    new.handshake(&[]).await;
    let call = burst(&pair.client(), [1]);
    new.echo_next().await;
    all_ok(call).await;
    pair.close().await;
    new.closed().await;
    leaks.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_frozen_peer_is_found_in_flight() {
    let leaks = LeakCheck::start().await;
    let mut pair = Pair::connect(probing()).await;
    let start = Instant::now();
    let calls = burst(&pair.client(), 1..=2);
    for _ in 0..2 {
        pair.conn.next_echo_request().await;
    }
    for (_, result) in ended(calls).await {
        let status = result.unwrap_err();
        assert!(status.message().contains("keepalive"), "{status:?}");
        let error = Error::from_status(&status).unwrap();
        assert!(error.is_disconnected());
        assert_eq!(error.delivery(), Delivery::MaybeProcessed);
    }
    assert!(about(start.elapsed(), INTERVAL + TIMEOUT), "{start:?}");
    pair.close().await;
    leaks.finish().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_probed_unless_asked_for() {
    let leaks = LeakCheck::start().await;
    let mut idle = Pair::connect(Keepalive::off()).await;
    let mut busy = Pair::connect(Keepalive::off()).await;
    let call = burst(&busy.client(), [1]);
    let (stream, id) = busy.conn.next_echo_request().await;
    let_intervals_pass().await;
    assert!(idle.is_quiet().await);
    assert!(busy.is_quiet().await);
    busy.conn.answer_echo(stream, id).await;
    all_ok(call).await;
    idle.close().await;
    busy.close().await;
    leaks.finish().await;
}

#[tokio::test(start_paused = true)]
async fn unix_sockets_are_not_probed_unless_asked_for() {
    let leaks = LeakCheck::start().await;
    let mut pair = Pair::connect(probing().while_idle(true).on_unix_sockets(false)).await;
    let_intervals_pass().await;
    assert!(pair.is_quiet().await);
    pair.close().await;
    leaks.finish().await;
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_not_probed_unless_asked_for() {
    let leaks = LeakCheck::start().await;
    let mut pair = Pair::connect(probing()).await;
    let_intervals_pass().await;
    assert!(pair.is_quiet().await);
    // With a call open, it is probed.
    let call = burst(&pair.client(), [1]);
    let (stream, id) = pair.conn.next_echo_request().await;
    answered_ping(&mut pair.conn).await;
    pair.conn.answer_echo(stream, id).await;
    all_ok(call).await;
    pair.close().await;
    leaks.finish().await;
}

#[tokio::test(start_paused = true)]
async fn pings_keep_their_interval_whatever_the_timeout() {
    for timeout in [TIMEOUT, 2 * INTERVAL] {
        let leaks = LeakCheck::start().await;
        let mut pair = Pair::connect(probing().timeout(timeout).while_idle(true)).await;
        for _ in 0..3 {
            let spacing = spacing(&mut pair.conn).await;
            assert!(about(spacing, INTERVAL), "{spacing:?}, timeout {timeout:?}");
        }
        pair.close().await;
        leaks.finish().await;
    }
}

/// Any byte is a sign of life: a peer that is busy sending need not answer PINGs in time, or at all.
#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_is_alive() {
    let leaks = LeakCheck::start().await;
    let mut pair = Pair::connect(probing().while_idle(true)).await;
    let mut client = pair.client();
    let call = tokio::join!(client.server_stream(request(1)), async {
        let stream = pair.conn.next_request().await;
        pair.conn.send(&response::headers(stream)).await;
        stream
    });
    let (replies, stream) = call;
    let mut replies = replies.unwrap().into_inner();
    // The first PING is never answered, and each pause is longer than the interval.
    pair.conn.next_ping().await;
    for _ in 0..20 {
        pair.conn.send_message(stream, &[8, 1]).await;
        assert_eq!(replies.message().await.unwrap().unwrap().id, 1);
        tokio::time::sleep(INTERVAL + TIMEOUT / 2).await;
    }
    pair.conn.send_trailers(stream, 0, "").await;
    assert!(replies.message().await.unwrap().is_none());
    assert_eq!(pair.channel.status().endpoints[0].connections, 1);
    drop((replies, client));
    pair.close().await;
    leaks.finish().await;
}

#[tokio::test(start_paused = true)]
async fn too_many_pings_doubles_the_interval_of_the_endpoint() {
    let leaks = LeakCheck::start().await;
    let mut pair = Pair::connect(probing().while_idle(true)).await;
    let client = pair.client();
    for (round, factor) in [(1, 1), (2, 2), (3, 4)] {
        let spacing = spacing(&mut pair.conn).await;
        assert!(about(spacing, INTERVAL * factor), "{spacing:?} in {round}");
        let call = burst(&client, [round]);
        let (stream, id) = pair.conn.next_echo_request().await;
        let complaint = pair
            .conn
            .goaway(stream, code::ENHANCE_YOUR_CALM, "too_many_pings");
        complaint.await;
        pair.conn.answer_echo(stream, id).await;
        all_ok(call).await;

        let mut new = pair.peer.accept().await;
        new.handshake(&[]).await;
        new.auto.ping = false;
        std::mem::replace(&mut pair.conn, new).closed().await;
    }
    assert_eq!(pair.channel.stats().failed, 0);
    drop(client);
    pair.close().await;
    leaks.finish().await;
}

#[tokio::test(start_paused = true)]
async fn connections_that_are_told_together_double_the_interval_once() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let peer = RawPeer::unix(scratch.path("peer.sock"));
    let channel = Connector::target(peer.uri())
        .keepalive(probing().while_idle(true))
        .pool(PoolOptions::new().min_connections(3))
        .connect_lazy()
        .unwrap();
    let mut told = accept_three(&peer).await;
    answered_ping(&mut told[0]).await;
    for conn in &mut told {
        let complaint = conn.goaway(0, code::ENHANCE_YOUR_CALM, "too_many_pings");
        complaint.await;
    }
    let mut new = accept_three(&peer).await;
    let spacing = spacing(&mut new[0]).await;
    assert!(about(spacing, INTERVAL * 2), "{spacing:?}");
    drop((channel, peer, told, new));
    leaks.finish().await;
}

async fn accept_three(peer: &RawPeer) -> Vec<RawConn> {
    let mut accepted = Vec::new();
    for _ in 0..3 {
        let mut conn = peer.accept().await;
        conn.handshake(&[]).await;
        conn.auto.ping = false;
        accepted.push(conn);
    }
    accepted
}

/// Only that complaint is about PINGs.
#[tokio::test(start_paused = true)]
async fn other_goaways_leave_the_interval_alone() {
    let leaks = LeakCheck::start().await;
    let mut pair = Pair::connect(probing().while_idle(true)).await;
    for (code, debug) in [
        (code::NO_ERROR, "too_many_pings"),
        (code::ENHANCE_YOUR_CALM, "too_many_calls"),
    ] {
        answered_ping(&mut pair.conn).await;
        pair.conn.goaway(0, code, debug).await;
        let mut new = pair.peer.accept().await;
        new.handshake(&[]).await;
        new.auto.ping = false;
        std::mem::replace(&mut pair.conn, new).closed().await;
        let spacing = spacing(&mut pair.conn).await;
        assert!(about(spacing, INTERVAL), "{spacing:?} after {debug}");
    }
    pair.close().await;
    leaks.finish().await;
}
