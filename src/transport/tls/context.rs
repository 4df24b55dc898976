//! What the dials of a channel, or of one endpoint, share.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwapOption;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::address::{Address, Host};
use crate::error::Error;
use crate::lock::lock;

use super::certificate::{Certificate, listed};
use super::files::Files;
use super::handshake::Protocol;
use super::material::Material;
use super::options::Tls;
use super::reload::Reading;

/// The current configuration, and what is known of the next.
pub(crate) struct TlsContext {
    pub(super) tls: Tls,
    pub(super) protocol: Protocol,
    /// `None` until something good has been read.
    pub(super) current: ArcSwapOption<Material>,
    /// Grows with each new configuration: connections of an older one are to be replaced.
    generation: AtomicU64,
    /// What it was made of.
    loaded: Mutex<Option<u64>>,
    pub(super) reading: tokio::sync::Mutex<Option<Reading>>,
    /// The last server's certificate and its chain, as they came and as they read. Most connections bring those that are
    /// known.
    peer: Mutex<Option<(Vec<CertificateDer<'static>>, Arc<Certificate>)>>,
    /// Of the certificates in use, those that were warned of. Not every issuer gives each a serial number of its own.
    warned: Mutex<Vec<Certificate>>,
    /// The same for servers' certificates, of which there may be many: their hashes.
    warned_peers: Mutex<HashSet<u64>>,
    /// Why changed files are not in use.
    pub(super) trouble: Mutex<Option<Arc<str>>>,
    pub(super) counts: Arc<TlsCounts>,
}

/// What has happened to all contexts of a channel.
#[derive(Debug, Default)]
pub(crate) struct TlsCounts {
    /// Times that changed files could not be used.
    pub(crate) failures: AtomicU64,
    /// Certificates of this side that were warned of.
    pub(crate) expiring: AtomicU64,
    /// Those of servers.
    pub(crate) peers_expiring: AtomicU64,
}

/// More than servers with certificates that end soon, usually. Beyond that it is forgotten who was warned of.
const MOST_WARNED: usize = 4096;

impl TlsContext {
    /// Reads and checks everything, without telling the runtime.
    ///
    /// # Errors
    ///
    /// A configuration error that names the field.
    pub(crate) fn loaded_now(
        tls: &Tls,
        protocol: Protocol,
        counts: &Arc<TlsCounts>,
    ) -> Result<Arc<Self>, Error> {
        let files = Files::read_now(tls.files());
        let material = Material::of(tls, protocol, &files)?;
        let context = Self::new(tls, protocol, counts);
        context.replace(material, files.digest());
        context.warn_of_expiry();
        Ok(context)
    }

    /// Only reads and checks.
    ///
    /// # Errors
    ///
    /// As [`loaded_now`](Self::loaded_now).
    #[cfg(feature = "consul")]
    pub(crate) fn check_now(tls: &Tls, protocol: Protocol) -> Result<(), Error> {
        Material::of(tls, protocol, &Files::read_now(tls.files())).map(|_| ())
    }

    /// One that is still to be read, by [`follow_files`](Self::follow_files) or the first dial.
    pub(crate) fn new(tls: &Tls, protocol: Protocol, counts: &Arc<TlsCounts>) -> Arc<Self> {
        if tls.options.any_name {
            tracing::warn!(
                "TLS does not check host names: anybody with a certificate of a trusted root can pose as the server"
            );
        }
        if tls.options.key_log {
            tracing::warn!("the secrets of TLS connections are logged to SSLKEYLOGFILE");
        }
        Arc::new(Self {
            tls: tls.clone(),
            protocol,
            current: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            loaded: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            peer: Mutex::default(),
            warned: Mutex::default(),
            warned_peers: Mutex::default(),
            trouble: Mutex::default(),
            counts: Arc::clone(counts),
        })
    }

