//! The four kinds of gRPC calls, under the client that tonic generates, over TCP and Unix sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use support::calls::request;
use support::leak::LeakCheck;
use support::scratch::Scratch;
use support::server::{EchoServer, EchoServerBuilder};
use support::wait::{wait_equal, within};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use trunkline::{Channel, Connector};
use trunkline_proto::echo_client::EchoClient;
use trunkline_proto::{EchoReply, EchoRequest};

const LIMIT: Duration = Duration::from_secs(20);
/// Larger than all windows of both sides.
const LARGE: usize = 8 << 20;
const CHUNK: usize = 64 << 10;

/// Runs `test` against a server on TCP and one on a Unix socket, and checks that both are left as they were.
async fn over_both<F: Future<Output = ()>>(
    options: EchoServerBuilder,
    test: impl Fn(EchoClient<Channel>) -> F,
) {
    for unix in [false, true] {
        let leaks = LeakCheck::start().await;
        let scratch = Scratch::new();
        let server = match unix {
            false => options.clone().tcp(),
            true => options.clone().unix(scratch.path("echo.sock")),
        };
        let channel = Connector::target(server.uri()).connect().await.unwrap();
        let client = EchoClient::new(channel.clone())
            .max_decoding_message_size(2 * LARGE)
            .max_encoding_message_size(2 * LARGE);
        within(LIMIT, "the calls", test(client)).await;

        let endpoint = || channel.status().endpoints.remove(0);
        wait_equal(LIMIT, 0, || endpoint().in_flight).await;
        assert_eq!(endpoint().connections, 1);
        let stats = channel.stats();
        assert_eq!((stats.failed, stats.retries, stats.resends), (0, 0, 0));
        assert_eq!(server.journal().accepted(), 1);
        drop(channel);
        wait_equal(LIMIT, 0, || server.journal().open()).await;
        assert_eq!(server.journal().started(), server.journal().finished());
        drop(server);
        leaks.finish().await;
    }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn all_four_kinds() {
    over_both(EchoServer::builder("a"), |mut client| async move {
        let reply = client.unary(request(1)).await.unwrap().into_inner();
        let expected = EchoReply {
            id: 1,
            payload: b"payload".to_vec(),
            server: "a".to_owned(),
            sequence: 0,
        };
        assert_eq!(reply, expected);

        let asked = EchoRequest {
            repeat: 3,
            ..request(2)
        };
        let replies = client.server_stream(asked).await.unwrap().into_inner();
        let sequence: Vec<_> = replies.map(|it| it.unwrap().sequence).collect().await;
        assert_eq!(sequence, [0, 1, 2]);

        let messages = tokio_stream::iter([request(3), request(3)]);
        let reply = client.client_stream(messages).await.unwrap().into_inner();
        assert_eq!(reply.payload, b"payloadpayload");

        let messages = tokio_stream::iter([request(4), request(5)]);
        let replies = client.bidi_stream(messages).await.unwrap().into_inner();
        let ids: Vec<_> = replies.map(|reply| reply.unwrap().id).collect().await;
        assert_eq!(ids, [4, 5]);
    })
    .await;
}

/// A status is an answer, before messages and after them.
#[tokio::test]
async fn the_servers_status_arrives() {
    over_both(EchoServer::builder("a"), |mut client| async move {
        let failing = EchoRequest {
            fail_code: Code::Aborted as u32,
            ..request(1)
        };
        let status = client.unary(failing.clone()).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::Aborted, "asked to fail")
        );

        let after_two = EchoRequest {
            repeat: 2,
            ..failing
        };
        let mut replies = client.server_stream(after_two).await.unwrap().into_inner();
        assert_eq!(replies.message().await.unwrap().unwrap().sequence, 0);
        assert_eq!(replies.message().await.unwrap().unwrap().sequence, 1);
        assert_eq!(replies.message().await.unwrap_err().code(), Code::Aborted);
    })
    .await;
}

#[tokio::test]
async fn ping_pong_while_the_request_stays_open() {
    over_both(EchoServer::builder("a"), |mut client| async move {
        let (send, messages) = mpsc::channel(1);
        send.send(request(0)).await.unwrap();
        let replies = client.bidi_stream(ReceiverStream::new(messages)).await;
        let mut replies = replies.unwrap().into_inner();
        for id in 0..200 {
            let reply = replies.message().await.unwrap().unwrap();
            assert_eq!((reply.id, u64::from(reply.sequence)), (id, id));
            send.send(request(id + 1)).await.unwrap();
        }
        drop(send);
        assert_eq!(replies.message().await.unwrap().unwrap().id, 200);
        assert!(replies.message().await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn large_messages_both_ways() {
    let options = EchoServer::builder("a").max_message_size(2 * LARGE);
    over_both(options, |mut client| async move {
        let large = EchoRequest {
            payload: bytes(LARGE),
            ..request(1)
        };
        let reply = client.unary(large.clone()).await.unwrap().into_inner();
        assert!(reply.payload == large.payload);
    })
    .await;
}

#[tokio::test]
async fn long_streams_both_ways() {
    let options = EchoServer::builder("a").max_message_size(2 * LARGE);
    over_both(options, |mut client| async move {
        let chunk = EchoRequest {
            payload: bytes(CHUNK),
            repeat: (LARGE / CHUNK) as u32,
            ..request(1)
        };
        let upload = tokio_stream::iter(vec![chunk.clone(); LARGE / CHUNK]);
        let reply = client.client_stream(upload).await.unwrap().into_inner();
        assert!(reply.payload == chunk.payload.repeat(LARGE / CHUNK));

        let mut replies = client
            .server_stream(chunk.clone())
            .await
            .unwrap()
            .into_inner();
        let mut sequence = 0;
        while let Some(reply) = replies.message().await.unwrap() {
            assert_eq!(reply.sequence, sequence);
            assert!(reply.payload == chunk.payload);
            sequence += 1;
        }
        assert_eq!(sequence, chunk.repeat);
    })
    .await;
}

/// A bulk stream takes its share of the connection and no more: small calls get through while its reader is away.
#[tokio::test]
async fn small_calls_pass_a_bulk_stream() {
    over_both(EchoServer::builder("a"), |mut client| async move {
        let bulk = EchoRequest {
            payload: bytes(CHUNK),
            repeat: (LARGE / CHUNK) as u32,
            ..request(1)
        };
        let mut replies = client
            .server_stream(bulk.clone())
            .await
            .unwrap()
            .into_inner();
        for id in 2..50 {
            assert_eq!(client.unary(request(id)).await.unwrap().into_inner().id, id);
        }
        let mut count = 0;
        while replies.message().await.unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, bulk.repeat);
    })
    .await;
}
