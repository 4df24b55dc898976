//! Answers of discovery become the set of endpoints: what stays keeps its connections, what goes finishes its calls.

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

use client::calls::{endpoint, hang, slow, unary};
use client::told::{Teller, Told};
use support::calls::request;
use support::h2_server::H2Peer;
use support::leak::LeakCheck;
use support::server::EchoServer;
use support::wait::{wait_equal, wait_until, within};
use trunkline::{Balance, Channel, Connector, Endpoint, State};
use trunkline_proto::echo_client::EchoClient;

const LIMIT: Duration = Duration::from_secs(5);

fn servers<const N: usize>(names: [&str; N]) -> [EchoServer; N] {
    names.map(EchoServer::start_tcp)
}

async fn connect(endpoints: impl IntoIterator<Item = Endpoint>) -> (Teller, Channel) {
    let (teller, told) = Told::saying(Ok(endpoints.into_iter().collect()));
    // By weight alone: some calls are held, and endpoints come back.
    let connector = Connector::discover(told)
        .balance(Balance::weighted())
        .no_slow_start();
    let channel = connector.connect().await.unwrap();
    (teller, channel)
}

/// The endpoints' addresses and weights, in their order.
fn listed(channel: &Channel) -> Vec<(String, u32)> {
    let status = channel.status();
    let endpoints = status.endpoints.into_iter();
    endpoints.map(|it| (it.address, it.weight)).collect()
}

fn entries<const N: usize>(entries: [(&EchoServer, u32); N]) -> Vec<(String, u32)> {
    entries
        .map(|(server, weight)| (server.addr().to_string(), weight))
        .into()
}

/// Tells these servers with these weights, and waits until the channel has them and each is ready.
async fn tell<const N: usize>(teller: &Teller, channel: &Channel, now: [(&EchoServer, u32); N]) {
    teller.say(now.map(|(server, weight)| endpoint(server).weight(weight)));
    wait_equal(LIMIT, entries(now), || listed(channel)).await;
    wait_until(LIMIT, || {
        let endpoints = channel.status().endpoints;
        endpoints
            .iter()
            .all(|it| it.weight == 0 || it.state == State::Ready)
    })
    .await;
}

/// [`tell`], and waits until each gets calls: its state is seen a moment before the set that has it.
async fn tell_and_see<const N: usize>(
    teller: &Teller,
    channel: &Channel,
    now: [(&EchoServer, u32); N],
) {
    tell(teller, channel, now).await;
    for (server, _) in now.into_iter().filter(|(_, weight)| *weight > 0) {
        let before = server.journal().started();
        within(LIMIT, "a call to each", async {
            while server.journal().started() == before {
                unary(channel, 0).await.unwrap();
            }
        })
        .await;
    }
}

/// Makes so many calls and gives how many each server handled.
async fn shares<const N: usize>(
    channel: &Channel,
    servers: [&EchoServer; N],
    calls: u64,
) -> [u64; N] {
    let before = servers.map(|server| server.journal().started());
    for id in 0..calls {
        unary(channel, id).await.unwrap();
    }
    let mut at = 0;
    servers.map(|server| {
        at += 1;
        server.journal().started() - before[at - 1]
    })
}

