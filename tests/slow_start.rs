//! Slow start: an endpoint that joins others begins with little, under every policy, and ends with its due.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod client;
mod support;

use std::time::Duration;

use client::calls::{endpoint, unary};
use client::told::{Teller, Told};
use support::leak::LeakCheck;
use support::server::EchoServer;
use support::wait::wait_until;
use tokio::time::Instant;
use trunkline::{Balance, Channel, Connector, Endpoint, SlowStart};

const LIMIT: Duration = Duration::from_secs(20);
const WINDOW: Duration = Duration::from_secs(4);

/// The shares of all endpoints, as users see them.
fn shares(channel: &Channel) -> Vec<f64> {
    let endpoints = channel.status().endpoints;
    endpoints.iter().map(|it| it.share).collect()
}

async fn all_have_their_due(channel: &Channel, count: usize) {
    wait_until(LIMIT, || shares(channel) == vec![1.0; count]).await;
}

/// The part of so many calls that the server of that name answers.
async fn part_of(channel: &Channel, name: &str, calls: u32) -> f64 {
    let mut own = 0;
    for id in 1..=u64::from(calls) {
        own += u32::from(unary(channel, id).await.unwrap().server == name);
    }
    f64::from(own) / f64::from(calls)
}

fn weighted(server: &EchoServer) -> Endpoint {
    endpoint(server).weight(2)
}

async fn connect(balance: Balance, first: &[EchoServer]) -> (Teller, Channel) {
    let (teller, told) = Told::saying(Ok(first.iter().map(weighted).collect()));
    let connector = Connector::discover(told).balance(balance);
    let connector = connector.slow_start(SlowStart::new().window(WINDOW));
    (teller, connector.connect().await.unwrap())
}

#[tokio::test]
async fn one_that_joins_begins_with_a_tenth_of_its_due() {
    let leaks = LeakCheck::start().await;
    let servers = ["a", "b", "c", "d"].map(EchoServer::start_tcp);
    let policies = [
        Balance::round_robin(),
        Balance::random(),
        Balance::weighted(),
        Balance::weighted_random(),
        Balance::least_request(),
        Balance::peak_ewma(),
    ];
    let mut channels = Vec::new();
    for balance in policies {
        channels.push(connect(balance, &servers[..3]).await);
    }
    for (_, channel) in &channels {
        all_have_their_due(channel, 3).await;
    }
    // They run for longer than the window.
    let running = Instant::now();
    wait_until(LIMIT, || running.elapsed() > WINDOW).await;
    for (teller, channel) in &channels {
        teller.say(servers.iter().map(weighted));
        wait_until(LIMIT, || shares(channel).get(3) > Some(&0.0)).await;
        let first = shares(channel)[3];
        assert!(first < 0.5, "{first}");
        assert_eq!(shares(channel)[..3], [1.0; 3]);
        let part = part_of(channel, "d", 400).await;
        // Drawn at random, or by latency, it may have some more than is due; a whole share is 25 %.
        let policy = channel.status().policy;
        let in_turn = matches!(&*policy, "round_robin" | "weighted" | "least_request");
        let chance = if in_turn { 0.04 } else { 0.08 };
        let most = shares(channel)[3];
        let most = most / (3.0 + most) + chance;
        assert!(part <= most, "{part}, not at most {most}: {channel:?}");
    }
    for (_, channel) in &channels {
        all_have_their_due(channel, 4).await;
        if channel.status().policy == "peak_ewma" {
            // Among those that have their due it goes by latency alone.
            continue;
        }
        let part = part_of(channel, "d", 400).await;
        assert!((part - 0.25).abs() < 0.1, "{part}: {channel:?}");
    }
    drop((channels, servers));
    leaks.finish().await;
}

/// One that is back after failed dials has what it had when it was new; the others, and whoever is first, are never less.
#[tokio::test]
async fn one_that_was_away_begins_anew() {
    let leaks = LeakCheck::start().await;
    let mut servers = ["a", "b", "c"].map(EchoServer::start_tcp);
    let connector = Connector::endpoints(servers.iter().map(endpoint));
    let connector = connector.slow_start(SlowStart::new().window(WINDOW));
    let channel = connector.connect().await.unwrap();
    all_have_their_due(&channel, 3).await;
    let running = Instant::now();
    wait_until(LIMIT, || running.elapsed() > WINDOW).await;
    servers[2].kill();
    let failed = || channel.status().endpoints[2].failed_dials > 0;
    wait_until(LIMIT, failed).await;
    assert_eq!(shares(&channel), [1.0, 1.0, 0.0]);
    servers[2].restart();
    wait_until(LIMIT, || shares(&channel)[2] > 0.0).await;
    let share = shares(&channel)[2];
    assert!(share < 0.5, "{share}");
    all_have_their_due(&channel, 3).await;
    drop((channel, servers));
    leaks.finish().await;
}

#[tokio::test]
async fn without_it_all_is_there_at_once() {
    let leaks = LeakCheck::start().await;
    let mut servers = ["a", "b", "c"].map(EchoServer::start_tcp);
    let connector = Connector::endpoints(servers.iter().map(endpoint)).no_slow_start();
    let channel = connector.connect().await.unwrap();
    all_have_their_due(&channel, 3).await;
    servers[2].kill();
    wait_until(LIMIT, || shares(&channel)[2] == 0.0).await;
    servers[2].restart();
    wait_until(LIMIT, || shares(&channel)[2] > 0.0).await;
    assert_eq!(shares(&channel), [1.0; 3]);
    drop((channel, servers));
    leaks.finish().await;
}
