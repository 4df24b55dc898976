//! The head of a request as the server gets it: scheme, authority, path, headers, timeout.

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

use std::time::Duration;

use http::Request;
use support::body::post;
use support::h2_server::{H2Conn, H2Peer, H2Request};
use support::leak::LeakCheck;
use support::scratch::Scratch;
use tokio::time::advance;
use tonic::body::Body;
use trunkline::{CallOptions, Channel, Connector, Endpoint, PoolOptions};

async fn connect(peer: &H2Peer, connector: Connector) -> (Channel, H2Conn) {
    let (channel, conn) = tokio::join!(connector.connect(), peer.accept());
    (channel.unwrap(), conn)
}

/// Sends the request, and gives it as it came. It has been answered.
async fn sent(channel: &Channel, conn: &mut H2Conn, request: Request<Body>) -> Came {
    let (response, came) = tokio::join!(channel.send(request), async {
        let request = conn.next().await;
        let came = Came::of(&request);
        request.ok(b"");
        came
    });
    response.unwrap();
    came
}

/// What a request looked like.
#[derive(Debug)]
struct Came {
    scheme: String,
    authority: String,
    path: String,
    parts: http::request::Parts,
}

impl Came {
    fn of(request: &H2Request) -> Self {
        let uri = &request.parts.uri;
        Self {
            scheme: uri.scheme_str().unwrap_or_default().to_owned(),
            authority: uri.authority().map(ToString::to_string).unwrap_or_default(),
            path: uri
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default(),
            parts: request.parts.clone(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name).map(|it| it.to_str().unwrap())
    }

    /// The `grpc-timeout` header as gRPC defines it.
    fn timeout(&self) -> Option<Duration> {
        let text = self.header("grpc-timeout")?;
        let (number, unit) = text.split_at(text.len() - 1);
        assert!(number.len() <= 8, "{text} has too many digits");
        let number: u64 = number.parse().unwrap();
        Some(match unit {
            "H" => Duration::from_secs(number * 3600),
            "M" => Duration::from_secs(number * 60),
            "S" => Duration::from_secs(number),
            "m" => Duration::from_millis(number),
            "u" => Duration::from_micros(number),
            "n" => Duration::from_nanos(number),
            _ => panic!("{text} has no unit"),
        })
    }
}

fn with_timeout(value: &str) -> Request<Body> {
    let mut request = post(Body::empty());
    request
        .headers_mut()
        .insert("grpc-timeout", value.parse().unwrap());
    request
}

fn with_options(mut request: Request<Body>, options: CallOptions) -> Request<Body> {
    request.extensions_mut().insert(options);
    request
}

#[tokio::test]
async fn scheme_and_authority_are_those_of_the_endpoint() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let tcp = H2Peer::tcp();
    let unix = H2Peer::unix(scratch.path("peer.sock"));
    let named = Endpoint::uri(unix.uri()).authority("payments.internal:443");
    for (peer, connector, authority) in [
        (&tcp, Connector::target(tcp.uri()), tcp.addr().to_string()),
        // Servers reject requests without an authority, and a path is none.
        (&unix, Connector::target(unix.uri()), "localhost".to_owned()),
        (
            &unix,
            Connector::endpoints([named]),
            "payments.internal:443".to_owned(),
        ),
    ] {
        let (channel, mut conn) = connect(peer, connector).await;
        for uri in ["/a.B/C?d=e", "https://user@elsewhere:1/a.B/C?d=e"] {
            let request = Request::put(uri).body(Body::empty()).unwrap();
            let came = sent(&channel, &mut conn, request).await;
            assert_eq!(
                (came.scheme.as_str(), &came.authority),
                ("http", &authority)
            );
            assert_eq!(
                (came.path.as_str(), came.parts.method.as_str()),
                ("/a.B/C?d=e", "PUT")
            );
            // HTTP/2 has it in `:authority`.
            assert_eq!(came.header("host"), None);
        }
        drop(channel);
        conn.ended().await;
    }
    drop((tcp, unix));
    leaks.finish().await;
}