#[tokio::test]
async fn what_stays_keeps_its_connections_and_what_goes_finishes_its_calls() {
    let leaks = LeakCheck::start().await;
    let [a, b, c] = servers(["a", "b", "c"]);
    let (teller, channel) = connect([&a, &b].map(endpoint)).await;
    tell_and_see(&teller, &channel, [(&a, 1), (&b, 1)]).await;
    assert_eq!(shares(&channel, [&a, &b], 20).await, [10, 10]);

    // One of the two goes to each.
    let calls = [slow(&channel, 1, 500), slow(&channel, 2, 500)];
    for server in [&a, &b] {
        wait_equal(LIMIT, 1, || server.journal().in_flight()).await;
    }
    tell_and_see(&teller, &channel, [(&b, 1), (&c, 1)]).await;
    assert_eq!(shares(&channel, [&a, &b, &c], 20).await, [0, 10, 10]);
    assert_eq!(a.journal().open(), 1, "for the call in flight");
    for call in calls {
        let finished = within(LIMIT, "a call in flight", call).await.unwrap();
        finished.unwrap();
    }
    wait_equal(LIMIT, 0, || a.journal().open()).await;

    // Another order is no change.
    tell_and_see(&teller, &channel, [(&c, 1), (&b, 1)]).await;
    assert_eq!(shares(&channel, [&a, &b, &c], 20).await, [0, 10, 10]);
    // What comes back is dialled anew.
    tell_and_see(&teller, &channel, [(&a, 1), (&b, 1), (&c, 1)]).await;
    assert_eq!(shares(&channel, [&a, &b, &c], 30).await, [10, 10, 10]);
    let accepted = [&a, &b, &c].map(|server| server.journal().accepted());
    assert_eq!(accepted, [2, 1, 1]);
    assert_eq!(a.journal().cancelled() + b.journal().cancelled(), 0);
    drop((channel, a, b, c));
    leaks.finish().await;
}

#[tokio::test]
async fn weights_change_without_a_redial() {
    let leaks = LeakCheck::start().await;
    let [a, b] = servers(["a", "b"]);
    let (teller, channel) = connect([&a, &b].map(endpoint)).await;
    for (weights, expected) in [((1, 1), [50, 50]), ((3, 1), [75, 25]), ((1, 4), [20, 80])] {
        tell_and_see(&teller, &channel, [(&a, weights.0), (&b, weights.1)]).await;
        let shares = shares(&channel, [&a, &b], 100).await;
        let off = shares[0].abs_diff(expected[0]);
        assert!(off <= 2, "{shares:?} for {expected:?}");
    }
    assert_eq!([&a, &b].map(|server| server.journal().accepted()), [1, 1]);
    drop((channel, a, b));
    leaks.finish().await;
}

#[tokio::test]
async fn weight_zero_drains_until_it_is_raised() {
    let leaks = LeakCheck::start().await;
    let [a, b] = servers(["a", "b"]);
    let (teller, channel) = connect([&a, &b].map(endpoint)).await;
    tell(&teller, &channel, [(&a, 1), (&b, 1)]).await;
    let calls = [hang(&channel, 1), slow(&channel, 2, 300)];
    wait_equal(LIMIT, 2, || {
        a.journal().in_flight() + b.journal().in_flight()
    })
    .await;

    tell_and_see(&teller, &channel, [(&a, 0), (&b, 1)]).await;
    assert_eq!(channel.status().endpoints[0].state, State::Shutdown);
    assert_eq!(shares(&channel, [&a, &b], 20).await, [0, 20]);
    assert_eq!(a.journal().in_flight(), 1);
    let [hanging, slow] = calls;
    hanging.abort();
    let _ = hanging.await;
    slow.await.unwrap().unwrap();
    wait_equal(LIMIT, 0, || a.journal().open()).await;

    tell_and_see(&teller, &channel, [(&a, 1), (&b, 1)]).await;
    assert_eq!(shares(&channel, [&a, &b], 20).await, [10, 10]);
    assert_eq!([&a, &b].map(|server| server.journal().accepted()), [2, 1]);

    // All at once is not what any one of them is told for.
    tell(&teller, &channel, [(&a, 0), (&b, 0)]).await;
    let status = unary(&channel, 1).await.unwrap_err();
    assert!(
        status.message().contains("all endpoints are drained"),
        "{status}"
    );
    tell_and_see(&teller, &channel, [(&a, 0), (&b, 1)]).await;
    assert_eq!(shares(&channel, [&a, &b], 4).await, [0, 4]);
    drop((channel, a, b));
    leaks.finish().await;
}

