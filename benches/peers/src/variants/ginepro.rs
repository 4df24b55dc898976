//! ginepro, with its defaults and a lookup that needs no DNS.

use std::collections::HashSet;
use std::net::SocketAddr;

use ginepro::{LoadBalancedChannel, LookupService, ServiceDefinition};

use super::Calls;
use super::grpc::v13::GrpcCalls;
use crate::Failure;
use crate::target::{Address, Target};

pub async fn connect(target: &Target) -> Result<impl Calls + use<>, Failure> {
    let addresses: Result<HashSet<_>, _> = target.addresses.iter().map(Address::tcp).collect();
    // The port is not used: the lookup returns whole addresses.
    let channel = LoadBalancedChannel::builder(("peers.invalid", 1))
        .lookup_service(Fixed(addresses?))
        .channel()
        .await?;
    Ok(GrpcCalls::new(channel, target))
}

/// Finds the same addresses each time.
struct Fixed(HashSet<SocketAddr>);

#[async_trait::async_trait]
impl LookupService for Fixed {
    async fn resolve_service_endpoints(
        &self,
        _: &ServiceDefinition,
    ) -> Result<HashSet<SocketAddr>, anyhow::Error> {
        Ok(self.0.clone())
    }
}
