//! Trunkline, with its defaults: they include a deadline of 30 s for each call, told to the server, and a copy of
//! the request kept for retries.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tonic::body::Body;
use trunkline::{Balance, Channel, Connector, Endpoint, Keepalive, Policy, Retry, Tls};

use super::Calls;
use super::grpc::v14::GrpcCalls;
use crate::Failure;
use crate::target::{Address, Target, check_trailers};

/// Under a generated client.
pub async fn generated(target: &Target) -> Result<impl Calls + use<>, Failure> {
    Ok(GrpcCalls::new(connector(target).connect().await?, target))
}

/// Under a generated client, with this policy.
pub async fn balanced(target: &Target, balance: Balance) -> Result<impl Calls + use<>, Failure> {
    // Policies that follow weights want to be given some.
    let weighted = |it: Endpoint| {
        if balance.needs_weights() {
            it.weight(1)
        } else {
            it
        }
    };
    let connector = connector_of(target, weighted).balance(balance.clone());
    Ok(GrpcCalls::new(connector.connect().await?, target))
}

/// Under a generated client, with the keepalive for servers that stop answering, and with or without retries.
pub async fn watchful(target: &Target, retry: Retry) -> Result<impl Calls + use<>, Failure> {
    let keepalive = Keepalive::every(Duration::from_millis(100))
        .timeout(Duration::from_millis(200))
        .allow_frequent();
    let connector = connector(target).retry(retry).keepalive(keepalive);
    Ok(GrpcCalls::new(connector.connect().await?, target))
}

/// Under a generated client, without waiting for a connection, and with these settings.
pub fn lazy(
    target: &Target,
    settings: fn(Connector) -> Connector,
) -> Result<impl Calls + use<>, Failure> {
    let channel = settings(connector(target)).connect_lazy()?;
    Ok(GrpcCalls::new(channel, target))
}

/// Raw requests.
pub async fn raw(target: &Target) -> Result<impl Calls + use<>, Failure> {
    Ok(RawCalls {
        channel: connector(target).connect().await?,
        parts: target.request("localhost"),
        message: target.framed(),
        target: target.clone(),
    })
}

fn connector(target: &Target) -> Connector {
    connector_of(target, |endpoint| endpoint)
}

fn connector_of(target: &Target, adjust: impl Fn(Endpoint) -> Endpoint) -> Connector {
    let endpoint = |address: &Address| match address {
        Address::Tcp(address) => Endpoint::tcp(address.to_string()),
        Address::Unix(path) => Endpoint::unix(path),
    };
    let connector = Connector::endpoints(target.addresses.iter().map(endpoint).map(adjust));
    match &target.tls {
        None => connector,
        Some(tls) => connector.tls(Tls::new().ca_pem(&*tls.ca).resumption(tls.resumption)),
    }
}

#[derive(Clone)]
struct RawCalls {
    channel: Channel,
    parts: http::request::Parts,
    message: Bytes,
    target: Target,
}

impl Calls for RawCalls {
    async fn call(&mut self) -> Result<(), Failure> {
        let body = Body::new(Full::new(self.message.clone()));
        let request = http::Request::from_parts(self.parts.clone(), body);
        let mut body = pin!(self.channel.send(request).await?.into_body());
        let (mut bytes, mut trailers) = (0, None);
        while let Some(frame) = body.frame().await {
            match frame?.into_data() {
                Ok(data) => bytes += data.len(),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        check_trailers(trailers.as_ref())?;
        self.target.check(bytes, 5)
    }
}
