//! All that the options name, read and checked.

#[cfg(feature = "native-roots")]
use std::path::Path;
use std::sync::Arc;

use rustls::client::{ClientConfig, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{KeyLogFile, RootCertStore};

use crate::error::Error;
#[cfg(feature = "native-roots")]
use crate::file_thread;

use super::certificate::Certificate;
use super::files::Files;
#[cfg(feature = "native-roots")]
use super::files::LIMIT;
use super::handshake::Protocol;
use super::options::{Options, Tls};
use super::pem::Pem;
use super::provider::{self, KNOWS_P521};
use super::verifier::Verifier;

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub(crate) struct Material {
    pub(super) config: Arc<ClientConfig>,
    /// This side's certificate, with its chain.
    pub(super) identity: Option<Certificate>,
}

impl Material {
    /// # Errors
    ///
    /// A configuration error that names the field, and the file.
    pub(super) fn of(tls: &Tls, protocol: Protocol, files: &Files) -> Result<Self, Error> {
        tls.validate()?;
        let options = &tls.options;
        let (provider, versions) = provider::chosen(options)?;
        let usual = match options.pinned.is_empty() {
            true => Some(usual(options, &provider, files)?),
            false => None,
        };
        let verifier = Arc::new(Verifier {
            usual,
            provider: Arc::clone(&provider),
            pinned: options.pinned.clone(),
            allowed: tls.allowed_names()?,
            any_name: options.any_name,
        });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| Error::config("tls", error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let (mut config, identity) = match &options.identity {
            None => (builder.with_no_client_auth(), None),
            Some((chain, key)) => {
                let (ders, read) = own_chain(chain, files)?;
                let der = key.key(files).map_err(bad_identity)?;
                let config = builder.with_client_auth_cert(ders, der);
                let bad = |error| bad_identity(key.named(&key_problem(&error)));
                (config.map_err(bad)?, Some(read))
            }
        };
        config.alpn_protocols = protocol.alpn();
        if !options.resumption {
            config.resumption = Resumption::disabled();
        }
        if options.key_log {
            config.key_log = Arc::new(KeyLogFile::new());
        }
        Ok(Self {
            config: Arc::new(config),
            identity,
        })
    }
}

fn roots(options: &Options, files: &Files) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for pem in &options.authorities {
        let bad = |problem: String| Error::config("tls.ca", problem);
        for certificate in pem.certificates(files).map_err(bad)? {
            roots
                .add(certificate)
                .map_err(|error| bad(format!("{pem:?}: {error}")))?;
        }
    }
    let none = options.authorities.is_empty() && !options.native_roots && !options.webpki_roots;
    add_native(
        &mut roots,
        options.native_roots || (none && cfg!(feature = "native-roots")),
    )?;
    add_mozillas(
        &mut roots,
        options.webpki_roots || (none && !cfg!(feature = "native-roots")),
    );
    if roots.is_empty() {
        let problem = "there is no root to trust; name one with ca_file, pin a certificate, or turn on the feature \
                       native-roots or webpki-roots";
        return Err(Error::config("tls.ca", problem));
    }
    Ok(roots)
}

#[cfg(feature = "native-roots")]
fn add_native(roots: &mut RootCertStore, wanted: bool) -> Result<(), Error> {
    if !wanted {
        return Ok(());
    }
    // They are in files, too, wherever `SSL_CERT_FILE` and `SSL_CERT_DIR` say.
    let load = || Ok(rustls_native_certs::load_native_certs());
    let found = file_thread::run_within(Path::new("the system's roots"), LIMIT, load);
    let bad = |problem: &dyn std::fmt::Display| Error::config("tls.native_roots", problem);
    let found =
        found.ok_or_else(|| bad(&format_args!("reading them takes more than {LIMIT:?}")))?;
    let found = found.map_err(|error| bad(&error))?;
    let (added, _) = roots.add_parsable_certificates(found.certs);
    match (added, found.errors.first()) {
        (0, Some(error)) => Err(bad(error)),
        (0, None) => Err(bad(&"the system has none; install ca-certificates")),
        _ => Ok(()),
    }
}

#[cfg(not(feature = "native-roots"))]
#[allow(clippy::unnecessary_wraps, reason = "as its other form")]
fn add_native(_: &mut RootCertStore, _: bool) -> Result<(), Error> {
    Ok(())
}

#[cfg(feature = "webpki-roots")]
fn add_mozillas(roots: &mut RootCertStore, wanted: bool) {
    if wanted {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
}

#[cfg(not(feature = "webpki-roots"))]
fn add_mozillas(_: &mut RootCertStore, _: bool) {}

/// This side's chain, as it is sent and as it reads.
fn own_chain(
    pem: &Pem,
    files: &Files,
) -> Result<(Vec<CertificateDer<'static>>, Certificate), Error> {
    let ders = pem.certificates(files).map_err(bad_identity)?;
    let all = Certificate::of_chain(&ders).filter(|own| own.chain.len() + 1 == ders.len());
    let own =
        all.ok_or_else(|| bad_identity(pem.named("a certificate of the chain can't be read")))?;
    // Of the others, bundles have old cross-signatures in them, which nobody needs.
    if let Some(why) = own.why_not_valid() {
        let problem = format!("the certificate of {} can't be used: {why}", own.subject);
        return Err(bad_identity(pem.named(&problem)));
    }
    Ok((ders, own))
}

/// The usual rules.
fn usual(
    options: &Options,
    provider: &Arc<CryptoProvider>,
    files: &Files,
) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let roots = Arc::new(roots(options, files)?);
    let with = |lists| {
        let (roots, provider) = (Arc::clone(&roots), Arc::clone(provider));
        let builder = WebPkiServerVerifier::builder_with_provider(roots, provider);
        builder.with_crls(lists).build()
    };
    let mut all = Vec::new();
    for pem in &options.revocations {
        let bad = |problem| Error::config("tls.crl", problem);
        let lists = pem.revocations(files).map_err(bad)?;
        // One by one, so that the error can name it.
        with(lists.clone()).map_err(|_| bad(pem.named("a revocation list can't be read")))?;
        all.extend(lists);
    }
    with(all).map_err(|error| Error::config("tls", error))
}

fn bad_identity(problem: String) -> Error {
    Error::config("tls.identity", problem)
}

fn key_problem(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            "the key does not belong to the certificate".to_owned()
        }
        other if !KNOWS_P521 => {
            format!("the key can't be used: {other} (a P-521 key needs the feature aws-lc-rs)")
        }
        other => format!("the key can't be used: {other}"),
    }
}

#[cfg(all(test, feature = "webpki-roots"))]
mod tests {
    use super::*;

    /// Nobody has a certificate of theirs for a test.
    #[test]
    fn mozillas_roots_are_all_there() {
        let tls = Tls::new().webpki_roots();
        let trusted = roots(&tls.options, &Files::default()).unwrap();
        assert_eq!(trusted.roots, webpki_roots::TLS_SERVER_ROOTS);
        let both = tls.ca_pem(include_bytes!("p521.pem"));
        let trusted = roots(&both.options, &Files::default()).unwrap();
        assert_eq!(trusted.len(), webpki_roots::TLS_SERVER_ROOTS.len() + 1);
    }
}
