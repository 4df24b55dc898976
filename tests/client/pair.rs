//! Two raw peers under one channel, whose attempts go to the first of them first, then to the other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use trunkline::{Backoff, Balance, BudgetLimits, Channel, Connector, Endpoint, PoolOptions, Retry};

use super::first::First;
use crate::support::raw_peer::RawPeer;
use crate::support::raw_serve::ServedPeer;
use crate::support::reaction::{Reaction, RequestInfo};
use crate::support::wait::wait_equal;

/// How long connecting may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Retries at once, so that tests are quick.
pub fn quick() -> Retry {
    let short = Duration::from_millis(1);
    Retry::exponential().backoff(Backoff::calls().initial(short).max(short))
}

/// The peers and the channel. Both peers are connected at first, and are dialled again at once.
#[derive(Debug)]
pub struct Pair {
    pub channel: Channel,
    pub peers: [ServedPeer; 2],
    first: First,
    log: Arc<Mutex<Vec<Sighting>>>,
}

/// A request that came to a peer.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    pub peer: usize,
    /// The echo request's; 0 for other requests.
    pub id: u64,
    pub at: Instant,
}

impl Pair {
    /// `react` is told how often the request's id was seen before, at both peers.
    pub async fn start(
        adjust: impl FnOnce(Connector) -> Connector,
        react: impl Fn(usize, &RequestInfo) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let log = Arc::<Mutex<Vec<Sighting>>>::default();
        let times = Arc::new(Mutex::new(HashMap::<u64, usize>::new()));
        let react = Arc::new(react);
        let peers = [0, 1].map(|peer| {
            let (log, times, react) = (Arc::clone(&log), Arc::clone(&times), Arc::clone(&react));
            RawPeer::tcp().serve(&[], move |request| {
                let id = request.echo().map_or(0, |echo| echo.id);
                let at = Instant::now();
                log.lock().unwrap().push(Sighting { peer, id, at });
                let nth = {
                    let mut times = times.lock().unwrap();
                    let times = times.entry(id).or_default();
                    *times += 1;
                    *times - 1
                };
                react(nth, request)
            })
        });
        let soon = Duration::from_millis(1);
        let pool = PoolOptions::new().dial_backoff(Backoff::dialling().initial(soon).max(soon));
        let first = First::default();
        let connector = Connector::endpoints(peers.each_ref().map(|it| Endpoint::uri(it.uri())))
            .balance(Balance::custom(first.clone()))
            .retry(quick())
            .retry_budget(BudgetLimits::default().ratio(10.0).min_per_second(1000))
            .pool(pool);
        let channel = adjust(connector).connect().await.unwrap();
        let pair = Self {
            channel,
            peers,
            first,
            log,
        };
        pair.connected_to(2).await;
        pair
    }

    /// Waits until so many of the peers can be picked.
    pub async fn connected_to(&self, peers: usize) {
        wait_equal(LIMIT, peers, || self.first.candidates()).await;
    }

    /// As errors and histories name them.
    pub fn address(&self, peer: usize) -> String {
        self.peers[peer].addr().to_string()
    }

    /// The requests with this id, in their order.
    pub fn seen(&self, id: u64) -> Vec<Sighting> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|it| it.id == id).copied().collect()
    }

    /// The peers that saw this id, in their order.
    pub fn path(&self, id: u64) -> Vec<usize> {
        self.seen(id).into_iter().map(|it| it.peer).collect()
    }
}

/// The echo service's answer.
pub fn echo(request: &RequestInfo) -> Reaction {
    Reaction::echo(request, "peer")
}

/// The answer UNAVAILABLE.
pub fn unavailable() -> Reaction {
    Reaction::Fail(14, "asked to fail".to_owned())
}
