//! A root, and a server's certificate that it has signed.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

use super::{CA, CHAIN, KEY};
use crate::Failure;

/// Writes them into a directory. All keys are on P-256.
pub fn make(directory: &Path) -> Result<(), Failure> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    fs::write(directory.join(CA), params.self_signed(&key)?.pem())?;
    let root = Issuer::new(params, key);

    let mut params = CertificateParams::default();
    let address = Ipv4Addr::LOCALHOST.into();
    params.subject_alt_names = vec![SanType::IpAddress(address)];
    let key = KeyPair::generate()?;
    let signed = params.signed_by(&key, &root)?;
    fs::write(directory.join(CHAIN), signed.pem())?;
    fs::write(directory.join(KEY), key.serialize_pem())?;
    Ok(())
}
