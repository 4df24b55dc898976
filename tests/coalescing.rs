//! What leaves in one write: not each call by itself, and not all of a connection's calls either.

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

mod client;
mod support;

use bytes::BytesMut;
use client::counting::CountingDialer;
use support::calls::request;
use support::leak::LeakCheck;
use support::raw_peer::RawPeer;
use support::response;
use tokio::task::JoinSet;
use trunkline::Connector;
use trunkline_proto::echo_client::EchoClient;

/// Callers whose answers came in one read are ready together. One write would leave the peer idle until the last of
/// them is through, sixteen would cost fifteen system calls.
#[tokio::test]
async fn calls_that_are_ready_together_leave_in_two_halves() {
    const CALLERS: u64 = 16;
    const ROUNDS: u64 = 5;
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let dialer = CountingDialer::default();
    let connecting = Connector::target(peer.uri())
        .dialer(dialer.clone())
        .connect();
    let (channel, mut conn) = peer.meet(&[], connecting).await;
    let client = EchoClient::new(channel.unwrap());
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let mut client = client.clone();
        callers.spawn(async move {
            for round in 0..ROUNDS {
                client
                    .unary(request(round * CALLERS + caller))
                    .await
                    .unwrap();
            }
        });
    }
    for round in 0..ROUNDS {
        let mut answers = BytesMut::new();
        let before = dialer.writes();
        for _ in 0..CALLERS {
            let (stream, _) = conn.next_echo_request().await;
            for frame in response::ok(stream, b"") {
                answers.extend_from_slice(&frame.encode());
            }
        }
        // In the first round they were ready one after the other.
        if round > 0 {
            assert_eq!(dialer.writes() - before, 2, "round {round}");
        }
        conn.send_raw(&answers).await;
    }
    callers.join_all().await;
    drop((client, conn, peer));
    leaks.finish().await;
}
