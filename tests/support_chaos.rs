//! Proves the chaos proxy itself, with bare sockets.

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

use std::io::ErrorKind;
use std::time::Duration;

use support::chaos::{Chaos, Flow, Toxics, Way};
use support::leak::LeakCheck;
use support::net::{Listener, Stream};
use support::place::Place;
use support::scratch::Scratch;
use support::wait::{wait_equal, wait_until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(5);

/// Both ends of a connection through a proxy.
struct Ends {
    leaks: LeakCheck,
    listener: Listener,
    chaos: Chaos,
    client: Stream,
    server: Stream,
}

impl Ends {
    async fn meet() -> Self {
        let leaks = LeakCheck::start().await;
        let place = Place::tcp();
        let listener = place.listen().into_listener();
        let chaos = Chaos::tcp(place.addr(), 1);
        let client = Stream::Tcp(TcpStream::connect(chaos.addr()).await.unwrap());
        let server = within(LIMIT, "the proxy", listener.accept()).await.unwrap();
        Self {
            leaks,
            listener,
            chaos,
            client,
            server,
        }
    }

    async fn finish(self) {
        drop((self.listener, self.chaos, self.client, self.server));
        self.leaks.finish().await;
    }
}

fn flow(flow: Flow) -> Toxics {
    Toxics {
        flow,
        ..Toxics::default()
    }
}

/// So many bytes, which are the ones expected.
async fn reads(from: &mut Stream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    within(LIMIT, "bytes", from.read_exact(&mut bytes))
        .await
        .unwrap();
    assert_eq!(bytes, expected);
}

async fn ends(from: &mut Stream) -> Result<usize, ErrorKind> {
    let end = within(LIMIT, "the end", from.read(&mut [0; 16])).await;
    end.map_err(|error| error.kind())
}

#[tokio::test]
async fn bytes_and_ends_pass_through() {
    let mut all = Ends::meet().await;
    all.client.write_all(b"ping").await.unwrap();
    reads(&mut all.server, b"ping").await;
    all.server.write_all(b"pong").await.unwrap();
    reads(&mut all.client, b"pong").await;
    assert_eq!(all.chaos.read(Way::ToServer), 4);
    assert_eq!((all.chaos.accepted(), all.chaos.open()), (1, 1));

    all.client.shutdown().await.unwrap();
    assert_eq!(ends(&mut all.server).await, Ok(0));
    all.server.write_all(b"last words").await.unwrap();
    reads(&mut all.client, b"last words").await;
    all.server.shutdown().await.unwrap();
    assert_eq!(ends(&mut all.client).await, Ok(0));
    wait_equal(LIMIT, 0, || all.chaos.open()).await;
    all.finish().await;
}

#[tokio::test]
async fn a_reset_of_one_end_resets_the_other() {
    let mut all = Ends::meet().await;
    all.server.abort();
    assert_eq!(ends(&mut all.client).await, Err(ErrorKind::ConnectionReset));
    drop((all.listener, all.chaos, all.client));
    all.leaks.finish().await;
}

#[tokio::test]
async fn a_server_that_is_down_is_a_reset() {
    let leaks = LeakCheck::start().await;
    let place = Place::tcp();
    let chaos = Chaos::tcp(place.addr(), 1);
    // It may come before connecting is done.
    let end = match TcpStream::connect(chaos.addr()).await {
        Ok(client) => ends(&mut Stream::Tcp(client)).await,
        Err(error) => Err(error.kind()),
    };
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    drop((chaos, place));
    leaks.finish().await;
}

#[tokio::test]
async fn unix_sockets_too() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let place = Place::Unix(scratch.path("server"));
    let listener = place.listen().into_listener();
    let chaos = Chaos::unix(scratch.path("proxy"), place.path(), 1);
    let mut client = Stream::Unix(UnixStream::connect(chaos.path()).await.unwrap());
    let mut server = within(LIMIT, "the proxy", listener.accept()).await.unwrap();
    client.write_all(b"ping").await.unwrap();
    reads(&mut server, b"ping").await;
    drop((chaos, client, server, listener));
    leaks.finish().await;
}

#[tokio::test]
async fn one_connection_or_all_are_reset_at_both_ends() {
    let mut all = Ends::meet().await;
    assert!(all.chaos.reset_one());
    assert_eq!(ends(&mut all.client).await, Err(ErrorKind::ConnectionReset));
    assert_eq!(ends(&mut all.server).await, Err(ErrorKind::ConnectionReset));
    assert!(!all.chaos.reset_one(), "there was only this one");
    all.finish().await;

    let mut all = Ends::meet().await;
    let mut second = Stream::Tcp(TcpStream::connect(all.chaos.addr()).await.unwrap());
    let accepted = within(LIMIT, "the proxy", all.listener.accept()).await;
    assert_eq!(all.chaos.open(), 2);
    all.chaos.reset_all();
    for client in [&mut all.client, &mut second] {
        assert_eq!(ends(client).await, Err(ErrorKind::ConnectionReset));
    }
    drop((second, accepted));
    all.finish().await;
}

