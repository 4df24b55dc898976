//! Certificates, keys and revocation lists in PEM.

use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, io};

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::files::Files;

/// A PEM text, or the file that has it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Pem {
    Bytes(Arc<[u8]>),
    File(PathBuf),
}

/// More than all roots of a system together.
pub(super) const MAX_BYTES: u64 = 4 * 1024 * 1024;

impl Pem {
    pub(super) fn bytes(pem: impl Into<Vec<u8>>) -> Self {
        Self::Bytes(pem.into().into())
    }

    pub(super) fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::Bytes(_) => None,
            Self::File(path) => Some(path),
        }
    }

    /// # Errors
    ///
    /// What is wrong, with the file's name.
    pub(super) fn certificates(
        &self,
        files: &Files,
    ) -> Result<Vec<CertificateDer<'static>>, String> {
        let text = self.text(files)?;
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        let all = all.map_err(|error| self.named(&spoken(error)))?;
        if all.is_empty() {
            let what = if PrivateKeyDer::from_pem_slice(text).is_ok() {
                "it has a private key and no certificate; are certificate and key exchanged?"
            } else {
                "it has no certificate in PEM (-----BEGIN CERTIFICATE-----)"
            };
            return Err(self.named(what));
        }
        Ok(all)
    }

    /// The same for a private key.
    pub(super) fn key(&self, files: &Files) -> Result<PrivateKeyDer<'static>, String> {
        let text = self.text(files)?;
        PrivateKeyDer::from_pem_slice(text).map_err(|error| {
            let encrypted = text.windows(9).any(|it| it == b"ENCRYPTED");
            let what = match error {
                _ if encrypted => "the key is encrypted; decrypt it (openssl pkey)".to_owned(),
                PemError::NoItemsFound if CertificateDer::from_pem_slice(text).is_ok() => {
                    "it has a certificate and no key; are certificate and key exchanged?".to_owned()
                }
                PemError::NoItemsFound => "it has no private key in PEM".to_owned(),
                other => spoken(other),
            };
            self.named(&what)
        })
    }

    /// The same for revocation lists.
    pub(super) fn revocations(
        &self,
        files: &Files,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
        let text = self.text(files)?;
        let all: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(text).collect();
        match all {
            Ok(all) if !all.is_empty() => Ok(all),
            Ok(_) => Err(self.named("it has no revocation list in PEM (-----BEGIN X509 CRL-----)")),
            Err(error) => Err(self.named(&spoken(error))),
        }
    }

    fn text<'a>(&'a self, files: &'a Files) -> Result<&'a [u8], String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::File(path) => files.get(path).map_err(|problem| self.named(&problem)),
        }
    }

    /// A problem with it, with the file's name.
    pub(super) fn named(&self, problem: &str) -> String {
        match self {
            Self::Bytes(_) => format!("the given text: {problem}"),
            Self::File(path) => format!("{}: {problem}", path.display()),
        }
    }
}

/// What was read, if it can be anything.
///
/// # Errors
///
/// What is wrong, without the file's name.
pub(super) fn checked(read: io::Result<Vec<u8>>) -> Result<Vec<u8>, String> {
    match read {
        Ok(text) if text.is_empty() => Err("it is empty".to_owned()),
        Ok(text) => Ok(text),
        Err(error) => Err(error.to_string()),
    }
}

/// Without the text itself, which may be a key.
fn spoken(error: PemError) -> String {
    match error {
        PemError::MissingSectionEnd { .. } => "a section has no end".to_owned(),
        PemError::IllegalSectionStart { .. } => "a section begins in a wrong way".to_owned(),
        PemError::Base64Decode(_) => "a section is not base64".to_owned(),
        PemError::NoItemsFound => "there is nothing in it".to_owned(),
        _ => "it can't be read as PEM".to_owned(),
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "({} bytes)", bytes.len()),
            Self::File(path) => path.fmt(f),
        }
    }
}