#[tokio::test]
async fn headers_arrive_and_a_user_agent_is_added() {
    let leaks = LeakCheck::start().await;
    let peer = H2Peer::tcp();
    let (channel, mut conn) = connect(&peer, Connector::target(peer.uri())).await;
    let mut request = post(Body::empty());
    request.headers_mut().append("key", "one".parse().unwrap());
    request.headers_mut().append("key", "two".parse().unwrap());
    let came = sent(&channel, &mut conn, request).await;
    let values: Vec<_> = came.parts.headers.get_all("key").iter().collect();
    assert_eq!(values, ["one", "two"]);
    assert_eq!(came.header("te"), Some("trailers"));
    assert_eq!(came.header("content-type"), Some("application/grpc"));
    let ours = concat!("trunkline/", env!("CARGO_PKG_VERSION"));
    assert_eq!(came.header("user-agent"), Some(ours));

    let mut request = post(Body::empty());
    let own = "caller/1".parse().unwrap();
    request.headers_mut().insert("user-agent", own);
    let came = sent(&channel, &mut conn, request).await;
    assert_eq!(came.header("user-agent"), Some("caller/1"));
    drop(channel);
    conn.ended().await;
    drop(peer);
    leaks.finish().await;
}

/// With a paused clock, so that no time passes on the way; on a Unix socket, because TCP and that do not go together.
#[tokio::test(start_paused = true)]
async fn the_timeout_is_sent() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let peer = H2Peer::unix(scratch.path("peer.sock"));
    let connector = Connector::target(peer.uri()).timeout(Duration::from_secs(20));
    let (channel, mut conn) = connect(&peer, connector).await;
    let plain = || post(Body::empty());
    let seconds = Duration::from_secs;
    let options = CallOptions::new;
    for (request, expected) in [
        (plain(), Some(20)),
        // A call's own timeout goes before the channel's, be it shorter or longer.
        (with_timeout("7S"), Some(7)),
        (with_timeout("7M"), Some(420)),
        (
            with_options(plain(), options().timeout(seconds(7))),
            Some(7),
        ),
        (with_options(plain(), options().no_timeout()), None),
        // Of two of the call's own, the shorter holds.
        (
            with_options(with_timeout("7S"), options().timeout(seconds(5))),
            Some(5),
        ),
        (
            with_options(with_timeout("7S"), options().timeout(seconds(9))),
            Some(7),
        ),
        (
            with_options(with_timeout("7S"), options().no_timeout()),
            Some(7),
        ),
        // What is no timeout is not passed on.
        (with_timeout("soon"), Some(20)),
        // The header is gRPC's.
        (Request::get("/").body(Body::empty()).unwrap(), None),
    ] {
        let asked = format!("{request:?}");
        let came = sent(&channel, &mut conn, request).await;
        assert_eq!(came.timeout(), expected.map(seconds), "{asked}");
    }
    drop(channel);
    conn.ended().await;
    drop(peer);
    leaks.finish().await;
}

/// The server is told what is left when the request leaves.
#[tokio::test(start_paused = true)]
async fn the_timeout_shrinks_while_a_call_waits() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let peer = H2Peer::unix(scratch.path("peer.sock"));
    let connector = Connector::target(peer.uri()).pool(PoolOptions::new().max_connections(1));
    let mut one_stream = h2::server::Builder::new();
    one_stream.max_concurrent_streams(1);
    let (channel, mut conn) = tokio::join!(connector.connect(), peer.accept_with(&one_stream));
    let channel = channel.unwrap();
    let send = |request| {
        let channel = channel.clone();
        tokio::spawn(async move { channel.send(request).await.map(drop) })
    };
    let first = send(post(Body::empty()));
    let holding = conn.next().await;
    let second = send(with_timeout("10S"));
    support::wait::wait_equal(Duration::from_secs(1), 1, || {
        channel.status().endpoints[0].waiting
    })
    .await;
    advance(Duration::from_secs(3)).await;
    holding.ok(b"");
    first.await.unwrap().unwrap();
    let request = conn.next().await;
    let left = Came::of(&request).timeout().unwrap();
    let expected = Duration::from_secs(7);
    assert!(
        left <= expected && left > expected - Duration::from_millis(100),
        "{left:?}"
    );
    request.ok(b"");
    second.await.unwrap().unwrap();
    drop(channel);
    conn.ended().await;
    drop(peer);
    leaks.finish().await;
}
