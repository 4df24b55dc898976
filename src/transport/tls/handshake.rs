//! One handshake.

use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tonic::Code;

use std::sync::Arc;

use crate::error::{Delivery, Error, Kind, Stage};
use crate::transport::dial::BoxIo;

use super::certificate::Certificate;
use super::context::TlsContext;
use super::error::{NO_H2, sentence};
use super::stream::Stream;

/// What is spoken inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// The server must agree to it by ALPN (RFC 9113, section 3.2).
    Http2,
    /// For Consul's agents, some of which know no ALPN.
    #[cfg(feature = "consul")]
    Http1,
}

impl Protocol {
    pub(super) fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Self::Http2 => vec![b"h2".to_vec()],
            #[cfg(feature = "consul")]
            Self::Http1 => Vec::new(),
        }
    }
}

/// An encrypted stream, and whom it leads to.
pub(crate) struct Encrypted {
    pub(crate) io: BoxIo,
    pub(crate) peer: Option<Arc<Certificate>>,
    pub(crate) generation: u64,
}

impl TlsContext {
    /// Encrypts `io`. The caller limits the time.
    ///
    /// # Errors
    ///
    /// If the server is not who it should be, or does not speak TLS, HTTP/2 or an allowed version. Nothing is sent in
    /// plaintext then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub(crate) async fn encrypt(
        &self,
        io: BoxIo,
        name: ServerName<'static>,
    ) -> Result<Encrypted, Error> {
        // Before the configuration: what is loaded with an older number is only replaced once too often.
        let generation = self.generation();
        if self.current.load().is_none() {
            self.refresh().await;
        }
        let Some(material) = self.current.load_full() else {
            let trouble = self.trouble();
            return Err(refused(
                trouble.as_deref().unwrap_or("TLS is not set up yet"),
            ));
        };
        let config = Arc::clone(&material.config);
        let connected = TlsConnector::from(config).connect(name, io).await;
        let stream = connected.map_err(|error| refused(&sentence(&error)).because(error))?;
        let (_, session) = stream.get_ref();
        if self.protocol == Protocol::Http2 && session.alpn_protocol() != Some(b"h2") {
            return Err(refused(NO_H2));
        }
        let peer = session.peer_certificates().and_then(|it| self.peer(it));
        Ok(Encrypted {
            io: Box::new(Stream(stream)),
            peer,
            generation,
        })
    }
}

fn refused(text: &str) -> Error {
    Error::new(Kind::Connect, Code::Unavailable, text)
        .in_stage(Stage::Handshake)
        .delivered(Delivery::NotSent)
}
