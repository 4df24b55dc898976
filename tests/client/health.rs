//! An endpoint's health, as its users see it, and the calls that follow from it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use trunkline::{Channel, EndpointStatus, Health, HealthSource, HealthStatus};

use super::calls::unary;
use crate::support::server::EchoServer;
use crate::support::wait::{holds_within, wait_equal};

/// How long a change may take.
const LIMIT: Duration = Duration::from_secs(10);

/// That endpoint now.
pub fn endpoint(channel: &Channel, nth: usize) -> EndpointStatus {
    channel.status().endpoints.swap_remove(nth)
}

/// Its health now.
pub fn status(channel: &Channel, nth: usize) -> HealthStatus {
    endpoint(channel, nth).health
}

/// The health of all of them.
pub fn all(channel: &Channel) -> Vec<Health> {
    let endpoints = channel.status().endpoints;
    endpoints.iter().map(|it| it.health.health).collect()
}

/// Waits until they stand like this.
#[track_caller]
pub fn are(channel: &Channel, wanted: &[Health]) -> impl Future<Output = ()> {
    let channel = channel.clone();
    wait_equal(LIMIT, wanted.to_vec(), move || all(&channel))
}

/// Waits until one stands like this, and gives all that is said of it.
#[track_caller]
pub fn is(channel: &Channel, nth: usize, wanted: Health) -> impl Future<Output = HealthStatus> {
    let channel = channel.clone();
    let caller = std::panic::Location::caller();
    async move {
        let mut last = status(&channel, nth);
        let stands = holds_within(LIMIT, || {
            last = status(&channel, nth);
            last.health == wanted
        });
        assert!(
            stands.await,
            "at {caller}: wanted {wanted}, last saw {last:?}"
        );
        last
    }
}

/// What is said against it.
pub fn said(status: &HealthStatus) -> (Option<HealthSource>, &str) {
    let reason = status.reason.as_deref();
    (status.decided_by, reason.unwrap_or_default())
}

/// Makes so many calls, one after the other, all of which must succeed, and gives the number that came to each server.
pub async fn shares<'a>(
    channel: &Channel,
    servers: impl IntoIterator<Item = &'a EchoServer>,
    calls: u64,
) -> Vec<u64> {
    counted(servers, async {
        for id in 1..=calls {
            unary(channel, id).await.expect("an answer");
        }
    })
    .await
}

/// Makes so many calls, one after the other, whatever comes of them, and gives the number that came to each server.
pub async fn spread<'a>(
    channel: &Channel,
    servers: impl IntoIterator<Item = &'a EchoServer>,
    calls: u64,
) -> Vec<u64> {
    counted(servers, async {
        for id in 1..=calls {
            let _ = unary(channel, id).await;
        }
    })
    .await
}

/// The number of calls that came to each server meanwhile.
pub async fn counted<'a>(
    servers: impl IntoIterator<Item = &'a EchoServer>,
    calls: impl Future,
) -> Vec<u64> {
    let servers: Vec<_> = servers.into_iter().collect();
    let started = |server: &&EchoServer| server.journal().started();
    let before: Vec<_> = servers.iter().map(started).collect();
    calls.await;
    let after = servers.iter().map(started);
    after
        .zip(before)
        .map(|(after, before)| after - before)
        .collect()
}

/// Asserts that the servers got about so many calls, those with 0 none. When a new set of endpoints is made, turns begin
/// anew.
#[track_caller]
pub fn about(calls: &[u64], wanted: &[u64]) {
    let fits = |(calls, wanted): (&u64, &u64)| match wanted {
        0 => *calls == 0,
        _ => calls.abs_diff(*wanted) <= 2 + wanted / 10,
    };
    let all = calls.iter().zip(wanted).all(fits);
    assert!(
        all && calls.len() == wanted.len(),
        "{calls:?}, not {wanted:?}"
    );
}

/// How an endpoint stood, one after the other, as whoever watches the channel's state sees it.
#[derive(Debug)]
pub struct Flips {
    seen: Arc<Mutex<Vec<Health>>>,
    task: JoinHandle<()>,
}

impl Flips {
    pub fn follow(channel: &Channel, nth: usize) -> Self {
        let channel = channel.clone();
        let mut state = channel.watch_state();
        let mut last = status(&channel, nth).health;
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let flips = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while state.changed().await.is_ok() {
                let now = status(&channel, nth).health;
                if now != last {
                    flips.lock().unwrap().push(now);
                    last = now;
                }
            }
        });
        Self { seen, task }
    }

    /// Those since it began to follow.
    pub fn seen(&self) -> Vec<Health> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Flips {
    fn drop(&mut self) {
        self.task.abort();
    }
}