    pub(crate) fn is_of(&self, tls: &Tls) -> bool {
        self.tls == *tls
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Why changed files are not in use.
    pub(crate) fn trouble(&self) -> Option<Arc<str>> {
        lock(&self.trouble).clone()
    }

    /// This side's own certificate.
    pub(crate) fn identity(&self) -> Option<Certificate> {
        self.current.load().as_ref()?.identity.clone()
    }

    /// What a server's certificate and its chain say.
    pub(super) fn peer(&self, chain: &[CertificateDer<'_>]) -> Option<Arc<Certificate>> {
        if let Some((known, read)) = &*lock(&self.peer)
            && known.as_slice() == chain
        {
            return Some(Arc::clone(read));
        }
        let read = Arc::new(Certificate::of_chain(chain)?);
        let chain = chain.iter().map(|it| it.clone().into_owned()).collect();
        *lock(&self.peer) = Some((chain, Arc::clone(&read)));
        Some(read)
    }

    /// The digest of the files that are in use.
    pub(super) fn loaded(&self) -> Option<u64> {
        *lock(&self.loaded)
    }

    pub(super) fn replace(&self, material: Material, digest: u64) {
        self.current.store(Some(Arc::new(material)));
        *lock(&self.loaded) = Some(digest);
        let before = self.generation.fetch_add(1, Ordering::AcqRel);
        if before > 0 {
            tracing::info!("TLS files have changed; new connections use them");
        }
    }

    /// Once for each certificate.
    pub(crate) fn warn_of_expiry(&self) {
        let current = self.current.load();
        let Some(material) = current.as_ref() else {
            return;
        };
        let identity = material.identity.iter();
        let all = identity.flat_map(|own| std::iter::once(own).chain(&own.chain));
        let soon: Vec<_> = all
            .filter(|it| it.ends_soon(self.tls.options.expiry_warning))
            .cloned()
            .collect();
        let before = std::mem::replace(&mut *lock(&self.warned), soon.clone());
        for certificate in soon.iter().filter(|it| !before.contains(it)) {
            self.counts.expiring.fetch_add(1, Ordering::Relaxed);
            match certificate.has_expired() {
                true => tracing::warn!(%certificate, "a certificate of this side has expired"),
                false => {
                    tracing::warn!(%certificate, "a certificate of this side is about to expire");
                }
            }
        }
    }

    /// The same for the certificate of a server that there is a connection to.
    pub(crate) fn warn_of_peer(&self, certificate: &Certificate) {
        if !certificate.ends_soon(self.tls.options.expiry_warning) {
            return;
        }
        let mut hasher = DefaultHasher::new();
        certificate.hash(&mut hasher);
        let mut warned = lock(&self.warned_peers);
        if warned.len() >= MOST_WARNED {
            warned.clear();
        }
        let is_new = warned.insert(hasher.finish());
        drop(warned);
        if is_new {
            self.counts.peers_expiring.fetch_add(1, Ordering::Relaxed);
            // Some have no subject, but names only.
            let names = listed(&certificate.sans);
            match certificate.has_expired() {
                true => tracing::warn!(%certificate, names, "a server's certificate has expired"),
                false => {
                    tracing::warn!(%certificate, names, "a server's certificate is about to expire");
                }
            }
        }
    }
}

impl Tls {
    /// The name that a server at this address must have.
    ///
    /// # Errors
    ///
    /// If there is none: a Unix socket has no name of its own.
    pub(crate) fn name_at(&self, address: &Address) -> Result<ServerName<'static>, Error> {
        let given = self.options.server_name.clone();
        let name = given.or_else(|| match address.as_tcp()?.host() {
            // Without the dot of a fully qualified name, which certificates do not have.
            Host::Name(name) => Some(name.strip_suffix('.').unwrap_or(name).to_owned()),
            Host::Ip(ip) => Some(ip.to_string()),
        });
        let name = match name {
            Some(name) => name,
            // What the certificate is called does not matter then.
            None if self.needs_no_name() => "localhost".to_owned(),
            None => {
                let problem =
                    format!("{address} has no host name for its certificate; set tls.server_name");
                return Err(Error::config("tls.server_name", problem));
            }
        };
        let problem =
            || format!("{name:?} can't be the name of a certificate; set tls.server_name");
        ServerName::try_from(name.clone()).map_err(|_| Error::config("tls.server_name", problem()))
    }
}

/// Without what was read.
impl fmt::Debug for TlsContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsContext")
            .field("tls", &self.tls)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
