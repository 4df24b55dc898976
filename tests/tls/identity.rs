//! A certificate with its key.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::KeyPair;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

/// Who somebody is: a chain, its own certificate first, and the key.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    /// PKCS#8.
    key: Vec<u8>,
    serial: Vec<u8>,
}

impl Identity {
    pub(super) fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair, serial: Vec<u8>) -> Self {
        Self {
            chain,
            key: key.serialized_der().to_vec(),
            serial,
        }
    }

    /// The certificate in DER.
    pub fn der(&self) -> Vec<u8> {
        self.chain[0].to_vec()
    }

    /// The number that its issuer gave it.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The same as people write it: `10:2a`.
    pub fn serial_text(&self) -> String {
        let pairs: Vec<_> = self.serial.iter().map(|it| format!("{it:02x}")).collect();
        pairs.join(":")
    }

    /// The chain.
    pub fn chain_pem(&self) -> String {
        let texts = self.chain.iter().map(|it| pem("CERTIFICATE", it));
        texts.collect()
    }

    /// The key in PKCS#8: `BEGIN PRIVATE KEY`.
    pub fn key_pem(&self) -> String {
        pem("PRIVATE KEY", &self.key)
    }

    /// The key in SEC1: `BEGIN EC PRIVATE KEY`. It is what PKCS#8 has inside, for keys on P-256.
    pub fn key_sec1_pem(&self) -> String {
        // The SEQUENCE of RFC 5915 begins with version 1 and, for this curve, 32 bytes of key.
        let start = [0x02, 0x01, 0x01, 0x04, 0x20];
        let at = self.key.windows(start.len()).position(|it| it == start);
        pem("EC PRIVATE KEY", &self.key[at.unwrap() - 2..])
    }

    /// The chain with the key of another.
    pub fn with_key_of(&self, other: &Self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: other.key.clone(),
            serial: self.serial.clone(),
        }
    }

    /// The certificate, and others that do not belong to it in place of its chain.
    pub fn followed_by(&self, others: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        Self {
            chain: self.chain[..1].iter().cloned().chain(others).collect(),
            key: self.key.clone(),
            serial: self.serial.clone(),
        }
    }

    /// Writes `NAME.crt` and `NAME.key` into a directory, over those that are there.
    pub fn write(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let chain = directory.join(format!("{name}.crt"));
        let key = directory.join(format!("{name}.key"));
        fs::write(&chain, self.chain_pem()).unwrap();
        fs::write(&key, self.key_pem()).unwrap();
        (chain, key)
    }

    /// For a server. Whether the key belongs to the certificate is not checked.
    pub fn certified(&self) -> Arc<CertifiedKey> {
        self.certified_by(&ring::default_provider())
    }

    /// The same with other cryptography than ring's.
    pub fn certified_by(&self, provider: &CryptoProvider) -> Arc<CertifiedKey> {
        let key = provider.key_provider.load_private_key(self.key_der());
        Arc::new(CertifiedKey::new(self.chain.clone(), key.unwrap()))
    }

    /// For a client.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }
}

/// RFC 7468.
pub fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in base64(der).as_bytes().chunks(64) {
        text.push_str(std::str::from_utf8(line).unwrap());
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=three.len()].copy_from_slice(three);
        let word = u32::from_be_bytes(word);
        for digit in 0..4 {
            let bits = (word >> (18 - 6 * digit)) & 63;
            text.push(if digit <= three.len() {
                char::from(DIGITS[bits as usize])
            } else {
                '='
            });
        }
    }
    text
}
