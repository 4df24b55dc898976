//! tonic's own channels, with their defaults.

use tonic::transport::{Channel, Endpoint};

use super::Calls;
use super::grpc::v14::GrpcCalls;
use crate::Failure;
use crate::target::{Address, Target};

pub async fn channel(target: &Target) -> Result<impl Calls, Failure> {
    let [address] = &target.addresses[..] else {
        return Err("a Channel has one endpoint".into());
    };
    Ok(GrpcCalls::new(endpoint(address)?.connect().await?, target))
}

/// It connects with the first calls.
pub fn balance_list(target: &Target) -> Result<impl Calls + use<>, Failure> {
    let endpoints: Result<Vec<_>, _> = target.addresses.iter().map(endpoint).collect();
    let channel = Channel::balance_list(endpoints?.into_iter());
    Ok(GrpcCalls::new(channel, target))
}

pub fn endpoint(address: &Address) -> Result<Endpoint, Failure> {
    let uri = match address {
        Address::Tcp(address) => format!("http://{address}"),
        Address::Unix(path) => format!("unix:{}", path.display()),
    };
    Ok(Endpoint::from_shared(uri)?)
}
