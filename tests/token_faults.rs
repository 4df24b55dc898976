//! Tokens when something goes wrong: sources that break, refusals in every form, servers that refuse everything.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod client;
mod support;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use client::calls::{ask, unary};
use http::{HeaderMap, Response};
use support::calls::request;
use support::h2_server::{H2Conn, H2Peer, H2Request};
use support::leak::LeakCheck;
use support::response;
use support::scratch::Scratch;
use support::wait::within;
use tonic::{Code, Status};
use trunkline::{CallOptions, Channel, Connector, Credentials, Error, Retry, Token};
use trunkline_proto::echo_client::EchoClient;
use trunkline_proto::{EchoReply, Message as _};

const LIMIT: Duration = Duration::from_secs(10);

/// A peer on a Unix socket, and a channel to it.
struct Pair {
    channel: Channel,
    conn: H2Conn,
    _peer: H2Peer,
    _folder: Scratch,
}

impl Pair {
    async fn new(credentials: Credentials) -> Self {
        let folder = Scratch::new();
        let peer = H2Peer::unix(folder.path("peer.sock"));
        let connector = Connector::unix(peer.path())
            .credentials(credentials)
            .retry(Retry::none());
        let (channel, conn) = tokio::join!(connector.connect(), peer.accept());
        Self {
            channel: channel.unwrap(),
            conn,
            _peer: peer,
            _folder: folder,
        }
    }

    /// A call whose request is answered in this way. Gives its token, and what the caller got.
    async fn call(&mut self, answer: fn(H2Request)) -> (String, Result<EchoReply, Status>) {
        let answering = async {
            let request = self.conn.next().await;
            let token = request.header("authorization").unwrap().to_owned();
            answer(request);
            token
        };
        let both = async { tokio::join!(answering, unary(&self.channel, 1)) };
        within(LIMIT, "a call", both).await
    }
}

/// Counts exchanges; the token is `t1`, `t2`, ….
fn counted() -> (Credentials, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    let credentials = Credentials::exchange(move || {
        let nth = counter.fetch_add(1, SeqCst) + 1;
        async move { Ok(Token::new(format!("t{nth}"))) }
    });
    (credentials, count)
}

fn refuse(request: H2Request) {
    request.fail(16, "not that one");
}

fn accept(request: H2Request) {
    request.ok(&EchoReply::default().encode_to_vec());
}

/// Says so after a message, as a stream's server does whose token expires meanwhile.
fn refuse_in_trailers(mut request: H2Request) {
    let response = Response::builder().header("content-type", "application/grpc");
    let response = response.body(()).unwrap();
    let mut send = request.respond.send_response(response, false).unwrap();
    let message = response::message(&EchoReply::default().encode_to_vec());
    send.send_data(message, false).unwrap();
    let status = [("grpc-status".parse().unwrap(), 16.into())];
    send.send_trailers(HeaderMap::from_iter(status)).unwrap();
}

/// As a gateway does that knows nothing of gRPC.
fn refuse_in_http(mut request: H2Request) {
    let response = Response::builder()
        .status(401)
        .header("content-type", "text/html");
    let response = response.body(()).unwrap();
    let mut send = request.respond.send_response(response, false).unwrap();
    send.send_data(Bytes::from_static(b"<p>who are you?"), true)
        .unwrap();
}

/// In HTML tonic finds no message.
fn is_refusal(status: &Status) -> bool {
    matches!(status.code(), Code::Unauthenticated | Code::Internal)
}

#[tokio::test]
async fn a_refusal_after_a_message_drops_the_token() {
    let leaks = LeakCheck::start().await;
    let (credentials, count) = counted();
    let mut pair = Pair::new(credentials).await;
    let (token, result) = pair.call(refuse_in_trailers).await;
    assert_eq!(token, "Bearer t1");
    assert!(is_refusal(&result.unwrap_err()));
    // The response had begun, so the call was not repeated; the next one has another token.
    let (token, result) = pair.call(accept).await;
    assert_eq!(token, "Bearer t2");
    result.unwrap();
    assert_eq!(count.load(SeqCst), 2);
    drop(pair);
    leaks.finish().await;
}

