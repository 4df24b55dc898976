//! Proves the test support itself, against tonic's own client and raw h2: the peers that misbehave.

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

use std::error::Error;
use std::io;
use std::time::Duration;

use support::calls::{call, client, request};
use support::frames::{code, kind, setting};
use support::h2_server::H2Peer;
use support::leak::{LeakCheck, alone};
use support::raw_peer::RawPeer;
use support::reaction::Reaction;
use support::response;
use support::scratch::Scratch;
use support::wait::wait_equal;
use tonic::{Code, Status};

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn raw_peer_answers_ok_and_with_a_status() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let first = call(&peer.uri(), request(1));
    let mut conn = peer.accept().await;
    conn.handshake(&[]).await;
    let stream = conn.next_request().await;
    assert_eq!(conn.messages(stream).await.len(), 1);
    // Field 1 (id) = 1, as protobuf.
    conn.respond_ok(stream, &[8, 1]).await;
    assert_eq!(first.await.unwrap().unwrap().id, 1);
    conn.closed().await;

    let second = call(&peer.uri(), request(2));
    let mut conn = peer.accept().await;
    conn.handshake(&[(setting::MAX_CONCURRENT_STREAMS, 1)])
        .await;
    conn.settings_acked().await;
    let stream = conn.next_request().await;
    conn.respond_trailers_only(stream, 8, "not now").await;
    let status = second.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "not now");

    conn.closed().await;
    let seen = peer.seen();
    assert_eq!((seen.connections(), seen.requests()), (2, 2));
    drop(peer);
    leaks.finish().await;
}

#[tokio::test]
async fn raw_peer_over_unix_says_goaway_and_refuses() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let peer = RawPeer::unix(scratch.path("raw.sock"));
    let refused = call(&peer.uri(), request(1));
    let mut conn = peer.accept().await;
    conn.handshake(&[]).await;
    let stream = conn.next_request().await;
    conn.rst(stream, code::REFUSED_STREAM).await;
    let status = refused.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    conn.closed().await;

    let turned_away = call(&peer.uri(), request(2));
    let mut conn = peer.accept().await;
    conn.handshake(&[]).await;
    conn.next_request().await;
    conn.goaway(0, code::ENHANCE_YOUR_CALM, "too_many_pings")
        .await;
    turned_away.await.unwrap().unwrap_err();
    conn.closed().await;
    drop(peer);
    leaks.finish().await;
}

#[tokio::test]
async fn raw_peer_closes_aborts_and_refuses_connections() {
    let _alone = alone().await;
    let mut peer = RawPeer::tcp();
    let mut ends = Vec::new();
    for abort in [false, true] {
        let cut = call(&peer.uri(), request(1));
        let mut conn = peer.accept().await;
        conn.handshake(&[]).await;
        conn.next_request().await;
        assert_eq!(peer.seen().open(), 1);
        if abort {
            conn.abort();
        } else {
            conn.close().await;
        }
        ends.push(cut.await.unwrap().unwrap_err());
        assert_eq!(peer.seen().open(), 0);
    }
    let [closed, aborted] = ends.try_into().unwrap();
    assert!(!is_reset(&closed), "{closed:?}");
    assert!(is_reset(&aborted), "{aborted:?}");

    peer.stop_listening();
    let refused = call(&peer.uri(), request(2)).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    peer.listen();
    let again = call(&peer.uri(), request(3));
    let mut conn = peer.accept().await;
    conn.handshake(&[]).await;
    let stream = conn.next_request().await;
    conn.respond_ok(stream, &[]).await;
    again.await.unwrap().unwrap();
}

/// Whether a connection reset is among the status's sources.
fn is_reset(status: &Status) -> bool {
    let mut source: Option<&(dyn Error + 'static)> = Some(status);
    while let Some(error) = source {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionReset) {
            return true;
        }
        source = error.source();
    }
    false
}

