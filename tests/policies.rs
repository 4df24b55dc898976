//! Balancing policies over real servers: what sticks, what spills over and comes back, what reports do.

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

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use client::calls::{endpoint, unary};
use http::{HeaderMap, HeaderName, HeaderValue};
use support::calls::request;
use support::h2_server::{H2Peer, H2Request};
use support::leak::LeakCheck;
use support::response;
use support::server::EchoServer;
use support::wait::{Asking, wait_until};
use tokio::task::JoinHandle;
use trunkline::balance::{HashKey, LoadWeighted, ReportRules, RoundRobin};
use trunkline::{Balance, Candidate, Channel, Connector, Endpoint, Picker, Policy, State};
use trunkline_proto::echo_client::EchoClient;
use trunkline_proto::{EchoReply, Message};

const LIMIT: Duration = Duration::from_secs(10);

fn ready(channel: &Channel) -> usize {
    let endpoints = channel.status().endpoints;
    endpoints
        .iter()
        .filter(|it| it.state == State::Ready)
        .count()
}

/// The server that answered this user.
async fn of_user(channel: &Channel, id: u64, user: &'static str) -> String {
    let mut request = tonic::Request::new(request(id));
    let metadata = request.metadata_mut();
    metadata.insert("user", user.parse().unwrap());
    let reply = EchoClient::new(channel.clone()).unary(request).await;
    reply.unwrap().into_inner().server
}

#[tokio::test]
async fn a_user_stays_where_it_is_until_that_endpoint_dies_and_comes_back() {
    let leaks = LeakCheck::start().await;
    let mut servers = ["a", "b", "c"].map(EchoServer::start_tcp);
    let channel = Connector::endpoints(servers.each_ref().map(endpoint))
        .balance(Balance::consistent_hash(HeaderName::from_static("user")))
        .connect()
        .await
        .unwrap();
    wait_until(LIMIT, || ready(&channel) == 3).await;
    let home = of_user(&channel, 0, "ann").await;
    for id in 1..1_000 {
        assert_eq!(of_user(&channel, id, "ann").await, home);
    }
    // The same key from elsewhere is the same.
    let mut keyed = tonic::Request::new(request(1_000));
    keyed.extensions_mut().insert(HashKey::new("ann"));
    let reply = EchoClient::new(channel.clone()).unary(keyed).await.unwrap();
    assert_eq!(reply.into_inner().server, home);
    let users = ["bob", "cy", "dee", "eve", "flo", "gus", "hal", "ivy"];
    let mut homes = Vec::new();
    for user in users {
        homes.push(of_user(&channel, 1_001, user).await);
    }
    assert!(homes.iter().any(|it| *it != home));

    let server = servers.iter_mut().find(|it| it.name() == home).unwrap();
    server.kill();
    wait_until(LIMIT, || ready(&channel) == 2).await;
    let second = of_user(&channel, 1_002, "ann").await;
    assert_ne!(second, home);
    for id in 1_003..1_100 {
        assert_eq!(of_user(&channel, id, "ann").await, second);
    }
    for (user, own) in users.iter().zip(&homes).filter(|(_, own)| **own != home) {
        assert_eq!(of_user(&channel, 1_100, user).await, *own);
    }
    server.restart();
    let mut id = 1_101;
    // Connected again, and in the set soon after.
    let asking = Asking::for_at_most(LIMIT);
    while of_user(&channel, id, "ann").await != home {
        assert!(asking.again().await, "it does not come back");
        id += 1;
    }
    for id in id..id + 100 {
        assert_eq!(of_user(&channel, id, "ann").await, home);
    }
    channel.close(Duration::ZERO).await;
    drop(servers);
    leaks.finish().await;
}

#[tokio::test]
async fn calls_spill_over_to_the_next_tier_and_back() {
    let leaks = LeakCheck::start().await;
    let mut near = EchoServer::start_tcp("near");
    let far = EchoServer::start_tcp("far");
    let channel = Connector::endpoints([endpoint(&far).priority(1), endpoint(&near)])
        .balance(Balance::tiers(RoundRobin::new()))
        .connect()
        .await
        .unwrap();
    for round in 0..2 {
        wait_until(LIMIT, || ready(&channel) == 2).await;
        let asking = Asking::for_at_most(LIMIT);
        while unary(&channel, 0).await.unwrap().server != "near" {
            assert!(asking.again().await, "it does not come back");
        }
        for id in 1..100 {
            assert_eq!(unary(&channel, id).await.unwrap().server, "near");
        }
        if round == 0 {
            near.kill();
            wait_until(LIMIT, || ready(&channel) == 1).await;
            for id in 0..100 {
                assert_eq!(unary(&channel, id).await.unwrap().server, "far");
            }
            near.restart();
        }
    }
    channel.close(Duration::ZERO).await;
    drop((near, far));
    leaks.finish().await;
}

