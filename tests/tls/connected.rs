//! Channels that connect, and channels that are refused.

use std::net::SocketAddr;
use std::time::Duration;

use trunkline::EndpointStatus;
use trunkline::{Address, Channel, Connector, Dial, Dialing, Retry, SocketDialer, State};

use crate::client::calls::unary;
use crate::support::wait::{wait_equal, wait_until, within};

/// How long anything may take on a busy machine.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// A channel that is ready.
pub(super) async fn connected(connector: Connector) -> Channel {
    let connecting = connector.ready_timeout(LIMIT).connect();
    within(2 * LIMIT, "connecting", connecting).await.unwrap()
}

/// The connector makes a channel, and the server of this name answers on it.
pub(super) async fn works(connector: Connector, server: &str) {
    let channel = connected(connector).await;
    assert_eq!(unary(&channel, 1).await.unwrap().server, server);
}

/// Waits until every endpoint is ready.
pub(super) async fn all_ready(channel: &Channel) {
    let ready = || {
        let endpoints = channel.status().endpoints;
        endpoints.iter().all(|it| it.state == State::Ready)
    };
    wait_until(LIMIT, ready).await;
}

/// Waits until the only endpoint has so many connections.
pub(super) async fn connections(channel: &Channel, wanted: usize) {
    wait_equal(LIMIT, wanted, || channel.status().endpoints[0].connections).await;
}

/// Why the only endpoint is refused: what calls and the status say is checked to be the same, and that no connection
/// came about.
pub(super) async fn refused(connector: Connector) -> String {
    let channel = connector.retry(Retry::none()).connect_lazy().unwrap();
    let failed = || {
        let endpoints = channel.status().endpoints;
        let failed = |it: &EndpointStatus| it.state == State::TransientFailure;
        endpoints.first().is_some_and(failed)
    };
    wait_until(LIMIT, failed).await;
    let calling = unary(&channel, 1);
    let status = within(LIMIT, "a call", calling).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    let error = trunkline::Error::from_status(&status).expect("an error of the crate's own");
    assert!(!error.maybe_processed(), "{error:?}");
    let endpoint = channel.status().endpoints.remove(0);
    assert!(endpoint.connection_attempts_failed > 0);
    assert_eq!(endpoint.connection_attempts_succeeded, 0, "{endpoint:?}");
    assert_eq!((endpoint.connections, endpoint.peer), (0, None));
    let text = endpoint.last_error.expect("the status says why");
    // The status may be of a later dial, which says the same.
    assert!(
        status.message().contains(&text),
        "{text:?} is not in {status:?}"
    );
    text
}

/// The text has all of these parts.
#[track_caller]
pub(super) fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

/// A dialler that leads to one place, whatever the address is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leads(pub(super) SocketAddr);

impl Dial for Leads {
    fn dial<'a>(&'a self, _: &'a Address) -> Dialing<'a> {
        Box::pin(async move {
            let address = Address::tcp(&self.0.to_string()).unwrap();
            SocketDialer::new().dial(&address).await
        })
    }
}
