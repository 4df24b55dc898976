//! The cryptography, and which part of it is used.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use crate::error::Error;

use super::TlsVersion;
use super::certificate::has_p521_key;
use super::options::Options;

/// Always passed on explicitly: rustls panics when it has to guess between two.
fn all() -> CryptoProvider {
    #[cfg(feature = "aws-lc-rs")]
    return rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(all(feature = "tls", not(feature = "aws-lc-rs")))]
    return rustls::crypto::ring::default_provider();
    #[cfg(not(any(feature = "tls", feature = "aws-lc-rs")))]
    compile_error!("TLS needs the feature tls, which is ring, or aws-lc-rs");
}

/// Whether certificates with P-521 keys can be used. ring has no such curve.
pub(super) const KNOWS_P521: bool = cfg!(feature = "aws-lc-rs");

/// Looks at the key of a certificate that is to be accepted.
///
/// # Errors
///
/// If nobody with that key could be accepted, since the provider does not know its curve; and what to do about that.
pub(super) fn check_key(der: &[u8], knows_p521: bool) -> Result<(), &'static str> {
    match !knows_p521 && has_p521_key(der) {
        true => Err(
            "its key is on curve P-521, which ring does not know; turn on the feature aws-lc-rs",
        ),
        false => Ok(()),
    }
}

/// The provider with the chosen suites, and the versions.
///
/// # Errors
///
/// If a suite is unknown, or there is none for any of the versions.
pub(super) fn chosen(
    options: &Options,
) -> Result<(Arc<CryptoProvider>, Vec<&'static SupportedProtocolVersion>), Error> {
    let mut provider = all();
    if !options.cipher_suites.is_empty() {
        let known = std::mem::take(&mut provider.cipher_suites);
        for name in &options.cipher_suites {
            let found = known.iter().find(|suite| is_called(suite, name));
            let Some(suite) = found else {
                let names: Vec<_> = known.iter().map(name_of).collect();
                let problem = format!("{name:?} is unknown; there are {}", names.join(", "));
                return Err(Error::config("tls.cipher_suites", problem));
            };
            provider.cipher_suites.push(*suite);
        }
    }
    let mut versions = vec![&TLS13];
    if options.min_version == TlsVersion::V1_2 {
        versions.push(&TLS12);
    }
    versions.retain(|version| {
        let suites = provider.cipher_suites.iter();
        suites.clone().any(|suite| suite.version() == *version)
    });
    if versions.is_empty() {
        let problem = "none of them belongs to min_version or above; add one, or lower min_version";
        return Err(Error::config("tls.cipher_suites", problem));
    }
    Ok((Arc::new(provider), versions))
}

fn name_of(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite())
}

/// rustls writes `TLS13_AES_…` for what IANA calls `TLS_AES_…`.
fn is_called(suite: &SupportedCipherSuite, name: &str) -> bool {
    let own = name_of(suite);
    own.eq_ignore_ascii_case(name) || own.replacen("TLS13_", "TLS_", 1).eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn ring_is_said_not_to_know_p521() {
        let p521 = CertificateDer::from_pem_slice(include_bytes!("p521.pem")).unwrap();
        assert_eq!(check_key(&p521, true), Ok(()));
        let problem = check_key(&p521, false).unwrap_err();
        assert!(problem.contains("turn on the feature aws-lc-rs"));
        let ours = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        assert_eq!(check_key(ours.cert.der(), false), Ok(()));
        assert_eq!(check_key(b"no certificate", false), Ok(()));
    }
}