/// Answers as a server of this name that reports its utilization, or what is no report.
fn reporting(name: &'static str, report: String) -> (Endpoint, JoinHandle<()>) {
    let peer = H2Peer::tcp();
    let endpoint = Endpoint::uri(peer.uri());
    let task = tokio::spawn(async move {
        let mut connection = peer.accept().await;
        loop {
            let mut request = connection.next().await;
            request.read().await;
            answer(request, name, &report);
        }
    });
    (endpoint, task)
}

fn answer(mut request: H2Request, name: &str, report: &str) {
    let reply = EchoReply {
        server: name.to_owned(),
        ..EchoReply::default()
    };
    let head = http::Response::builder().header("content-type", "application/grpc");
    let response = head.body(()).unwrap();
    let mut send = request.respond.send_response(response, false).unwrap();
    let message = response::message(&reply.encode_to_vec());
    send.send_data(message, false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("endpoint-load-metrics-bin", report.parse().unwrap());
    send.send_trailers(trailers).unwrap();
}

/// `OrcaLoadReport` at 100 calls per second.
fn report(utilization: f64) -> String {
    let double = |tag: u8, value: f64| [&[tag][..], &value.to_le_bytes()].concat();
    STANDARD_NO_PAD.encode([double(0x49, utilization), double(0x31, 100.0)].concat())
}

/// [`LoadWeighted`], which counts its pickers.
#[derive(Clone, Debug)]
struct Counted(LoadWeighted, Arc<AtomicU64>);

impl Policy for Counted {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
        self.1.fetch_add(1, SeqCst);
        self.0.build(candidates)
    }

    fn refresh_interval(&self) -> Option<Duration> {
        self.0.refresh_interval()
    }

    fn load_reports(&self) -> Option<ReportRules> {
        self.0.load_reports()
    }
}

/// The share of the first of two such servers, once it is this, or as it stays. Nothing but their reports changes.
async fn share_of_first(reports: [String; 2], wanted: u64) -> u64 {
    let [one, other] = reports;
    let (first, first_task) = reporting("first", one);
    let (second, second_task) = reporting("second", other);
    let rules = ReportRules::new().blackout(Duration::ZERO);
    let policy = LoadWeighted::new()
        .reports(rules)
        .refresh_every(Duration::ZERO);
    let builds = Arc::new(AtomicU64::new(0));
    let channel = Connector::endpoints([first, second])
        .balance(Balance::custom(Counted(policy, Arc::clone(&builds))))
        .connect()
        .await
        .unwrap();
    wait_until(LIMIT, || ready(&channel) == 2).await;
    let mut share = 0;
    for round in 1..20 {
        share = 0;
        for id in 0..200 {
            let server = unary(&channel, id).await.unwrap().server;
            share += u64::from(server == "first");
        }
        if share.abs_diff(wanted) <= 3 && round > 3 {
            break;
        }
        // Another picker, with what was reported so far.
        let built = builds.load(SeqCst);
        wait_until(LIMIT, || builds.load(SeqCst) > built).await;
    }
    first_task.abort();
    second_task.abort();
    let _ = (first_task.await, second_task.await);
    channel.close(Duration::ZERO).await;
    share
}

#[tokio::test]
async fn shares_follow_what_servers_report() {
    let leaks = LeakCheck::start().await;
    let share = share_of_first([report(0.2), report(0.8)], 160).await;
    assert!(share.abs_diff(160) <= 3, "{share} of 200");
    leaks.finish().await;
}

#[tokio::test]
async fn what_is_no_report_changes_nothing() {
    let leaks = LeakCheck::start().await;
    let garbage = ["!".to_owned(), STANDARD_NO_PAD.encode([0x49, 1, 2])];
    let share = share_of_first(garbage, 100).await;
    assert!(share.abs_diff(100) <= 3, "{share} of 200");
    leaks.finish().await;
}
