//! The servers' side.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::{fs, io};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{HandshakeKind, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::{Identity, ServerTlsConfig};

use super::{CHAIN, H2, KEY};
use crate::Failure;

/// Accepts, and counts what it accepted.
pub struct Acceptor {
    acceptor: TlsAcceptor,
    full: AtomicU64,
    resumed: AtomicU64,
}

impl Acceptor {
    /// With what is in this directory. Its tickets hold the sessions; it keeps none itself.
    pub fn new(directory: &Path, tickets: bool) -> Result<Self, Failure> {
        let chain = CertificateDer::from_pem_file(directory.join(CHAIN))?;
        let key = PrivateKeyDer::from_pem_file(directory.join(KEY))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)?;
        config.alpn_protocols = vec![H2.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        match tickets {
            true => config.ticketer = rustls::crypto::ring::Ticketer::new()?,
            false => config.send_tls13_tickets = 0,
        }
        Ok(Self {
            acceptor: Arc::new(config).into(),
            full: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
        })
    }

    pub async fn accept(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let stream = self.acceptor.accept(socket).await?;
        let (_, session) = stream.get_ref();
        let count = match session.handshake_kind() {
            Some(HandshakeKind::Resumed) => &self.resumed,
            _ => &self.full,
        };
        count.fetch_add(1, Relaxed);
        Ok(stream)
    }

    /// Full handshakes so far, and resumed sessions.
    pub fn counted(&self) -> (u64, u64) {
        (self.full.load(Relaxed), self.resumed.load(Relaxed))
    }
}

/// The same for a tonic server.
pub fn tonic_config(directory: &Path) -> Result<ServerTlsConfig, Failure> {
    let chain = fs::read(directory.join(CHAIN))?;
    let key = fs::read(directory.join(KEY))?;
    Ok(ServerTlsConfig::new().identity(Identity::from_pem(chain, key)))
}
