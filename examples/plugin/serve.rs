//! The plugin's side, with nothing of Trunkline in it. In real life it is a program of its own, most often in Go.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::{env, io};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use crate::echo;
use crate::only::OnlyClient;

pub(crate) async fn run() -> Result<(), Box<dyn Error>> {
    let name = env::args().nth(1).ok_or("a plugin needs a name")?;
    let path = PathBuf::from(env::var("PLUGIN_UNIX_SOCKET_DIR")?).join(format!("{name}.sock"));
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(signing_key.serialize_der())?;
    let config = config(cert.der().clone(), key)?;
    let incoming = accept(UnixListener::bind(&path)?, TlsAcceptor::from(config));

    let (health, health_service) = tonic_health::server::health_reporter();
    let serving = tonic_health::ServingStatus::Serving;
    health.set_service_status("plugin", serving).await;
    println!(
        "1|1|unix|{}|grpc|{}",
        path.display(),
        STANDARD_NO_PAD.encode(cert.der())
    );
    // The host tells it so that it shall end, and so does the host's own end.
    let ended = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink()));
    Server::builder()
        .add_service(health_service)
        .add_service(echo::service(&name))
        .serve_with_incoming_shutdown(incoming, async {
            let _ = ended.await;
        })
        .await?;
    Ok(())
}

/// Its own certificate, and the host's as the only one that a client may have.
fn config(
    own: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, Box<dyn Error>> {
    let host = CertificateDer::from_pem_slice(env::var("PLUGIN_CLIENT_CERT")?.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let only = OnlyClient::new(host, &provider);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(only))
        .with_single_cert(vec![own], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn accept(
    listener: UnixListener,
    acceptor: TlsAcceptor,
) -> ReceiverStream<io::Result<TlsStream<UnixStream>>> {
    let (accepted, incoming) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
            // A client that is refused is nobody else's business.
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let _ = accepted.send(Ok(stream)).await;
                }
            });
        }
    });
    ReceiverStream::new(incoming)
}