#[tokio::test]
async fn latency_delays_each_way_and_keeps_the_order() {
    let mut all = Ends::meet().await;
    all.chaos.set(Toxics {
        latency: Duration::from_millis(30),
        jitter: Duration::from_millis(10),
        ..Toxics::default()
    });
    let began = Instant::now();
    for byte in 0..50 {
        all.client.write_all(&[byte]).await.unwrap();
    }
    reads(&mut all.server, &(0..50).collect::<Vec<_>>()).await;
    all.server.write_all(b"back").await.unwrap();
    reads(&mut all.client, b"back").await;
    assert!(began.elapsed() >= Duration::from_millis(40));
    all.finish().await;
}

#[tokio::test]
async fn a_rate_is_shared_by_all_connections() {
    let all = Ends::meet().await;
    all.chaos.set_way(
        Way::ToClient,
        Toxics {
            bytes_per_second: Some(20_000),
            ..Toxics::default()
        },
    );
    let second = TcpStream::connect(all.chaos.addr()).await.unwrap();
    let accepted = within(LIMIT, "the proxy", all.listener.accept()).await;
    let mut clients = [all.client, Stream::Tcp(second)];
    let mut servers = [all.server, accepted.unwrap()];
    // The other direction has no limit of its own.
    clients[0].write_all(&[1; 1000]).await.unwrap();
    reads(&mut servers[0], &[1; 1000]).await;
    let began = Instant::now();
    for server in &mut servers {
        server.write_all(&[2; 1000]).await.unwrap();
    }
    for client in &mut clients {
        reads(client, &[2; 1000]).await;
    }
    assert!(began.elapsed() >= Duration::from_millis(100));
    // Each in pieces of 10 ms.
    assert_eq!(all.chaos.writes(Way::ToClient), 10);
    drop((all.listener, all.chaos, clients, servers));
    all.leaks.finish().await;
}

#[tokio::test]
async fn writes_are_cut_into_slices() {
    let mut all = Ends::meet().await;
    all.chaos.set(Toxics {
        slice: Some(1),
        ..Toxics::default()
    });
    let text: Vec<u8> = (0..=255).cycle().take(3000).collect();
    all.client.write_all(&text).await.unwrap();
    reads(&mut all.server, &text).await;
    wait_equal(LIMIT, 3000, || all.chaos.writes(Way::ToServer)).await;
    all.finish().await;
}

#[tokio::test]
async fn what_is_held_comes_later_and_what_is_swallowed_never() {
    let mut all = Ends::meet().await;
    for (hole, then) in [(Flow::Hold, "held new"), (Flow::Swallow, "new")] {
        let before = all.chaos.writes(Way::ToServer);
        all.chaos.set_way(Way::ToServer, flow(hole));
        let read = all.chaos.read(Way::ToServer);
        all.client.write_all(b"held ").await.unwrap();
        wait_until(LIMIT, || all.chaos.read(Way::ToServer) == read + 5).await;
        // The other way is open.
        all.server.write_all(b"open").await.unwrap();
        reads(&mut all.client, b"open").await;
        assert_eq!(all.chaos.writes(Way::ToServer), before);
        let swallowed = if hole == Flow::Swallow { 5 } else { 0 };
        wait_equal(LIMIT, swallowed, || all.chaos.swallowed(Way::ToServer)).await;

        all.chaos.set(Toxics::default());
        all.client.write_all(b"new").await.unwrap();
        reads(&mut all.server, then.as_bytes()).await;
    }
    all.chaos.set(flow(Flow::Hold));
    all.client.shutdown().await.unwrap();
    all.chaos.set(Toxics::default());
    assert_eq!(ends(&mut all.server).await, Ok(0));
    all.finish().await;
}

#[tokio::test]
async fn one_way_is_closed_and_the_other_goes_on() {
    let mut all = Ends::meet().await;
    all.chaos.set_way(Way::ToServer, flow(Flow::Closed));
    assert_eq!(ends(&mut all.server).await, Ok(0));
    all.client.write_all(b"lost").await.unwrap();
    all.server.write_all(b"open").await.unwrap();
    reads(&mut all.client, b"open").await;
    wait_equal(LIMIT, 4, || all.chaos.swallowed(Way::ToServer)).await;
    assert_eq!(all.chaos.open(), 1);
    all.finish().await;
}