#[tokio::test]
async fn raw_peer_sees_pings_resets_and_split_header_blocks() {
    let _alone = alone().await;
    let peer = RawPeer::tcp();
    let io = tokio::net::TcpStream::connect(peer.addr()).await.unwrap();
    let (mut sender, mut connection) = h2::client::handshake(io).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    let connection = tokio::spawn(connection);
    let mut conn = peer.accept().await;
    conn.handshake(&[]).await;

    let pinging = tokio::spawn(async move { pings.ping(h2::Ping::opaque()).await });
    conn.auto.ping = false;
    let data = conn.next_ping().await;
    conn.pong(data).await;
    pinging.await.unwrap().unwrap();
    assert_eq!(peer.seen().pings(), 1);

    // Longer than a frame, so that it is continued.
    let request = http::Request::get("http://localhost/")
        .header("long", "x".repeat(40_000))
        .body(())
        .unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    let (stream, block, ends) = conn.next_request_headers().await;
    assert!(block.len() > 16_384 && ends);
    conn.send_headers(
        stream,
        &[(":status", "200"), ("long", &"y".repeat(300))],
        false,
    )
    .await;
    let response = response.await.unwrap();
    assert_eq!(response.headers()["long"], "y".repeat(300));
    drop(response);
    assert_eq!(conn.next_rst(stream).await, code::CANCEL);
    assert_eq!(peer.seen().resets(code::CANCEL), 1);

    conn.rst(0, code::CANCEL).await;
    assert_eq!(conn.next_goaway().await, code::PROTOCOL_ERROR);
    assert_eq!(peer.seen().goaways(), 1);
    connection.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn raw_peer_that_never_sends_settings_still_gets_the_clients() {
    let _alone = alone().await;
    let peer = RawPeer::tcp();
    let calling = call(&peer.uri(), request(1));
    let mut conn = peer.accept().await;
    conn.read_preface().await;
    assert_eq!(conn.recv().await.unwrap().kind, kind::SETTINGS);
    assert!(!calling.is_finished());
    calling.abort();
    conn.closed().await;
}

#[tokio::test]
async fn served_peer_reacts_to_each_request() {
    let leaks = LeakCheck::start().await;
    let mut peer = RawPeer::tcp().serve(&[(setting::MAX_CONCURRENT_STREAMS, 100)], |request| {
        let id = request.echo().unwrap().id;
        match id {
            1 => Reaction::echo(request, "raw"),
            2 => Reaction::Fail(10, "asked".to_owned()),
            3 => Reaction::refuse(),
            4 => Reaction::Reset(code::INTERNAL_ERROR),
            5 => Reaction::echo(request, "raw").after_goaway(request.stream, code::NO_ERROR, ""),
            6 => Reaction::Silence.after_goaway(0, code::NO_ERROR, ""),
            7 => Reaction::Close,
            8 => Reaction::Abort,
            9 => Reaction::Frames(vec![
                response::headers(request.stream),
                response::trailers(request.stream, 5, "no message"),
            ]),
            10 => Reaction::echo(request, "raw").after(Duration::from_millis(20)),
            _ => Reaction::Silence,
        }
    });
    let mut ends = Vec::new();
    for id in 1..=10 {
        let end = call(&peer.uri(), request(id)).await.unwrap();
        ends.push(end.map_or_else(|status| status.code(), |_| Code::Ok));
    }
    let [one, two, three, four, five, six, seven, eight, nine, ten] = ends.try_into().unwrap();
    assert_eq!(
        (one, two, three),
        (Code::Ok, Code::Aborted, Code::Unavailable)
    );
    assert_eq!((four, five), (Code::Internal, Code::Ok));
    assert_ne!(six, Code::Ok);
    assert_ne!(seven, Code::Ok);
    assert_ne!(eight, Code::Ok);
    assert_eq!((nine, ten), (Code::NotFound, Code::Ok));

    let silent = call(&peer.uri(), request(11));
    wait_equal(LIMIT, 1, || peer.seen().streams()).await;
    silent.abort();
    wait_equal(LIMIT, 1, || peer.seen().resets(code::CANCEL)).await;
    wait_equal(LIMIT, 0, || peer.seen().streams()).await;

    // Neither the refused one nor the one above GOAWAY's last stream was processed.
    let handled: Vec<_> = peer.seen().handled().into_keys().collect();
    assert_eq!(handled, [1, 2, 4, 5, 7, 8, 9, 10, 11]);
    assert_eq!(peer.seen().requests(), 11);
    peer.kill();
    drop(peer);
    leaks.finish().await;
}

#[tokio::test]
#[should_panic(expected = "panics of the peer's rule")]
async fn served_peer_passes_on_a_panic_of_its_rule() {
    let _alone = alone().await;
    let peer = RawPeer::tcp().serve(&[], |_| panic!("the rule"));
    call(&peer.uri(), request(1)).await.unwrap().unwrap_err();
}

#[tokio::test]
async fn h2_peer_shows_requests_decoded() {
    let leaks = LeakCheck::start().await;
    let peer = H2Peer::tcp();
    let mut client = client(&peer.uri());
    let calling = tokio::spawn(async move {
        let mut timed = tonic::Request::new(request(1));
        timed.set_timeout(Duration::from_secs(3));
        let first = client.unary(timed).await;
        let second = client.unary(request(2)).await;
        (first, second)
    });
    let mut conn = peer.accept().await;
    let mut first = conn.next().await;
    assert_eq!(first.path(), "/trunkline.echo.v1.Echo/Unary");
    assert_eq!(first.parts.uri.scheme_str(), Some("http"));
    let authority = first.parts.uri.authority().unwrap().as_str();
    assert_eq!(authority, peer.addr().to_string());
    assert_eq!(first.header("grpc-timeout"), Some("3000000u"));
    let (messages, trailers) = first.read().await;
    assert_eq!((messages.len(), trailers), (1, None));
    first.ok(&[8, 1]);
    conn.next().await.fail(5, "gone");
    let (first, second) = calling.await.unwrap();
    assert_eq!(first.unwrap().into_inner().id, 1);
    assert_eq!(second.unwrap_err().code(), Code::NotFound);
    conn.ended().await;
    drop(peer);
    leaks.finish().await;
}

#[tokio::test]
async fn h2_peer_sees_resets_and_shuts_down() {
    let _alone = alone().await;
    let peer = H2Peer::tcp();
    let calling = call(&peer.uri(), request(1));
    let mut conn = peer.accept().await;
    let mut first = conn.next().await;
    calling.abort();
    assert_eq!(first.was_reset().await, h2::Reason::CANCEL);

    let calling = call(&peer.uri(), request(2));
    let mut conn = peer.accept().await;
    let second = conn.next().await;
    conn.graceful_shutdown();
    second.ok(&[]);
    calling.await.unwrap().unwrap();
    conn.ended().await;
}
