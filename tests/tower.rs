//! tower's balancers over channels, and tower's discovery below one.

#![cfg(feature = "tower")]
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

use std::time::Duration;

use client::calls::{endpoint, hang, raw, unary};
use http::Request;
use support::leak::LeakCheck;
use support::server::EchoServer;
use support::wait::{wait_equal, wait_until, within};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::body::Body;
use tower::balance::p2c::Balance;
use tower::discover::{Change, ServiceList};
use tower::load::Load as _;
use tower::{Service as _, ServiceExt as _};
use trunkline::{CallOptions, Channel, Connector, Discover as _, Endpoint, TowerDiscover};

const LIMIT: Duration = Duration::from_secs(5);

type Changes = UnboundedReceiverStream<Result<Change<&'static str, Endpoint>, &'static str>>;
type Sender = mpsc::UnboundedSender<Result<Change<&'static str, Endpoint>, &'static str>>;

fn source() -> (Sender, TowerDiscover<Changes>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let changes = UnboundedReceiverStream::new(receiver);
    (sender, TowerDiscover::new("tower", changes))
}

fn listed(channel: &Channel) -> Vec<String> {
    let endpoints = channel.status().endpoints.into_iter();
    endpoints.map(|it| it.address).collect()
}

#[tokio::test]
async fn changes_become_the_set() {
    let leaks = LeakCheck::start().await;
    let [a, b, c] = ["a", "b", "c"].map(EchoServer::start_tcp);
    let address = |server: &EchoServer| server.addr().to_string();
    let (sender, source) = source();
    for (key, server) in [("a", &a), ("b", &b)] {
        sender
            .send(Ok(Change::Insert(key, endpoint(server))))
            .unwrap();
    }
    let channel = Connector::discover(source).connect().await.unwrap();
    wait_equal(LIMIT, vec![address(&a), address(&b)], || listed(&channel)).await;
    unary(&channel, 1).await.unwrap();

    sender.send(Ok(Change::Remove("a"))).unwrap();
    sender.send(Ok(Change::Remove("never there"))).unwrap();
    wait_equal(LIMIT, vec![address(&b)], || listed(&channel)).await;
    sender.send(Ok(Change::Insert("b", endpoint(&c)))).unwrap();
    wait_equal(LIMIT, vec![address(&c)], || listed(&channel)).await;
    wait_until(LIMIT, || c.journal().open() == 1 && b.journal().open() == 0).await;

    sender.send(Err("the registry is away")).unwrap();
    wait_until(LIMIT, || channel.status().discovery_error.is_some()).await;
    let error = channel.status().discovery_error.unwrap();
    assert!(error.contains("the registry is away"), "{error}");
    drop(sender);
    for id in 0..5 {
        unary(&channel, id).await.unwrap();
    }
    assert_eq!(c.journal().started(), 5, "the last ones stay");
    drop((channel, a, b, c));
    leaks.finish().await;
}

#[tokio::test]
async fn what_comes_at_once_is_one_answer_and_the_end_comes_last() {
    let name = |port: u16| format!("10.0.0.1:{port}");
    let inserts = (1..=3_000).map(|port| Ok(Change::Insert(port, Endpoint::tcp(name(port)))));
    let changes: Vec<_> = inserts.chain([Err("oh"), Ok(Change::Remove(1))]).collect();
    let source = TowerDiscover::new("tower", futures_util::stream::iter(changes));
    let mut answers = Box::new(source).resolutions();
    let mut seen = Vec::new();
    while let Some(answer) = answers.next().await {
        seen.push(
            answer
                .map(|it| it.endpoints.len())
                .map_err(|it| it.to_string()),
        );
    }
    let sizes = [
        Ok(1_024),
        Ok(2_048),
        Ok(3_000),
        Err("oh".to_owned()),
        Ok(2_999),
    ];
    assert_eq!(seen, sizes);
}

#[tokio::test]
async fn towers_balancer_prefers_the_channel_with_fewer_calls_and_shuns_the_dead() {
    let leaks = LeakCheck::start().await;
    let [a, mut b] = ["a", "b"].map(EchoServer::start_tcp);
    let one = Connector::endpoints([endpoint(&a)])
        .connect()
        .await
        .unwrap();
    let two = Connector::endpoints([endpoint(&b)])
        .connect()
        .await
        .unwrap();
    assert_eq!((one.load(), two.load()), (0, 0));
    let hanging = [hang(&one, 1), hang(&one, 2)];
    wait_equal(LIMIT, 2, || a.journal().in_flight()).await;
    assert_eq!((one.load(), two.load()), (2, 0));

    let channels = vec![one.clone(), two.clone()];
    let mut balance = Balance::new(ServiceList::new::<Request<Body>>(channels));
    for id in 0..10 {
        let ready = within(LIMIT, "a channel", balance.ready()).await.unwrap();
        let response = ready.call(raw(id, CallOptions::new())).await.unwrap();
        drop(response);
        wait_equal(LIMIT, 0, || two.load()).await;
    }
    assert_eq!(b.journal().started(), 10);
    assert_eq!(a.journal().started(), 2);

    b.kill();
    wait_equal(LIMIT, u32::MAX, || two.load()).await;
    for call in hanging {
        call.abort();
        let _ = call.await;
    }
    wait_equal(LIMIT, 0, || one.load()).await;
    let ready = within(LIMIT, "a channel", balance.ready()).await.unwrap();
    // It chose while both were ready: the next choice is by what they are now.
    let _ = ready.call(raw(20, CallOptions::new())).await;
    for id in 21..26 {
        let ready = within(LIMIT, "a channel", balance.ready()).await.unwrap();
        ready.call(raw(id, CallOptions::new())).await.unwrap();
    }
    drop((balance, one, two, a, b));
    leaks.finish().await;
}
