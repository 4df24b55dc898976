//! Raw hyper, one connection per endpoint, in turn.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::io::Socket;
use super::{Calls, InTurn, authority};
use crate::Failure;
use crate::target::{Target, check_trailers};

#[derive(Clone)]
pub struct HyperCalls {
    connections: InTurn<(SendRequest<Full<Bytes>>, http::request::Parts)>,
    message: Bytes,
    target: Target,
}

pub async fn connect(target: &Target) -> Result<HyperCalls, Failure> {
    let mut connections = Vec::new();
    for address in target.addresses.iter() {
        let io = TokioIo::new(Socket::connect(address, target.tls.as_deref()).await?);
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
        let (send, connection) = handshake.await?;
        tokio::spawn(connection);
        connections.push((send, target.request(&authority(address))));
    }
    Ok(HyperCalls {
        connections: InTurn::new(connections),
        message: target.framed(),
        target: target.clone(),
    })
}

impl Calls for HyperCalls {
    async fn call(&mut self) -> Result<(), Failure> {
        let (mut send, parts) = self.connections.pick();
        let request = http::Request::from_parts(parts, Full::new(self.message.clone()));
        let mut body = send.send_request(request).await?.into_body();
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
