//! Calls at a steady rate, whether or not those before have come back.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{interval, timeout};
use tonic::Status;
use trunkline::Channel;
use trunkline_proto::EchoRequest;
use trunkline_proto::echo_client::EchoClient;

/// How long a server takes for a call: long enough that a crash finds some unfinished.
const CALL_MS: u32 = 20;

/// What became of the calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    /// Replies by the name of the server that is in them.
    pub(crate) served: BTreeMap<String, u64>,
    /// What the first failure said.
    pub(crate) failure: Option<String>,
}

impl Counts {
    pub(crate) fn served_by(&self, server: &str) -> u64 {
        self.served.get(server).copied().unwrap_or_default()
    }

    /// What was added since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let served = self.served.iter();
        Self {
            sent: self.sent - earlier.sent,
            ok: self.ok - earlier.ok,
            failed: self.failed - earlier.failed,
            served: served
                .map(|(server, count)| (server.clone(), count - earlier.served_by(server)))
                .collect(),
            failure: self.failure.clone(),
        }
    }

    fn add(&mut self, ended: Result<Result<String, Status>, JoinError>) {
        let failure = match ended {
            Ok(Ok(server)) => {
                self.ok += 1;
                *self.served.entry(server).or_default() += 1;
                return;
            }
            Ok(Err(status)) => status.to_string(),
            Err(panic) => panic.to_string(),
        };
        self.failed += 1;
        self.failure.get_or_insert(failure);
    }
}

/// Calls in the making, until they are told to [`finish`](Self::finish).
pub(crate) struct Load {
    counts: watch::Receiver<Counts>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Load {
    pub(crate) fn start(client: EchoClient<Channel>, calls_per_second: u32) -> Self {
        let (sender, counts) = watch::channel(Counts::default());
        let (stop, stopped) = oneshot::channel();
        let period = Duration::from_secs(1) / calls_per_second;
        let task = tokio::spawn(make_calls(client, period, sender, stopped));
        Self { counts, stop, task }
    }

    /// The counts, as they grow.
    pub(crate) fn counts(&self) -> watch::Receiver<Counts> {
        self.counts.clone()
    }

    /// Makes no more calls, and waits for those on their way. What is not back within `limit` is lost: it
    /// stays in `sent`, and is neither `ok` nor `failed`.
    pub(crate) async fn finish(self, limit: Duration) -> Counts {
        let _ = self.stop.send(());
        let abort = self.task.abort_handle();
        if timeout(limit, self.task).await.is_err() {
            abort.abort();
        }
        self.counts.borrow().clone()
    }
}

async fn make_calls(
    client: EchoClient<Channel>,
    period: Duration,
    counts: watch::Sender<Counts>,
    mut stopped: oneshot::Receiver<()>,
) {
    // Ticks that come late are made up for: a slow moment must not thin out the load.
    let mut ticks = interval(period);
    let mut id = 0;
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            _ = ticks.tick() => {
                id += 1;
                counts.send_modify(|counts| counts.sent += 1);
                // Clones of a client share its channel, and cost next to nothing.
                calls.spawn(call(client.clone(), id));
            }
            Some(ended) = calls.join_next() => counts.send_modify(|counts| counts.add(ended)),
        }
    }
    while let Some(ended) = calls.join_next().await {
        counts.send_modify(|counts| counts.add(ended));
    }
}

/// The name of the server that answered.
async fn call(mut client: EchoClient<Channel>, id: u64) -> Result<String, Status> {
    let request = EchoRequest {
        id,
        delay_ms: CALL_MS,
        ..Default::default()
    };
    let reply = client.unary(request).await?.into_inner();
    if reply.id != id {
        return Err(Status::internal(format!(
            "call {id} got reply {}",
            reply.id
        )));
    }
    Ok(reply.server)
}
