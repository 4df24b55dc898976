//! Who signs certificates.
#![allow(
    clippy::disallowed_types,
    reason = "a certificate's validity is a matter of the calendar"
)]

use std::net::IpAddr;
use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams,
    CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, NameConstraints, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::CertificateDer;

use super::identity::Identity;

/// So many seconds from now, as rcgen writes it. A macro, because the type is of a crate that is no dependency.
macro_rules! date {
    ($from_now:expr) => {
        at(date_time_ymd(1970, 1, 1), $from_now)
    };
}

const DAY: u64 = 24 * 60 * 60;

/// A certificate that others are signed with, and its key.
#[derive(Debug)]
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
    /// Itself and those above it, without the root: what servers send along.
    chain: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// A root.
    pub fn new(name: &str) -> Self {
        let (params, key) = (authority_params(name), KeyPair::generate().unwrap());
        Self {
            certificate: params.self_signed(&key).unwrap(),
            issuer: Issuer::new(params, key),
            chain: Vec::new(),
        }
    }

    /// An intermediate, signed by this one.
    pub fn intermediate(&self, name: &str) -> Self {
        self.sign(authority_params(name))
    }

    /// One that may sign DNS names of this domain only.
    pub fn limited_to(&self, name: &str, domain: &str) -> Self {
        let mut params = authority_params(name);
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(domain.to_owned())],
            excluded_subtrees: Vec::new(),
        });
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut chain = vec![certificate.der().clone()];
        chain.extend(self.chain.iter().cloned());
        Self {
            certificate,
            issuer: Issuer::new(params, key),
            chain,
        }
    }

    /// Its certificate.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// The same in DER.
    pub fn der(&self) -> Vec<u8> {
        self.certificate.der().to_vec()
    }

    /// A certificate that it is to sign: valid from an hour ago for a year, for servers and clients, without any name
    /// but the subject `CN=peer`.
    pub fn issue(&self) -> Issue<'_> {
        static NEXT: AtomicU64 = AtomicU64::new(0x1000);
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "peer");
        let serial = NEXT.fetch_add(1, SeqCst).to_be_bytes();
        params.serial_number = Some(SerialNumber::from_slice(&serial[6..]));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let issue = Issue {
            authority: self,
            params,
            key: None,
        };
        issue.valid(-(60 * 60), 365 * DAY as i64)
    }

    /// A list that revokes these, as PEM.
    pub fn revoke(&self, revoked: &[&Identity]) -> String {
        self.list(revoked, -60)
    }

    /// The same, of half a year ago: the next one is long due.
    pub fn revoked_long_ago(&self, revoked: &[&Identity]) -> String {
        self.list(revoked, -180 * DAY as i64)
    }

    /// So many seconds from now, and good for 30 days.
    fn list(&self, revoked: &[&Identity], from: i64) -> String {
        let (now, then) = (date!(from), date!(from + 30 * DAY as i64));
        let entry = |identity: &&Identity| RevokedCertParams {
            serial_number: SerialNumber::from_slice(identity.serial()),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: then,
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.not_before = date!(-(DAY as i64));
    params.not_after = date!(3650 * DAY as i64);
    params
}

/// A certificate before it is signed.
#[derive(Debug)]
#[must_use]
pub struct Issue<'a> {
    authority: &'a Authority,
    params: CertificateParams,
    key: Option<String>,
}

impl Issue<'_> {
    /// The subject's common name.
    pub fn subject(mut self, name: &str) -> Self {
        self.params
            .distinguished_name
            .push(DnType::CommonName, name);
        self
    }

    pub fn dns(self, name: &str) -> Self {
        let name = SanType::DnsName(name.try_into().unwrap());
        self.san(name)
    }

    pub fn ip(self, ip: IpAddr) -> Self {
        self.san(SanType::IpAddress(ip))
    }

    /// A URI: `spiffe://example.org/payments`.
    pub fn uri(self, uri: &str) -> Self {
        let name = SanType::URI(uri.try_into().unwrap());
        self.san(name)
    }

    /// For the loopback: the name `localhost` and the address `127.0.0.1`.
    pub fn loopback(self) -> Self {
        self.dns("localhost").ip([127, 0, 0, 1].into())
    }

    /// Over for so many days.
    pub fn expired_days_ago(self, days: u64) -> Self {
        // A minute more, so that the days are full when they are counted.
        let end = -((days * DAY + 60) as i64);
        self.valid(end - 30 * DAY as i64, end)
    }

    /// Good for so many days, from now on.
    pub fn valid_for_days(self, days: u64) -> Self {
        self.valid(-60, (days * DAY + 60) as i64)
    }

    /// The same, but since so many days ago.
    pub fn since_days_ago(mut self, days: u64) -> Self {
        self.params.not_before = date!(-((days * DAY) as i64));
        self
    }

    /// Good only in so many days.
    pub fn valid_in_days(self, days: u64) -> Self {
        let start = (days * DAY) as i64;
        self.valid(start, start + 30 * DAY as i64)
    }

    /// The certificate of an authority, shown as if it were a server's.
    pub fn authority(mut self) -> Self {
        self.params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        self
    }

    /// For clients only.
    pub fn for_clients(mut self) -> Self {
        self.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self
    }

    /// Larger by so many bytes, in an extension that nobody knows.
    pub fn larger_by(mut self, bytes: usize) -> Self {
        let extension =
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![0; bytes]);
        self.params.custom_extensions.push(extension);
        self
    }

    /// With this serial number. Default: one of its own.
    pub fn numbered(mut self, serial: u64) -> Self {
        self.params.serial_number = Some(SerialNumber::from(serial));
        self
    }

    /// For this key, in PKCS#8. Default: a new one on P-256.
    pub fn key_pem(mut self, pem: &str) -> Self {
        self.key = Some(pem.to_owned());
        self
    }

    /// Signs it.
    pub fn finish(self) -> Identity {
        let key = self.own_key();
        let certificate = self.params.signed_by(&key, &self.authority.issuer).unwrap();
        let mut chain = vec![certificate.der().clone()];
        chain.extend(self.authority.chain.iter().cloned());
        Identity::new(chain, &key, self.serial())
    }

    /// Signs it with its own key.
    pub fn self_signed(self) -> Identity {
        let key = self.own_key();
        let certificate = self.params.self_signed(&key).unwrap();
        Identity::new(vec![certificate.der().clone()], &key, self.serial())
    }

    fn serial(&self) -> Vec<u8> {
        self.params.serial_number.as_ref().unwrap().to_bytes()
    }

    fn own_key(&self) -> KeyPair {
        match &self.key {
            Some(pem) => KeyPair::from_pem(pem).unwrap(),
            None => KeyPair::generate().unwrap(),
        }
    }

    fn san(mut self, name: SanType) -> Self {
        self.params.subject_alt_names.push(name);
        self
    }

    /// From and until so many seconds from now.
    fn valid(mut self, from: i64, until: i64) -> Self {
        self.params.not_before = date!(from);
        self.params.not_after = date!(until);
        self
    }
}

fn at<T: Add<Duration, Output = T>>(epoch: T, from_now: i64) -> T {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    epoch + Duration::from_secs(now.unwrap().as_secs().saturating_add_signed(from_now))
}
