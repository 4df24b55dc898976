//! Raw h2, one connection per endpoint, in turn.

use bytes::Bytes;
use h2::client::SendRequest;

use super::io::Socket;
use super::{Calls, InTurn, authority};
use crate::Failure;
use crate::target::{Target, check_trailers};

/// hyper's defaults, so that the windows are no difference between the variants.
const STREAM_WINDOW: u32 = 2 << 20;
const WINDOW: u32 = 5 << 20;

#[derive(Clone)]
pub struct H2Calls {
    connections: InTurn<(SendRequest<Bytes>, http::request::Parts)>,
    message: Bytes,
    target: Target,
}

pub async fn connect(target: &Target) -> Result<H2Calls, Failure> {
    let mut connections = Vec::new();
    for address in target.addresses.iter() {
        let socket = Socket::connect(address, target.tls.as_deref()).await?;
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(socket)
            .await?;
        tokio::spawn(connection);
        connections.push((send, target.request(&authority(address))));
    }
    Ok(H2Calls {
        connections: InTurn::new(connections),
        message: target.framed(),
        target: target.clone(),
    })
}

impl Calls for H2Calls {
    async fn call(&mut self) -> Result<(), Failure> {
        let (send, parts) = self.connections.pick();
        let request = http::Request::from_parts(parts, ());
        let mut send = send.ready().await?;
        let (response, mut stream) = send.send_request(request, false)?;
        stream.send_data(self.message.clone(), true)?;
        let mut body = response.await?.into_body();
        let mut bytes = 0;
        while let Some(data) = body.data().await {
            let data = data?;
            bytes += data.len();
            body.flow_control().release_capacity(data.len())?;
        }
        check_trailers(body.trailers().await?.as_ref())?;
        self.target.check(bytes, 5)
    }
}
