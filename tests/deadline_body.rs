//! The deadline of a call holds to the end of its response, also when there is always something to read.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use support::calls::request;
use support::frames::code;
use support::leak::LeakCheck;
use support::raw_peer::RawPeer;
use support::response;
use support::wait::within;
use tokio::time::Instant;
use tonic::{Code, Request};
use trunkline::{CallOptions, Connector, Error, Stage};
use trunkline_proto::echo_client::EchoClient;
use trunkline_proto::{EchoReply, Message};

const LIMIT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_reader_that_is_slower_than_its_peer_is_stopped_at_the_deadline() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let connecting = Connector::target(peer.uri()).connect();
    let (channel, mut conn) = peer.meet(&[], connecting).await;
    let mut client = EchoClient::new(channel.unwrap());
    let started = Instant::now();
    let mut streaming = Request::new(request(1));
    let options = CallOptions::new().timeout(TIMEOUT);
    streaming.extensions_mut().insert(options);
    let (called, stream) = tokio::join!(client.server_stream(streaming), async {
        let stream = conn.next_request().await;
        let reply = EchoReply {
            id: 1,
            ..EchoReply::default()
        };
        conn.send(&response::headers(stream)).await;
        for _ in 0..3 {
            conn.send_message(stream, &reply.encode_to_vec()).await;
        }
        // An answer proves that the client has read the messages.
        conn.ping(*b"all read").await;
        conn.next_frame(support::frames::kind::PING, 0).await;
        stream
    });
    let mut replies = called.unwrap().into_inner();
    assert_eq!(replies.message().await.unwrap().unwrap().id, 1);

    tokio::time::sleep_until(started + 2 * TIMEOUT).await;
    let next = within(LIMIT, "the next message", replies.message()).await;
    let status = next.expect_err("a message after the deadline");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    let error = Error::from_status(&status).unwrap();
    assert_eq!(error.stage(), Some(Stage::Body));
    assert_eq!(conn.next_rst(stream).await, code::CANCEL);
    drop((replies, client));
    conn.closed().await;
    drop(peer);
    leaks.finish().await;
}
