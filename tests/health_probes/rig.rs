//! Echo servers with health services, under one channel.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use trunkline::{Channel, Connector, Endpoint, HealthCheck};

use super::clinic::{Clinic, Says};
use crate::client::calls::endpoint;
use crate::support::server::EchoServer;

/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(10);

/// The shortest interval.
pub const TICK: Duration = Duration::from_millis(100);

/// Asks as often as may be, waits for the answer for as long as a busy machine takes, and believes it soon.
pub fn often(check: HealthCheck) -> HealthCheck {
    let check = check.interval(TICK).unhealthy_interval(TICK);
    check.timeout(LIMIT).min_healthy_time(TICK, LIMIT)
}

/// Both ways to ask gRPC's health service.
pub fn both() -> [HealthCheck; 2] {
    [HealthCheck::grpc(), HealthCheck::grpc_check()].map(often)
}

/// Does this for each case, all of them at once: most of it is waiting for intervals. Servers and channels are each case's own.
pub async fn each<T>(cases: impl IntoIterator<Item = T>, test: impl AsyncFn(T)) {
    join_all(cases.into_iter().map(async |case| test(case).await)).await;
}

#[derive(Debug)]
pub struct Rig {
    pub channel: Channel,
    pub servers: Vec<EchoServer>,
    pub clinics: Vec<Arc<Clinic>>,
}

impl Rig {
    /// Servers whose health services say this, all of them connected.
    pub async fn start(says: &[Says], check: HealthCheck) -> Self {
        Self::adjusted(says, check, |connector| connector).await
    }

    pub async fn adjusted(
        says: &[Says],
        check: HealthCheck,
        adjust: impl FnOnce(Connector) -> Connector,
    ) -> Self {
        let clinics: Vec<_> = says.iter().map(|says| Clinic::that(*says)).collect();
        let servers = servers(&clinics);
        let connector = Connector::endpoints(endpoints(&servers)).health_check(check);
        let connector = adjust(connector).ready_timeout(LIMIT);
        Self {
            channel: connector.connect().await.unwrap(),
            servers,
            clinics,
        }
    }

    /// A server's address, as the log has it.
    pub fn address(&self, nth: usize) -> String {
        self.servers[nth].addr().to_string()
    }
}

/// A server for each of them: `a`, `b`, `c` and so on.
pub fn servers(clinics: &[Arc<Clinic>]) -> Vec<EchoServer> {
    let names = ('a'..).map(|name| name.to_string());
    let servers = clinics.iter().zip(names).map(|(clinic, name)| {
        let builder = EchoServer::builder(&name);
        builder.beside(clinic.routes()).tcp()
    });
    servers.collect()
}

pub fn endpoints(servers: &[EchoServer]) -> Vec<Endpoint> {
    servers.iter().map(endpoint).collect()
}
