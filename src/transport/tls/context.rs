//! What the dials of a channel, or of one endpoint, share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use rustls::pki_types::ServerName;

use crate::address::{Address, Host};
use crate::error::Error;
use crate::lock::lock;

use super::Certificate;
use super::handshake::Protocol;
use super::material::Material;
use super::options::Tls;
use super::pem;
use super::reload::Contents;

/// The current configuration, and what is known of the next.
#[derive(Debug)]
pub(crate) struct TlsContext {
    pub(super) tls: Tls,
    pub(super) protocol: Protocol,
    pub(super) current: ArcSwap<Material>,
    /// Grows with each new configuration: connections of an older one are to be replaced.
    generation: AtomicU64,
    /// What was in the files at the last look.
    pub(super) seen: Mutex<Contents>,
    /// Why changed files are not in use.
    pub(super) trouble: Mutex<Option<Arc<str>>>,
}

impl TlsContext {
    /// Reads and checks everything.
    ///
    /// # Errors
    ///
    /// A configuration error that names the field.
    pub(crate) fn new(tls: &Tls, protocol: Protocol) -> Result<Arc<Self>, Error> {
        // Before they are read: a change in between is one to come.
        let seen = tls.files().map(|path| pem::read(path).ok()).collect();
        let material = tls.load(protocol)?;
        if tls.options.any_name {
            tracing::warn!(
                "TLS does not check host names: anybody with a certificate of a trusted root can pose as the server"
            );
        }
        if tls.options.key_log {
            tracing::warn!("the secrets of TLS connections are logged to SSLKEYLOGFILE");
        }
        let context = Self {
            tls: tls.clone(),
            protocol,
            current: ArcSwap::from_pointee(material),
            generation: AtomicU64::new(1),
            seen: Mutex::new(seen),
            trouble: Mutex::default(),
        };
        context.warn_of_expiry();
        Ok(Arc::new(context))
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
        self.current.load().identity.first().cloned()
    }

    /// The name that a server at this address must have.
    ///
    /// # Errors
    ///
    /// If there is none: a Unix socket has no name of its own.
    pub(crate) fn server_name(&self, address: &Address) -> Result<ServerName<'static>, Error> {
        let given = self.tls.options.server_name.clone();
        let name = given.or_else(|| match address.as_tcp()?.host() {
            // Without the dot of a fully qualified name, which certificates do not have.
            Host::Name(name) => Some(name.strip_suffix('.').unwrap_or(name).to_owned()),
            Host::Ip(ip) => Some(ip.to_string()),
        });
        let name = match name {
            Some(name) => name,
            // What the certificate is called does not matter then.
            None if self.tls.needs_no_name() => "localhost".to_owned(),
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

    pub(super) fn replace(&self, material: Material) {
        self.current.store(Arc::new(material));
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.warn_of_expiry();
    }

    fn warn_of_expiry(&self) {
        let limit = self.tls.options.expiry_warning;
        for certificate in &self.current.load().identity {
            if certificate.ends_within(limit) {
                tracing::warn!(%certificate, "a certificate of this side is about to expire");
            }
        }
    }
}
