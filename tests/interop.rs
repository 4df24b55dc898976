//! The cases of gRPC's interoperability tests, against a tonic server and a grpcio server alike, over TCP and over Unix
//! sockets.
//!
//! The cases and what they assert are those of
//! <https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md>, without the ones for TLS, for Google's
//! own services and for caching proxies. Beyond them it is checked what passed over the wire, what the server saw of
//! deadlines and cancelled calls, and that no case costs the connection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]
#![allow(
    unreachable_pub,
    reason = "`pub` marks what the cases use; a test crate exports nothing"
)]

mod foreign;
mod support;

#[path = "interop/compression.rs"]
mod compression;
#[path = "interop/ends.rs"]
mod ends;
#[path = "interop/metadata.rs"]
mod metadata;
#[path = "interop/payloads.rs"]
mod payloads;
#[path = "interop/tap.rs"]
mod tap;
#[path = "interop/target.rs"]
mod target;
#[path = "interop/tonic_layer.rs"]
mod tonic_layer;
#[path = "interop/tonic_server.rs"]
mod tonic_server;
#[path = "interop/volume.rs"]
mod volume;

use std::pin::Pin;
use std::time::Duration;

use foreign::server::GrpcioServer;
use support::leak::LeakCheck;
use support::place::Place;
use support::scratch::Scratch;
use support::wait::{wait_equal, within};
use target::{Abilities, Target};
use tonic_server::TonicServer;
use trunkline::Connector;
use volume::LARGEST;

/// How long a case may take.
const LIMIT: Duration = Duration::from_secs(30);

type Case = fn(Target) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Each case by its name.
macro_rules! cases {
    ($($file:ident: $($name:ident),+;)+) => {
        &[$($((stringify!($name), |target| Box::pin($file::$name(target)))),+),+]
    };
}

const CASES: &[(&str, Case)] = cases! {
    payloads: empty_unary, large_unary, client_streaming, server_streaming, ping_pong, empty_stream;
    metadata: custom_metadata, status_code_and_message, special_status_message, unimplemented_method,
        unimplemented_service;
    ends: cancel_after_begin, cancel_after_first_response, timeout_on_sleeping_server;
    compression: client_compressed_unary, server_compressed_unary, client_compressed_streaming,
        server_compressed_streaming;
    volume: a_message_beyond_the_windows, streams_beyond_the_windows, an_unread_stream_is_in_nobodys_way;
};

const TONIC: Abilities = Abilities {
    sees_compression: true,
    mixes_compression: false,
};

const GRPCIO_OPTIONS: [(&str, u64); 1] = [("grpc.max_receive_message_length", LARGEST as u64)];

const GRPCIO: Abilities = Abilities {
    sees_compression: false,
    mixes_compression: true,
};

#[tokio::test]
async fn tonic_over_tcp() {
    let leaks = LeakCheck::start().await;
    let server = TonicServer::start(Place::tcp());
    run(&server.uri(), TONIC).await;
    drop(server);
    leaks.finish().await;
}

#[tokio::test]
async fn tonic_over_a_unix_socket() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let server = TonicServer::start(Place::Unix(scratch.path("a.sock")));
    run(&server.uri(), TONIC).await;
    drop(server);
    leaks.finish().await;
}

#[tokio::test]
async fn grpcio_over_tcp() {
    let leaks = LeakCheck::start().await;
    let server = GrpcioServer::tcp(&GRPCIO_OPTIONS);
    run(server.uri(), GRPCIO).await;
    assert!(server.stop().await.success());
    leaks.finish().await;
}

#[tokio::test]
async fn grpcio_over_a_unix_socket() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let server = GrpcioServer::unix(&scratch.path("a.sock"), &GRPCIO_OPTIONS);
    run(server.uri(), GRPCIO).await;
    assert!(server.stop().await.success());
    leaks.finish().await;
}

/// Runs all cases on one channel, and then says which failed.
async fn run(uri: &str, abilities: Abilities) {
    let channel = Connector::target(uri).connect().await.unwrap();
    let mut failed = Vec::new();
    for (name, case) in CASES {
        let target = Target::new(channel.clone(), uri, abilities);
        let ended = tokio::spawn(within(LIMIT, name, case(target))).await;
        println!(
            "{uri} {name}: {}",
            if ended.is_ok() { "ok" } else { "FAILED" }
        );
        if ended.is_err() {
            failed.push(name);
        }
        wait_equal(LIMIT, 0, || channel.status().endpoints[0].in_flight).await;
    }
    assert!(failed.is_empty(), "{uri}: {failed:?}");
    let endpoint = channel.status().endpoints.remove(0);
    assert_eq!(endpoint.connection_attempts_succeeded, 1);
    assert_eq!(endpoint.connections, 1);
    let stats = channel.stats();
    assert_eq!((stats.retries, stats.resends), (0, 0));
}
