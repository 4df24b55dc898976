//! Endpoints without a minimum of connections: what is closed when idle or lost comes back when it is wanted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use support::burst::{all_ok, burst};
use support::leak::LeakCheck;
use support::raw_conn::RawConn;
use support::raw_peer::RawPeer;
use support::wait::within;
use trunkline::{Backoff, Connector, PoolOptions};
use trunkline_proto::echo_client::EchoClient;

const LIMIT: Duration = Duration::from_secs(5);

async fn accept(peer: &RawPeer) -> RawConn {
    let mut conn = within(LIMIT, "another dial", peer.accept()).await;
    conn.handshake(&[]).await;
    conn
}

#[tokio::test]
async fn a_connection_that_is_lost_young_is_replaced_although_none_is_kept_open() {
    let leaks = LeakCheck::start().await;
    let peer = RawPeer::tcp();
    let backoff = Backoff::dialling()
        .initial(Duration::from_millis(1))
        .max(Duration::from_millis(5));
    let pool = PoolOptions::new()
        .min_connections(0)
        .max_connections(1)
        .dial_backoff(backoff);
    let connecting = Connector::target(peer.uri())
        .pool(pool)
        .wait_for_ready(true)
        .connect();
    let (channel, young) = peer.meet(&[], connecting).await;
    let channel = channel.unwrap();
    drop(young);

    let mut conn = accept(&peer).await;
    let call = burst(&EchoClient::new(channel.clone()), [1]);
    assert_eq!(conn.echo_next().await, 1);
    all_ok(call).await;
    drop(channel);
    conn.closed().await;
    drop(peer);
    leaks.finish().await;
}
