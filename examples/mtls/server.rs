//! A tonic server behind TLS that asks its clients for certificates, and whose own can be replaced.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use crate::authority::{Authority, Identity};
use crate::echo;

type Config = Arc<Mutex<Arc<ServerConfig>>>;

pub(crate) struct Server {
    port: u16,
    config: Config,
}

impl Server {
    pub(crate) async fn start(
        authority: &Authority,
        identity: Identity,
    ) -> Result<Self, Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let config = Arc::new(Mutex::new(config(authority, identity)?));
        let (accepted, incoming) = mpsc::channel(16);
        let current = Arc::clone(&config);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let config = Arc::clone(&current.lock().unwrap_or_else(PoisonError::into_inner));
                let accepted = accepted.clone();
                // A client that is refused is nobody else's business.
                tokio::spawn(async move {
                    if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                        let _ = accepted.send(Ok::<_, std::io::Error>(stream)).await;
                    }
                });
            }
        });
        let router = tonic::transport::Server::builder().add_service(echo::service("server"));
        tokio::spawn(router.serve_with_incoming(ReceiverStream::new(incoming)));
        Ok(Self { port, config })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The certificate for the connections to come.
    pub(crate) fn present(
        &self,
        authority: &Authority,
        identity: Identity,
    ) -> Result<(), Box<dyn Error>> {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config(authority, identity)?;
        Ok(())
    }
}

fn config(authority: &Authority, identity: Identity) -> Result<Arc<ServerConfig>, Box<dyn Error>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes())?)?;
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()?;
    let chain = vec![CertificateDer::from_pem_slice(
        identity.certificate.as_bytes(),
    )?];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