/// Whoever refuses it: the server, or a gateway before it.
#[tokio::test]
async fn a_refusal_in_place_of_a_response_is_answered_with_another_token() {
    let leaks = LeakCheck::start().await;
    for refusing in [refuse, refuse_in_http] {
        let (credentials, count) = counted();
        let mut pair = Pair::new(credentials).await;
        let answering = async {
            for (token, answer) in [("Bearer t1", refusing), ("Bearer t2", accept)] {
                let request = pair.conn.next().await;
                assert_eq!(request.header("authorization"), Some(token));
                answer(request);
            }
        };
        let both = async { tokio::join!(unary(&pair.channel, 1), answering) };
        within(LIMIT, "a call", both).await.0.unwrap();
        assert_eq!(count.load(SeqCst), 2);
        assert_eq!(pair.channel.stats().resends, 1);
    }
    leaks.finish().await;
}

#[tokio::test]
async fn a_pinned_channel_drops_a_refused_token() {
    let leaks = LeakCheck::start().await;
    for refusing in [refuse, refuse_in_trailers, refuse_in_http] {
        let (credentials, count) = counted();
        let mut pair = Pair::new(credentials).await;
        let pinned = pair.channel.acquire().await.unwrap();
        let mut echo = EchoClient::new(pinned);
        let answering = async { refusing(pair.conn.next().await) };
        let (result, ()) = tokio::join!(echo.unary(request(1)), answering);
        assert!(is_refusal(&result.unwrap_err()));
        let answering = async {
            let request = pair.conn.next().await;
            assert_eq!(request.header("authorization"), Some("Bearer t2"));
            accept(request);
        };
        let (result, ()) = tokio::join!(echo.unary(request(2)), answering);
        result.unwrap();
        assert_eq!(count.load(SeqCst), 2);
    }
    leaks.finish().await;
}

#[tokio::test]
async fn a_pinned_call_that_waits_for_a_token_was_not_sent() {
    let leaks = LeakCheck::start().await;
    let pair = Pair::new(Credentials::exchange(pending)).await;
    let pinned = pair.channel.acquire().await.unwrap();
    let mut call = tonic::Request::new(request(1));
    let limit = Duration::from_millis(50);
    call.extensions_mut()
        .insert(CallOptions::new().timeout(limit));
    let status = EchoClient::new(pinned).unary(call).await.unwrap_err();
    let error = Error::from_status(&status).unwrap();
    assert!(error.is_timeout() && !error.maybe_processed(), "{error:?}");
    assert!(error.to_string().contains("for a token"), "{error}");
    drop(pair);
    leaks.finish().await;
}

#[tokio::test]
async fn a_source_that_panics_is_asked_again() {
    let leaks = LeakCheck::start().await;
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    let credentials = Credentials::exchange(move || {
        let nth = counter.fetch_add(1, SeqCst) + 1;
        // Once when it is asked, and once while it is awaited.
        assert_ne!(nth, 1, "the source is broken");
        async move {
            assert_ne!(nth, 2, "the source is broken");
            Ok(Token::new("good"))
        }
    });
    let mut pair = Pair::new(credentials).await;
    let mut errors = 0;
    while count.load(SeqCst) < 2 {
        let status = unary(&pair.channel, 1).await.unwrap_err();
        let error = Error::from_status(&status).unwrap();
        assert!(error.is_token(), "{error:?}");
        assert!(status.message().contains("panicked"), "{status:?}");
        errors += 1;
    }
    assert!(errors >= 2);
    // It rests as after any failure.
    let serving = async {
        let request = pair.conn.next().await;
        assert_eq!(request.header("authorization"), Some("Bearer good"));
        accept(request);
    };
    let calling = async { while unary(&pair.channel, 1).await.is_err() {} };
    let both = async { tokio::join!(serving, calling) };
    within(LIMIT, "a call with a token", both).await;
    drop(pair);
    leaks.finish().await;
}

#[tokio::test]
async fn a_server_that_refuses_every_token_is_no_reason_to_get_one_for_each_call() {
    const CALLS: u64 = 500;
    let leaks = LeakCheck::start().await;
    let (credentials, count) = counted();
    let mut pair = Pair::new(credentials).await;
    let channel = pair.channel.clone();
    let calling = async {
        for id in 0..CALLS {
            let error = ask(&channel, request(id), CallOptions::new())
                .await
                .unwrap_err();
            assert_eq!(
                (error.code(), error.message()),
                (Code::Unauthenticated, "not that one")
            );
        }
    };
    let serving = async {
        loop {
            refuse(pair.conn.next().await);
        }
    };
    tokio::select! {
        () = calling => {}
        () = serving => {}
    }
    // A handful, and one a second: not two for each call.
    let count = count.load(SeqCst);
    assert!(count < CALLS / 4, "{count}");
    drop((channel, pair));
    leaks.finish().await;
}
