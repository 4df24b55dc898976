//! The echo service on a real tonic server, behind TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::authority::Authority;
use super::identity::Identity;
use super::only::OnlyClient;
use super::seen::Seen;
use super::serve::serve;
use crate::support::behaviour::Behaviour;
use crate::support::echo::EchoService;
use crate::support::journal::Journal;
use crate::support::place::Place;
use crate::support::thread::ServerThread;

/// An echo server on a thread and runtime of its own, which takes nothing but TLS. It accepts connections as soon as it
/// is made. Dropping it kills it.
#[derive(Debug)]
pub struct TlsServer {
    place: Place,
    journal: Arc<Journal>,
    behaviour: Arc<Behaviour>,
    seen: Arc<Seen>,
    certificate: Arc<Swapped>,
    thread: ServerThread,
}

impl TlsServer {
    /// Options first, then [`tcp`](TlsServerBuilder::tcp) or [`unix`](TlsServerBuilder::unix).
    pub fn builder(name: &str, identity: &Identity) -> TlsServerBuilder {
        Self::builder_with(name, identity, ring::default_provider())
    }

    /// The same with other cryptography than ring's.
    pub fn builder_with(
        name: &str,
        identity: &Identity,
        provider: CryptoProvider,
    ) -> TlsServerBuilder {
        TlsServerBuilder {
            name: name.into(),
            certificate: identity.certified_by(&provider),
            provider,
            clients: None,
            alpn: vec![b"h2".to_vec()],
            versions: vec![&TLS12, &TLS13],
            suites: Vec::new(),
            resumption: true,
            streams: None,
        }
    }

    /// One with default options on a free loopback port.
    pub fn tcp(name: &str, identity: &Identity) -> Self {
        Self::builder(name, identity).tcp()
    }

    pub fn addr(&self) -> SocketAddr {
        self.place.addr()
    }

    /// `https://127.0.0.1:port`.
    pub fn uri(&self) -> String {
        format!("https://{}", self.addr())
    }

    /// `localhost:port`.
    pub fn named(&self) -> String {
        format!("localhost:{}", self.addr().port())
    }

    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// What it counted of calls.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// How it treats calls from now on.
    pub fn behaviour(&self) -> &Behaviour {
        &self.behaviour
    }

    /// What it saw of TLS.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// The certificate of handshakes from now on.
    pub fn replace(&self, identity: &Identity) {
        *self.certificate.0.lock().unwrap() = identity.certified();
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.journal.set_dying(true);
        self.thread.kill();
        self.place.remove_file();
        if !std::thread::panicking() {
            assert_eq!(self.journal.panicked(), 0, "panics in a server");
        }
    }
}

/// Options of a [`TlsServer`].
#[derive(Clone, Debug)]
#[must_use]
pub struct TlsServerBuilder {
    name: Arc<str>,
    certificate: Arc<CertifiedKey>,
    provider: CryptoProvider,
    clients: Option<Clients>,
    alpn: Vec<Vec<u8>>,
    versions: Vec<&'static SupportedProtocolVersion>,
    suites: Vec<String>,
    resumption: bool,
    streams: Option<u32>,
}

impl TlsServerBuilder {
    /// Its stream limit. Default: none.
    pub fn max_concurrent_streams(mut self, streams: u32) -> Self {
        self.streams = Some(streams);
        self
    }

    /// Clients must show a certificate of this authority. Default: they are not asked.
    pub fn requires_clients_of(mut self, authority: &Authority) -> Self {
        self.clients = Some(Clients::Of(root(authority), true));
        self
    }

    /// Clients are asked for a certificate of this authority, and may have none.
    pub fn asks_clients_of(mut self, authority: &Authority) -> Self {
        self.clients = Some(Clients::Of(root(authority), false));
        self
    }

    /// Clients must show this certificate (PEM), whatever it says, as a plugin that was given it in its environment wants.
    pub fn requires_client(mut self, pem: &str) -> Self {
        let der = CertificateDer::from_pem_slice(pem.as_bytes());
        self.clients = Some(Clients::Only(der.unwrap()));
        self
    }

    /// The protocols that it offers, none for no ALPN at all. Default: `h2`.
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        self
    }

    pub fn tls12_only(mut self) -> Self {
        self.versions = vec![&TLS12];
        self
    }

    pub fn tls13_only(mut self) -> Self {
        self.versions = vec![&TLS13];
        self
    }

    /// The cipher suites that it knows: `TLS13_AES_256_GCM_SHA384`. Default: all of ring's.
    pub fn suites(mut self, suites: &[&str]) -> Self {
        self.suites = suites.iter().map(|&it| it.to_owned()).collect();
        self
    }

    /// Whether clients may resume sessions. Default yes.
    pub fn resumption(mut self, yes: bool) -> Self {
        self.resumption = yes;
        self
    }

    /// Starts on a free loopback port.
    pub fn tcp(self) -> TlsServer {
        self.start(Place::tcp())
    }

    /// Starts on a Unix socket.
    pub fn unix(self, path: impl Into<PathBuf>) -> TlsServer {
        self.start(Place::Unix(path.into()))
    }

    fn start(self, place: Place) -> TlsServer {
        let certificate = Arc::new(Swapped(Mutex::new(Arc::clone(&self.certificate))));
        let config = Arc::new(self.config(Arc::clone(&certificate)));
        let (journal, behaviour) = (Arc::<Journal>::default(), Arc::<Behaviour>::default());
        let seen = Arc::<Seen>::default();
        let service = EchoService {
            name: Arc::clone(&self.name),
            journal: Arc::clone(&journal),
            behaviour: Arc::clone(&behaviour),
        };
        let listener = place.listen();
        let noting = Arc::clone(&seen);
        let main = move || serve(listener, service, noting, config, self.streams);
        TlsServer {
            place,
            journal,
            behaviour,
            seen,
            certificate,
            thread: ServerThread::start(&self.name, main),
        }
    }

    fn config(&self, certificate: Arc<Swapped>) -> ServerConfig {
        let mut provider = self.provider.clone();
        if !self.suites.is_empty() {
            let chosen = |suite: &rustls::SupportedCipherSuite| {
                self.suites.contains(&format!("{:?}", suite.suite()))
            };
            provider.cipher_suites.retain(chosen);
        }
        let provider = Arc::new(provider);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.versions)
            .unwrap();
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(Clients::Only(der)) => {
                let only = OnlyClient::new(der.clone(), &provider);
                builder.with_client_cert_verifier(Arc::new(only))
            }
            Some(Clients::Of(root, required)) => {
                let mut roots = RootCertStore::empty();
                roots.add(root.clone()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match required {
                    true => verifier,
                    false => verifier.allow_unauthenticated(),
                };
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut config = builder.with_cert_resolver(certificate);
        config.alpn_protocols.clone_from(&self.alpn);
        if !self.resumption {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config
    }
}

/// The certificates that clients must have.
#[derive(Clone, Debug)]
enum Clients {
    /// Those of this root, or none, unless it is required.
    Of(CertificateDer<'static>, bool),
    Only(CertificateDer<'static>),
}

/// The certificate of the next handshake.
#[derive(Debug)]
struct Swapped(Mutex<Arc<CertifiedKey>>);

impl ResolvesServerCert for Swapped {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.lock().unwrap()))
    }
}

fn root(authority: &Authority) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()
}
