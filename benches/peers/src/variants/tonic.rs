//! tonic's own channels, with their defaults.

use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::grpc::v14::GrpcCalls;
use super::{Calls, InTurn};
use crate::Failure;
use crate::target::{Address, Target};

pub async fn channel(target: &Target) -> Result<impl Calls, Failure> {
    let [address] = &*target.addresses else {
        return Err("a Channel has one endpoint".into());
    };
    Ok(GrpcCalls::new(
        endpoint(address, target)?.connect().await?,
        target,
    ))
}

/// A channel for each endpoint.
pub async fn in_turn(target: &Target) -> Result<impl Calls + use<>, Failure> {
    let mut channels = Vec::new();
    for address in target.addresses.iter() {
        let channel = endpoint(address, target)?.connect().await?;
        channels.push(GrpcCalls::new(channel, target));
    }
    Ok(InTurn::new(channels))
}

/// It connects with the first calls.
pub fn balance_list(target: &Target) -> Result<impl Calls + use<>, Failure> {
    balance(target, |endpoint| endpoint)
}

/// The settings that a user gives it against servers that stop answering.
pub fn balance_list_with_keepalive(target: &Target) -> Result<impl Calls + use<>, Failure> {
    balance(target, |endpoint| {
        endpoint
            .connect_timeout(Duration::from_millis(500))
            .http2_keep_alive_interval(Duration::from_secs(1))
            .keep_alive_timeout(Duration::from_secs(1))
    })
}

fn balance(
    target: &Target,
    settings: impl Fn(Endpoint) -> Endpoint,
) -> Result<GrpcCalls<Channel>, Failure> {
    let endpoint = |address| endpoint(address, target);
    let endpoints: Result<Vec<_>, _> = target.addresses.iter().map(endpoint).collect();
    let channel = Channel::balance_list(endpoints?.into_iter().map(settings));
    Ok(GrpcCalls::new(channel, target))
}

fn endpoint(address: &Address, target: &Target) -> Result<Endpoint, Failure> {
    let uri = match address {
        Address::Tcp(address) => format!("{}://{address}", target.scheme()),
        Address::Unix(path) => format!("unix:{}", path.display()),
    };
    let endpoint = Endpoint::from_shared(uri)?;
    let Some(tls) = &target.tls else {
        return Ok(endpoint);
    };
    let root = Certificate::from_pem(&tls.ca);
    Ok(endpoint.tls_config(ClientTlsConfig::new().ca_certificate(root))?)
}
