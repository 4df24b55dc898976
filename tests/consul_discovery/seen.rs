//! What a channel has heard.

use std::collections::BTreeMap;
use std::time::Duration;

use trunkline::{Channel, Connector, Consul};

use crate::consul::agent::Agent;
use crate::support::wait::wait_equal;

pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// The service of these tests at this agent.
pub(super) fn echo(agent: &Agent) -> Consul {
    Consul::service("echo").agent(agent.http_addr().to_string())
}

/// A channel over it that does not wait.
pub(super) fn lazy(service: Consul) -> Channel {
    Connector::consul(service).connect_lazy().unwrap()
}

/// The instances by their ids, with their weights.
pub(super) fn weights(channel: &Channel) -> BTreeMap<String, u32> {
    let endpoints = channel.status().endpoints.into_iter();
    endpoints
        .map(|it| (it.metadata["consul.id"].clone(), it.weight))
        .collect()
}

/// Waits until the channel knows these instances, with these weights, and no others.
#[track_caller]
pub(super) fn sees(
    channel: &Channel,
    expected: &[(&str, u32)],
) -> impl Future<Output = ()> + use<> {
    let expected: BTreeMap<_, _> = expected
        .iter()
        .map(|(id, weight)| ((*id).to_owned(), *weight))
        .collect();
    let channel = channel.clone();
    wait_equal(LIMIT, expected, move || weights(&channel))
}

/// What is wrong with discovery, if anything.
pub(super) fn trouble(channel: &Channel) -> String {
    channel.status().discovery_error.unwrap_or_default()
}
