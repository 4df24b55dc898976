//! Echo servers under one channel that does not repeat calls.

use std::time::Duration;

use tonic::Code;
use trunkline::{Breaker, Channel, Connector, Health, Retry};

use crate::client::calls::endpoint;
use crate::client::health::{are, spread, status};
use crate::support::server::EchoServer;

/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Longer than any test.
pub const NEVER: Duration = Duration::from_secs(3600);

/// One that stays open for the whole test.
pub fn for_good() -> Breaker {
    Breaker::new().open_for(NEVER, NEVER)
}

/// One that soon lets an endpoint prove itself.
pub fn for_a_moment() -> Breaker {
    let moment = Duration::from_millis(100);
    Breaker::new().open_for(moment, moment)
}

#[derive(Debug)]
pub struct Rig {
    pub channel: Channel,
    pub servers: Vec<EchoServer>,
}

impl Rig {
    /// So many servers, all of them connected.
    pub async fn start(count: usize, adjust: impl FnOnce(Connector) -> Connector) -> Self {
        let names = ('a'..).map(|name| name.to_string()).take(count);
        let servers: Vec<_> = names.map(|name| EchoServer::start_tcp(&name)).collect();
        let connector = Connector::endpoints(servers.iter().map(endpoint));
        let connector = adjust(connector.retry(Retry::none()));
        let rig = Self {
            channel: connector.connect().await.unwrap(),
            servers,
        };
        are(&rig.channel, &vec![Health::Healthy; count]).await;
        rig
    }

    /// The same with this breaker.
    pub async fn with(count: usize, breaker: Breaker) -> Self {
        Self::start(count, |connector| connector.breaker(breaker)).await
    }

    /// Has the server fail all calls, and calls until the breaker has seen enough.
    pub async fn trip(&self, nth: usize) {
        self.servers[nth].behaviour().fail(1.0, Code::Unavailable);
        while status(&self.channel, nth).health == Health::Healthy {
            spread(&self.channel, &self.servers, 1).await;
            tokio::task::yield_now().await;
        }
    }
}
