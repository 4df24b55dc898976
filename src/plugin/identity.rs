//! Who the host is to its plugin.
#![allow(
    clippy::disallowed_types,
    reason = "a certificate's validity is a matter of the calendar"
)]

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

use crate::error::Error;
use crate::secret::Secret;
use crate::transport::tls::Tls;

/// go-plugin's: some thirty years.
const VALID: Duration = Duration::from_secs(262_980 * 60 * 60);

/// For clocks that are behind.
const BACKDATED: Duration = Duration::from_secs(30);

const HOST: &str = "localhost";

/// A certificate with its key, made for one plugin, in memory only (go-plugin's `AutoMTLS`): the plugin gets
/// [`certificate_pem`](Self::certificate_pem) in its environment, and takes calls from whoever holds the key.
///
/// It is like those of go-plugin's `mtls.go`: signed by itself, for `localhost`, with the rights of an authority, of servers
/// and of clients, and valid from 30 seconds ago for 262,980 hours. Its key is on P-256, and not on P-521 as Go's:
/// plugins on gRPC's C core (Python, C++, Ruby) take no P-521 key of a client. Go takes both.
///
/// It can't be saved: once it and its endpoints are gone, nobody can call the plugin any more. `Debug` shows no key.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    certificate: String,
    key: Secret,
}

impl Identity {
    /// Makes a new one, with a key on P-256.
    ///
    /// # Errors
    ///
    /// If the system has no randomness.
    pub fn generate() -> Result<Self, Error> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256);
        Self::certified(&key.map_err(failed)?)
    }

    /// Makes a new one, with a key on P-521 as go-plugin's own hosts have.
    ///
    /// # Errors
    ///
    /// If the system has no randomness.
    #[cfg(feature = "aws-lc-rs")]
    pub fn generate_p521() -> Result<Self, Error> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512);
        Self::certified(&key.map_err(failed)?)
    }

    fn certified(key: &KeyPair) -> Result<Self, Error> {
        let certificate = params()?.self_signed(key).map_err(failed)?;
        Ok(Self {
            certificate: pem("CERTIFICATE", certificate.der()),
            key: Secret::new(pem("PRIVATE KEY", key.serialized_der())),
        })
    }

    /// Its certificate in PEM: what the plugin's environment must have as
    /// [`PLUGIN_CLIENT_CERT`](super::CLIENT_CERTIFICATE).
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// These options with this identity.
    pub(super) fn shown_by(&self, tls: Tls) -> Tls {
        tls.identity_pem(self.certificate.as_str(), self.key.expose())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("certificate", &self.certificate)
            .field("key", &self.key)
            .finish()
    }
}

fn params() -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new([HOST.to_owned()]).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, HOST);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyAgreement,
        KeyUsagePurpose::KeyCertSign,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = date_time_ymd(1970, 1, 1) + since_epoch.map_err(failed)?;
    params.not_before = now - BACKDATED;
    params.not_after = now + VALID;
    Ok(params)
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let base64 = STANDARD.encode(der);
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        // ASCII, so every index is between two characters.
        let (line, next) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = next;
    }
    text + &format!("-----END {label}-----\n")
}

fn failed(error: impl fmt::Display) -> Error {
    Error::config("plugin.identity", format!("it can't be made: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_output_has_the_key() {
        let identity = Identity::generate().unwrap();
        let tls = identity.shown_by(Tls::new());
        let key = identity.key.expose();
        assert!(key.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        let shown = format!("{identity:?} {identity:#?} {tls:?} {:?}", identity.clone());
        // What is before it is the same for all, and what is behind it is public.
        let lines: Vec<_> = key.lines().collect();
        for part in ["PRIVATE", &lines[1][48..], &lines[2][..16]] {
            assert!(!shown.contains(part), "{shown}");
        }
    }

    #[test]
    fn lines_are_cut_as_the_standard_says() {
        for length in [0, 47, 48, 49, 96, 97] {
            let text = pem("X", &vec![0; length]);
            let lines: Vec<_> = text.lines().collect();
            let [first, inner @ .., last] = lines.as_slice() else {
                panic!("{text}");
            };
            assert_eq!((*first, *last), ("-----BEGIN X-----", "-----END X-----"));
            assert_eq!(inner.len(), length.div_ceil(48));
            assert!(inner.iter().rev().skip(1).all(|it| it.len() == 64));
        }
    }
}