#[tokio::test]
async fn entries_that_cannot_be_used_or_stand_twice_are_left_out() {
    let leaks = LeakCheck::start().await;
    let [a, b] = servers(["a", "b"]);
    let bad = || {
        [
            Endpoint::tcp("no port"),
            Endpoint::unix("relative"),
            Endpoint::tcp("a:1").authority("not an authority"),
        ]
    };
    let mut first: Vec<_> = bad().into();
    first.extend([endpoint(&a).weight(1), endpoint(&b).weight(1)]);
    first.extend(bad());
    // The same again, in other words too.
    let again = Endpoint::tcp(a.addr().to_string()).weight(7);
    first.extend([endpoint(&b).weight(5), again.clone()]);
    let (teller, channel) = connect(first).await;
    wait_equal(LIMIT, entries([(&a, 1), (&b, 1)]), || listed(&channel)).await;
    tell_and_see(&teller, &channel, [(&a, 1), (&b, 1)]).await;
    assert_eq!(shares(&channel, [&a, &b], 20).await, [10, 10]);

    // The first one counts, also when it says that the endpoint is drained.
    teller.say([endpoint(&a).weight(0), again, endpoint(&b)]);
    wait_equal(LIMIT, entries([(&a, 0), (&b, 1)]), || listed(&channel)).await;
    assert_eq!(shares(&channel, [&a, &b], 20).await, [0, 20]);
    assert_eq!([&a, &b].map(|server| server.journal().accepted()), [1, 1]);
    drop((channel, a, b));
    leaks.finish().await;
}

#[tokio::test]
async fn another_authority_is_another_endpoint() {
    let leaks = LeakCheck::start().await;
    let peer = H2Peer::tcp();
    let address = peer.addr().to_string();
    let (teller, told) = Told::saying(Ok(vec![Endpoint::tcp(&address)]));
    let channel = Connector::discover(told).connect_lazy().unwrap();
    let mut first = peer.accept().await;
    let client = EchoClient::new(channel.clone());
    let call = |id| {
        let mut client = client.clone();
        tokio::spawn(async move { client.unary(request(id)).await })
    };

    let in_flight = call(1);
    let asked = first.next().await;
    assert_eq!(asked.parts.uri.authority().unwrap().as_str(), address);
    teller.say([Endpoint::tcp(&address).authority("payments.test:443")]);
    let mut second = peer.accept().await;
    let moved = call(2);
    let asked_anew = second.next().await;
    let authority = asked_anew.parts.uri.authority().unwrap();
    assert_eq!(authority.as_str(), "payments.test:443");
    asked_anew.ok(&[8, 2]);
    asked.ok(&[8, 1]);
    assert_eq!(in_flight.await.unwrap().unwrap().into_inner().id, 1);
    assert_eq!(moved.await.unwrap().unwrap().into_inner().id, 2);
    first.ended().await;
    drop((client, channel));
    second.ended().await;
    drop(peer);
    leaks.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_the_set_changes() {
    let leaks = LeakCheck::start().await;
    let [a, b, c] = servers(["a", "b", "c"]);
    let (teller, channel) = connect([&a, &b].map(endpoint)).await;
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let channel = channel.clone();
            tokio::spawn(async move {
                let mut made = 0;
                while channel.status().endpoints.len() > 1 {
                    unary(&channel, caller).await.unwrap();
                    made += 1;
                }
                made
            })
        })
        .collect();
    for _ in 0..10 {
        tell(&teller, &channel, [(&b, 1), (&c, 1)]).await;
        tell(&teller, &channel, [(&c, 1), (&a, 0)]).await;
        tell(&teller, &channel, [(&a, 1), (&b, 1)]).await;
    }
    tell(&teller, &channel, [(&b, 1)]).await;
    let mut made = 0;
    for caller in callers {
        made += caller.await.expect("no call failed");
    }
    let handled = [&a, &b, &c].map(|server| server.journal().finished());
    assert_eq!(handled.iter().sum::<u64>(), made);
    assert!(handled.iter().all(|&calls| calls > 0), "{handled:?}");
    assert_eq!(channel.stats().failed, 0);
    drop((channel, a, b, c));
    leaks.finish().await;
}
