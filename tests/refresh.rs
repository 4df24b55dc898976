//! Pickers that are built anew at intervals, while nothing else changes.

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

use client::calls::{ask, endpoint, unary};
use client::told::Told;
use support::calls::request;
use support::leak::LeakCheck;
use support::server::EchoServer;
use support::wait::{wait_equal, wait_until, within};
use trunkline::{
    Balance, CallOptions, Candidate, Connector, Pick, PickRequest, Picker, Policy, State,
};

const LIMIT: Duration = Duration::from_secs(5);

/// Picks the second endpoint, and waits for it where there is none. Counts its pickers and their picks.
#[derive(Clone, Debug, Default)]
struct Second(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    builds: AtomicU64,
    picks: AtomicU64,
}

#[derive(Debug)]
struct SecondOf(usize, Arc<Counts>);

impl Second {
    fn builds(&self) -> u64 {
        self.0.builds.load(SeqCst)
    }

    fn picks(&self) -> u64 {
        self.0.picks.load(SeqCst)
    }

    /// Waits until so many more pickers were built.
    async fn build(&self, more: u64) {
        let enough = self.builds() + more;
        wait_until(LIMIT, || self.builds() >= enough).await;
    }
}

impl Policy for Second {
    fn name(&self) -> &str {
        "second"
    }

    fn build(&self, candidates: &[Candidate]) -> Box<dyn Picker> {
        self.0.builds.fetch_add(1, SeqCst);
        Box::new(SecondOf(candidates.len(), Arc::clone(&self.0)))
    }

    fn refresh_interval(&self) -> Option<Duration> {
        Some(Duration::from_millis(100))
    }
}

impl Picker for SecondOf {
    fn pick(&self, _: &PickRequest<'_>) -> Pick {
        self.1.picks.fetch_add(1, SeqCst);
        match self.0 {
            0 | 1 => Pick::Wait,
            _ => Pick::Endpoint(1),
        }
    }
}

#[tokio::test]
async fn a_picker_is_built_anew_while_nothing_changes() {
    let leaks = LeakCheck::start().await;
    let servers = ["a", "b"].map(EchoServer::start_tcp);
    let second = Second::default();
    let channel = Connector::endpoints(servers.each_ref().map(endpoint))
        .balance(Balance::custom(second.clone()))
        .connect()
        .await
        .unwrap();
    let mut state = channel.watch_state();
    let ready = || {
        let mut all = channel.status().endpoints.into_iter();
        all.all(|it| it.state == State::Ready)
    };
    wait_until(LIMIT, ready).await;
    // The state of an endpoint is seen a moment before the set that has it.
    second.build(3).await;
    state.mark_unchanged();
    assert_eq!(second.picks(), 0, "nobody called");
    for id in 0..10 {
        unary(&channel, id).await.unwrap();
        second.build(1).await;
    }
    // A call each, with whichever picker there was, over the connections that there were.
    assert_eq!(second.picks(), 10);
    assert_eq!(servers.each_ref().map(|it| it.journal().accepted()), [1, 1]);
    assert!(!state.has_changed().unwrap(), "the state did not change");
    drop((state, channel, servers));
    leaks.finish().await;
}

#[tokio::test]
async fn calls_that_wait_for_another_set_are_not_woken_by_that() {
    let leaks = LeakCheck::start().await;
    let [a, b] = ["a", "b"].map(EchoServer::start_tcp);
    let second = Second::default();
    let (teller, told) = Told::saying(Ok(vec![endpoint(&a)]));
    let connector = Connector::discover(told).balance(Balance::custom(second.clone()));
    let channel = connector.connect().await.unwrap();
    let waits = CallOptions::new().wait_for_ready(true);
    let other = channel.clone();
    let waiting = tokio::spawn(async move { ask(&other, request(1), waits).await });
    wait_equal(LIMIT, 1, || second.picks()).await;
    second.build(3).await;
    assert_eq!(second.picks(), 1, "it asks each set once");
    teller.say([endpoint(&a), endpoint(&b)]);
    let served = within(LIMIT, "the waiting call", waiting).await.unwrap();
    assert_eq!(served.unwrap().server, "b");
    drop((channel, a, b));
    leaks.finish().await;
}
