//! A channel that knows many endpoints uses some of them. Counted at the servers.

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

use std::collections::BTreeSet;
use std::time::Duration;

use client::calls::{endpoint, slow, unary};
use client::told::{Teller, Told};
use support::leak::LeakCheck;
use support::server::EchoServer;
use support::wait::{wait_equal, wait_until, within};
use trunkline::{
    Balance, Candidate, Channel, Connector, Endpoint, Health, Picker, Policy, State, Subset,
};

const LIMIT: Duration = Duration::from_secs(10);
const SERVERS: usize = 30;
const SIZE: usize = 5;

fn servers() -> Vec<EchoServer> {
    (0..SERVERS).map(|_| EchoServer::start_tcp("s")).collect()
}

/// By their place, those that have a connection.
fn connected(servers: &[EchoServer]) -> BTreeSet<usize> {
    let open = |(at, server): (usize, &EchoServer)| (server.journal().open() > 0).then_some(at);
    servers.iter().enumerate().filter_map(open).collect()
}

/// How many ever had one.
fn ever_connected(servers: &[EchoServer]) -> usize {
    let accepted = servers.iter().map(|it| it.journal().accepted());
    accepted.filter(|it| *it > 0).count()
}

fn ready(channel: &Channel) -> usize {
    let endpoints = channel.status().endpoints;
    let ready = endpoints.iter().filter(|it| it.state == State::Ready);
    ready.count()
}

/// Waits until so many endpoints are ready, and gives the servers that are.
async fn settled(channel: &Channel, servers: &[EchoServer], count: usize) -> BTreeSet<usize> {
    wait_equal(LIMIT, count, || ready(channel)).await;
    wait_equal(LIMIT, count, || connected(servers).len()).await;
    connected(servers)
}

fn subset() -> Subset {
    Subset::of(SIZE).hold_spares(Duration::from_millis(200))
}

fn all(servers: &[EchoServer]) -> impl Iterator<Item = Endpoint> {
    servers.iter().map(endpoint)
}

#[tokio::test]
async fn only_the_subset_is_connected_and_called() {
    let leaks = LeakCheck::start().await;
    let servers = servers();
    let channel = Connector::endpoints(all(&servers))
        .subset(subset())
        .connect()
        .await
        .unwrap();
    let used = settled(&channel, &servers, SIZE).await;
    for id in 0..50 {
        unary(&channel, id).await.unwrap();
    }
    for (at, server) in servers.iter().enumerate() {
        // The first set that has all of them may be a few calls late.
        let expected = if used.contains(&at) { 5..=20 } else { 0..=0 };
        let started = server.journal().started();
        assert!(expected.contains(&started), "{at}: {started}");
    }
    assert_eq!(ever_connected(&servers), SIZE);

    let status = channel.status();
    assert_eq!(status.endpoints.len(), SERVERS);
    for (at, endpoint) in status.endpoints.iter().enumerate() {
        assert_eq!(endpoint.in_subset, used.contains(&at));
        if endpoint.in_subset {
            continue;
        }
        assert_eq!((endpoint.weight, endpoint.state), (1, State::Shutdown));
        assert_eq!(endpoint.health.health, Health::Disconnected);
        let reason = endpoint.health.reason.as_deref().unwrap();
        assert!(reason.contains("outside of the subset"), "{reason}");
    }
    drop((channel, servers));
    leaks.finish().await;
}

#[tokio::test]
async fn who_is_down_is_replaced_and_gets_its_place_back() {
    let leaks = LeakCheck::start().await;
    let mut servers = servers();
    let channel = Connector::endpoints(all(&servers))
        .subset(subset())
        .connect()
        .await
        .unwrap();
    let before = settled(&channel, &servers, SIZE).await;
    let mut down = before.iter().copied().take(2);
    let down = [down.next().unwrap(), down.next().unwrap()];

    for at in down {
        servers[at].kill();
    }
    wait_until(LIMIT, || {
        down.iter().all(|at| !connected(&servers).contains(at))
    })
    .await;
    let meanwhile = settled(&channel, &servers, SIZE).await;
    assert_eq!(meanwhile.intersection(&before).count(), SIZE - 2);
    let spares: Vec<_> = meanwhile.difference(&before).copied().collect();
    // In use when the two come back. A state is seen a moment before the set that has it.
    let mut calls = Vec::new();
    wait_until(LIMIT, || {
        calls.push(slow(&channel, 1, 1_500));
        let busy = |at: &usize| servers[*at].journal().in_flight() > 0;
        spares.iter().all(busy)
    })
    .await;
    for at in down {
        servers[at].restart();
    }
    wait_equal(LIMIT, before.clone(), || connected(&servers)).await;
    for call in calls {
        let finished = within(LIMIT, "a call to a spare", call).await.unwrap();
        finished.unwrap();
    }
    let cancelled: u64 = servers.iter().map(|it| it.journal().cancelled()).sum();
    assert_eq!(cancelled, 0, "spares end their calls");
    assert_eq!(ever_connected(&servers), SIZE + 2);
    drop((channel, servers));
    leaks.finish().await;
}

