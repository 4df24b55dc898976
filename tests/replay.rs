//! What is kept of a request so that it can be sent again, and what is not.

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

use std::future::poll_fn;
use std::time::Duration;

use client::calls::{ask, endpoint};
use client::pair::quick;
use support::calls::request;
use support::h2_server::H2Peer;
use support::leak::LeakCheck;
use support::response;
use support::server::EchoServer;
use support::wait::within;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use trunkline::{CallOptions, Connector};
use trunkline_proto::echo_client::EchoClient;
use trunkline_proto::{EchoRequest, Message};

const LIMIT: Duration = Duration::from_secs(5);

fn handled(server: &EchoServer, id: u64) -> u64 {
    server.journal().handled().get(&id).copied().unwrap_or(0)
}

#[tokio::test]
async fn a_request_above_the_replay_buffer_is_sent_but_not_again() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let sized = |id, bytes, fail_code: u32| EchoRequest {
        payload: vec![7; bytes],
        fail_code,
        ..request(id)
    };
    let retry = quick().replay_buffer(64 << 10);
    let connector = Connector::endpoints([endpoint(&server)]).retry(retry);
    let channel = connector.connect().await.unwrap();
    let new = CallOptions::new;
    let (small, large) = (32 << 10, 1 << 20);
    let reply = ask(&channel, sized(1, large, 0), new()).await.unwrap();
    assert_eq!(reply.payload, vec![7; large]);
    for (id, bytes, times) in [(2, small, 3), (3, large, 1), (4, 65_000, 3), (5, 66_000, 1)] {
        let failed = ask(&channel, sized(id, bytes, 14), new()).await;
        assert_eq!(failed.unwrap_err().code(), Code::Unavailable);
        assert_eq!(handled(&server, id), times, "{bytes} bytes");
    }

    // A stream that outgrows it on the way.
    let parts = (0..16).map(move |_| sized(6, 8 << 10, 0));
    let mut client = EchoClient::new(channel.clone());
    let joined = client
        .client_stream(tokio_stream::iter(parts))
        .await
        .unwrap();
    assert_eq!(joined.into_inner().payload, vec![7; 16 * (8 << 10)]);
    let parts = (0..16).map(move |part| sized(7, 8 << 10, if part == 15 { 14 } else { 0 }));
    let failed = client.client_stream(tokio_stream::iter(parts)).await;
    assert_eq!(failed.unwrap_err().code(), Code::Unavailable);
    assert_eq!((handled(&server, 6), handled(&server, 7)), (1, 1));
    drop((client, channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn a_streaming_request_is_replayed_from_its_start_and_goes_on() {
    let leaks = LeakCheck::start().await;
    let peer = H2Peer::tcp();
    let connector = Connector::tcp(peer.addr().to_string()).retry(quick());
    let channel = connector.connect_lazy().unwrap();
    let (messages, body) = mpsc::channel(4);
    let mut client = EchoClient::new(channel.clone());
    let calling =
        tokio::spawn(async move { client.client_stream(ReceiverStream::new(body)).await });
    messages.send(request(1)).await.unwrap();
    let mut conn = peer.accept().await;
    let mut first = conn.next().await;
    let begun = poll_fn(|cx| first.body.poll_data(cx))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(begun, response::message(&request(1).encode_to_vec()));
    first.fail(Code::Unavailable as i32, "again");

    let mut second = conn.next().await;
    messages.send(request(2)).await.unwrap();
    messages.send(request(3)).await.unwrap();
    drop(messages);
    let (replayed, _) = second.read().await;
    let ids = replayed
        .iter()
        .map(|it| EchoRequest::decode(&it[..]).unwrap().id);
    assert_eq!(ids.collect::<Vec<_>>(), [1, 2, 3]);
    second.ok(&[8, 1]);
    let reply = within(LIMIT, "the call", calling).await.unwrap();
    assert_eq!(reply.unwrap().into_inner().id, 1);
    assert_eq!(channel.stats().retries, 1);
    drop(channel);
    conn.ended().await;
    drop(peer);
    leaks.finish().await;
}
