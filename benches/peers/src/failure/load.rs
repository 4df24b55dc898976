//! The open loop.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::TIMEOUT;
use super::outcome::{Call, Outcome};
use super::scenario::Scenario;
use crate::Failure;
use crate::servers::ServerProcess;
use crate::variants::{Calls, Job};

const CALLS_PER_SECOND: u32 = 500;
/// What passes before the fault, in calls that must all succeed.
const HEALTHY: Duration = Duration::from_secs(1);

pub struct Load {
    pub scenario: Scenario,
    pub servers: Vec<ServerProcess>,
    /// The servers' time for an answer.
    pub delay: Duration,
    pub quick: bool,
}

impl Job for Load {
    type Output = Result<Outcome, Failure>;

    async fn run(mut self, client: impl Calls) -> Self::Output {
        let mut first = client.clone();
        // Connections are made, also to those servers that are not picked at once.
        for _ in 0..30 {
            first.call().await?;
        }
        let (report, mut reports) = mpsc::unbounded_channel();
        let start = Instant::now();
        let load = tokio::spawn(keep_calling(client, start, report));
        tokio::time::sleep(HEALTHY).await;

        let fault = start.elapsed();
        self.scenario.happen(&mut self.servers, self.quick).await?;
        let end = start.elapsed();
        load.abort();

        // Those in flight have their deadlines.
        let mut calls = Vec::new();
        let last = tokio::time::sleep(TIMEOUT * 2);
        tokio::pin!(last);
        loop {
            tokio::select! {
                report = reports.recv() => match report {
                    Some(call) => calls.push(call),
                    None => break,
                },
                () = &mut last => break,
            }
        }
        Outcome::of(&calls, self.scenario, fault, end, self.delay)
    }
}

/// Starts calls at their times, until it is aborted.
async fn keep_calling(client: impl Calls, start: Instant, report: mpsc::UnboundedSender<Call>) {
    let mut ticks = interval(Duration::from_secs(1) / CALLS_PER_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        let due = ticks.tick().await.into_std().max(start);
        let (mut client, report) = (client.clone(), report.clone());
        tokio::spawn(async move {
            let result = client.call().await;
            let call = Call {
                start: due - start,
                latency: due.elapsed(),
                error: result.err().map(|error| code(&error)),
            };
            // Nobody listens once the run is over.
            let _ = report.send(call);
        });
    }
}

/// gRPC's word for what went wrong.
fn code(error: &Failure) -> String {
    if let Some(status) = error.downcast_ref::<tonic::Status>() {
        return format!("{:?}", status.code());
    }
    match error.downcast_ref::<tonic013::Status>() {
        Some(status) => format!("{:?}", status.code()),
        None => error.to_string(),
    }
}