#[tokio::test]
async fn there_are_no_more_spares_than_members() {
    let leaks = LeakCheck::start().await;
    let mut servers = servers();
    let channel = Connector::endpoints(all(&servers))
        .subset(subset().seed(1))
        .connect()
        .await
        .unwrap();
    let first = settled(&channel, &servers, SIZE).await;
    for &at in &first {
        servers[at].kill();
    }
    wait_until(LIMIT, || connected(&servers).is_disjoint(&first)).await;
    // All of the first five are down, and five others are used.
    let others = settled(&channel, &servers, SIZE).await;
    for at in &others {
        servers[*at].kill();
    }
    wait_until(LIMIT, || {
        let endpoints = channel.status().endpoints;
        let used = endpoints.iter().filter(|it| it.in_subset);
        used.filter(|it| it.state == State::TransientFailure)
            .count()
            == 2 * SIZE
    })
    .await;
    unary(&channel, 1).await.unwrap_err();
    assert_eq!(ever_connected(&servers), 2 * SIZE);
    servers[*others.first().unwrap()].restart();
    wait_equal(LIMIT, 1, || ready(&channel)).await;
    within(LIMIT, "a call", async {
        while unary(&channel, 2).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop((channel, servers));
    leaks.finish().await;
}

async fn told(endpoints: Vec<Endpoint>, subset: Subset) -> (Teller, Channel) {
    let (teller, told) = Told::saying(Ok(endpoints));
    let channel = Connector::discover(told).subset(subset).connect();
    (teller, channel.await.unwrap())
}

#[tokio::test]
async fn the_same_seed_chooses_the_same_and_a_change_moves_one() {
    let leaks = LeakCheck::start().await;
    let servers = servers();
    let (teller, one) = told(all(&servers).collect(), subset().seed(7)).await;
    let used = settled(&one, &servers, SIZE).await;
    let backwards: Vec<_> = servers.iter().rev().map(endpoint).collect();
    let (_same, two) = told(backwards, subset().seed(7)).await;
    wait_equal(LIMIT, SIZE, || ready(&two)).await;
    assert_eq!(connected(&servers), used);
    let (_other, three) = told(all(&servers).collect(), subset().seed(8)).await;
    wait_equal(LIMIT, SIZE, || ready(&three)).await;
    wait_until(LIMIT, || connected(&servers) != used).await;
    drop((two, three));
    wait_equal(LIMIT, used.clone(), || connected(&servers)).await;

    // One of them leaves, another one drains: each place is taken by one other, and all others stay.
    let accepted = || servers.iter().map(|it| it.journal().accepted());
    let before: u64 = accepted().sum();
    let gone = *used.first().unwrap();
    let drained = *used.last().unwrap();
    let rest = (0..SERVERS).filter(|at| *at != gone);
    teller.say(rest.map(|at| endpoint(&servers[at]).weight(u32::from(at != drained))));
    wait_until(LIMIT, || {
        let connected = connected(&servers);
        !connected.contains(&drained) && !connected.contains(&gone)
    })
    .await;
    let after = settled(&one, &servers, SIZE).await;
    assert_eq!(used.difference(&after).count(), 2);
    assert_eq!(accepted().sum::<u64>(), before + 2);
    let status = one.status();
    let drained = &status.endpoints[drained - 1];
    assert!(drained.in_subset, "it is not for the subset that it rests");
    assert_eq!(drained.weight, 0);

    // Whoever was not used leaves no gap.
    let unused = (0..SERVERS).find(|at| !used.contains(at) && !after.contains(at));
    let rest = (0..SERVERS).filter(|at| Some(*at) != unused);
    teller.say(rest.map(|at| endpoint(&servers[at])));
    wait_equal(LIMIT, used, || connected(&servers)).await;
    drop((teller, one, servers));
    leaks.finish().await;
}

/// Sends all calls to one.
#[derive(Debug)]
struct Sticky;

impl Policy for Sticky {
    fn name(&self) -> &str {
        "sticky"
    }

    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
        Balance::round_robin().build(candidates)
    }

    fn needs_all(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn all_are_used_if_there_are_few_or_the_policy_needs_them() {
    let leaks = LeakCheck::start().await;
    let servers = servers();
    let connector = || Connector::endpoints(all(&servers));
    let sticky = || connector().balance(Balance::custom(Sticky));
    for (connector, used) in [
        (connector(), SERVERS),
        (connector().no_subset(), SERVERS),
        (connector().subset(Subset::of(SERVERS)), SERVERS),
        (sticky(), SERVERS),
        (sticky().subset(subset()), SIZE),
    ] {
        let channel = connector.connect().await.unwrap();
        settled(&channel, &servers, used).await;
        drop(channel);
        wait_until(LIMIT, || connected(&servers).is_empty()).await;
    }
    let none = connector().subset(Subset::of(0)).connect_lazy();
    let none = none.unwrap_err().to_string();
    assert!(none.contains("subset"), "{none}");
    drop(servers);
    leaks.finish().await;
}

/// Of ten thousand, five hundred are used; here nobody answers, and all that is not used costs nothing.
#[tokio::test]
async fn very_large_sets_are_not_used_whole() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("s");
    let port = server.addr().port();
    let many = |policy| {
        let all = (0..10_000_u32).map(|number| {
            let [_, _, high, low] = number.to_be_bytes();
            Endpoint::tcp(format!("127.9.{high}.{low}:{port}"))
        });
        let connector = Connector::endpoints(all).balance(policy);
        connector.connect_lazy().unwrap()
    };
    let used = |channel: &Channel| {
        let endpoints = channel.status().endpoints;
        endpoints.iter().filter(|it| it.in_subset).count()
    };
    let channel = many(Balance::default());
    wait_until(LIMIT, || channel.status().endpoints.len() == 10_000).await;
    assert!(
        (500..=1_000).contains(&used(&channel)),
        "{}",
        used(&channel)
    );
    drop((channel, server));
    leaks.finish().await;
}
