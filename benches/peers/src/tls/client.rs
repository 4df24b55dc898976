//! The clients' side.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::{fmt, fs, io};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{CA, H2};
use crate::Failure;

/// Whom clients trust. What is not said is rustls's default, for all of them.
pub struct ClientTls {
    /// PEM, for those that read it themselves.
    pub ca: Vec<u8>,
    /// Of Trunkline; the others have no switch.
    pub resumption: bool,
    /// For bare connections.
    config: Arc<ClientConfig>,
}

impl ClientTls {
    /// With the root that is in this directory, if there is one.
    pub fn of(directory: Option<&Path>) -> Result<Option<Arc<Self>>, Failure> {
        let tls = directory.map(|directory| Self::read(directory, true));
        tls.transpose().map(|it| it.map(Arc::new))
    }

    pub fn read(directory: &Path, resumption: bool) -> Result<Self, Failure> {
        let ca = fs::read(directory.join(CA))?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&ca)?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![H2.to_vec()];
        Ok(Self {
            ca,
            resumption,
            config: Arc::new(config),
        })
    }

    pub async fn encrypt(
        &self,
        server: IpAddr,
        socket: TcpStream,
    ) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        connector.connect(server.into(), socket).await
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}
