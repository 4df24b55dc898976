//! What a certificate says.
#![allow(
    clippy::disallowed_types,
    reason = "a certificate's validity is a matter of the calendar"
)]

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::error::Error;

use super::files::Files;
use super::pem::{self, Pem};

const DAY: u64 = 24 * 60 * 60;
/// A DNS name has at most 253 letters.
const LONGEST_NAME: usize = 256;
const MONTH: Duration = Duration::from_secs(30 * DAY);

/// A certificate, as far as people ask about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Certificate {
    /// Whose it is: `CN=payments, O=Example`.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Its number at the issuer: pairs of hexadecimal digits with colons between.
    pub serial: String,
    /// The names that it is good for: DNS names, IP addresses, URIs (SPIFFE IDs among them) and mail addresses.
    pub sans: Vec<String>,
    /// From when on it is valid.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
    /// What came along with it, in the order in which it was sent or read: the certificates of its issuers, as far as
    /// they can be read. Nobody has checked here that they belong together. Empty for these themselves, and for a
    /// certificate that was read alone.
    pub chain: Vec<Certificate>,
}

impl Certificate {
    /// Reads a certificate in DER.
    ///
    /// `None` if it is none.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let (rest, read) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let sans = read.subject_alternative_name().ok().flatten();
        let sans = sans.iter().flat_map(|it| &it.value.general_names);
        let validity = read.validity();
        Some(Self {
            subject: read.subject().to_string(),
            issuer: read.issuer().to_string(),
            serial: read.raw_serial_as_string(),
            sans: sans.filter_map(name).collect(),
            not_before: at(validity.not_before.timestamp()),
            not_after: at(validity.not_after.timestamp()),
            chain: Vec::new(),
        })
    }

    /// Reads all certificates of a PEM text, in their order: those of a file of authorities, or of an identity.
    ///
    /// # Errors
    ///
    /// A configuration error, if there is none in it, or one that can't be read.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Vec<Self>, Error> {
        let bad = |problem: String| Error::config("certificate", problem);
        let pem = Pem::bytes(pem::checked(Ok(pem.as_ref().to_vec())).map_err(bad)?);
        let ders = pem.certificates(&Files::default()).map_err(bad)?;
        let all: Option<Vec<_>> = ders.iter().map(|der| Self::from_der(der)).collect();
        all.ok_or_else(|| bad(pem.named("a certificate in it can't be read")))
    }

    /// The first of these, with the others as its chain. `None` if that one can't be read.
    pub(super) fn of_chain(ders: &[CertificateDer<'_>]) -> Option<Self> {
        let (own, issuers) = ders.split_first()?;
        let chain = issuers.iter().filter_map(|der| Self::from_der(der));
        Some(Self {
            chain: chain.collect(),
            ..Self::from_der(own)?
        })
    }

    /// How long it is valid from `now` on; `None` once it has expired.
    #[must_use]
    pub fn time_left(&self, now: SystemTime) -> Option<Duration> {
        self.not_after.duration_since(now).ok()
    }

    /// The same in whole days, as of now: 0 on the last day. Once it has expired, the whole days since then as a
    /// negative number, and -1 already during the first of them: what is not negative is still valid.
    #[must_use]
    pub fn days_left(&self) -> i64 {
        self.days_left_at(SystemTime::now())
    }

    fn days_left_at(&self, now: SystemTime) -> i64 {
        let days = |time: Duration| i64::try_from(time.as_secs() / DAY).unwrap_or(i64::MAX);
        match self.not_after.duration_since(now) {
            Ok(left) => days(left),
            Err(over) => -days(over.duration()).max(1),
        }
    }

    pub(super) fn has_expired(&self) -> bool {
        self.time_left(SystemTime::now()).is_none()
    }

    /// Why it can't be used now, if it can't.
    pub(super) fn why_not_valid(&self) -> Option<String> {
        let now = SystemTime::now();
        if let Err(over) = self.not_after.duration_since(now) {
            return Some(expired(over.duration()));
        }
        let early = now.duration_since(self.not_before).err()?;
        Some(not_valid_yet(early.duration()))
    }

    /// Whether it ends in less than that; without a time, in less than is usual when it is replaced.
    pub(super) fn ends_soon(&self, before: Option<Duration>) -> bool {
        let left = self.time_left(SystemTime::now());
        left.is_none_or(|left| left < before.unwrap_or_else(|| self.renewal_time()))
    }

    /// How much of it is left when it should have been replaced: 30 days, or a third of its lifetime if that is less. Go's
    /// `acme/autocert` renews then (`RenewBefore`), and cert-manager at two thirds of any lifetime (`pki.RenewalTime`).
    fn renewal_time(&self) -> Duration {
        let lifetime = self.not_after.duration_since(self.not_before);
        lifetime.map_or(MONTH, |it| (it / 3).min(MONTH))
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = printable(&self.subject);
        let now = SystemTime::now();
        match now.duration_since(self.not_after) {
            Ok(since) if !since.is_zero() => write!(f, "{subject} ({})", expired(since)),
            _ => write!(f, "{subject} ({} days left)", self.days_left_at(now)),
        }
    }
}

/// Whether the key of this certificate in DER is on the curve P-521 (RFC 5480, section 2.1.1.1).
pub(super) fn has_p521_key(der: &[u8]) -> bool {
    const P521: &str = "1.3.132.0.35";
    X509Certificate::from_der(der).is_ok_and(|(_, read)| {
        let curve = read.public_key().algorithm.parameters.as_ref();
        let curve = curve.and_then(|it| it.as_oid().ok());
        curve.is_some_and(|it| it.to_id_string() == P521)
    })
}

/// How long ago it expired.
pub(super) fn expired(since: Duration) -> String {
    match since.as_secs() / DAY {
        0 => "it has expired today".to_owned(),
        1 => "it expired one day ago".to_owned(),
        days => format!("it expired {days} days ago"),
    }
}

/// In what time it begins to be valid.
pub(super) fn not_valid_yet(until: Duration) -> String {
    match until.as_secs().div_ceil(DAY) {
        0 | 1 => "it is not valid yet, but will be within a day".to_owned(),
        days => format!("it is valid only from {days} days from now on"),
    }
}

fn at(unix: i64) -> SystemTime {
    match u64::try_from(unix) {
        Ok(seconds) => SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        Err(_) => SystemTime::UNIX_EPOCH,
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
            Some((*name).to_owned())
        }
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|ip| IpAddr::from(ip).to_string()),
            16 => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|ip| IpAddr::from(ip).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// A name for logs and errors. Peers write theirs: it must not begin a line, nor be one that nobody reads to its end.
fn printable(name: &str) -> String {
    let mut text = String::new();
    for (index, letter) in name.chars().enumerate() {
        match letter {
            _ if index == LONGEST_NAME => {
                text.push('…');
                break;
            }
            _ if letter.is_control() => text.extend(letter.escape_default()),
            _ => text.push(letter),
        }
    }
    text
}

/// The names that an error shows.
pub(super) fn listed(names: &[String]) -> String {
    let mut text = String::new();
    for (index, name) in names.iter().take(8).enumerate() {
        let separator = if index > 0 { ", " } else { "" };
        let _ = write!(text, "{separator}{}", printable(name));
    }
    if names.len() > 8 {
        let _ = write!(text, " and {} more", names.len() - 8);
    }
    if text.is_empty() {
        text.push_str("none");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid(not_before: SystemTime, not_after: SystemTime) -> Certificate {
        Certificate {
            subject: String::new(),
            issuer: String::new(),
            serial: String::new(),
            sans: Vec::new(),
            not_before,
            not_after,
            chain: Vec::new(),
        }
    }

    #[test]
    fn a_short_life_is_warned_of_in_its_last_third() {
        let hour = Duration::from_secs(60 * 60);
        let lasting = |lifetime| {
            let begin = SystemTime::UNIX_EPOCH + hour;
            valid(begin, begin + lifetime).renewal_time()
        };
        let day = 24 * hour;
        for (lifetime, before) in [
            (hour, hour / 3),
            (day, 8 * hour),
            (60 * day, 20 * day),
            (90 * day, 30 * day),
            (91 * day, 30 * day),
            (3650 * day, 30 * day),
            (Duration::ZERO, Duration::ZERO),
        ] {
            assert_eq!(lasting(lifetime), before, "{lifetime:?}");
        }
        // One that ends before it begins is never valid, so this does not matter; it only must not panic.
        let begin = SystemTime::UNIX_EPOCH + hour;
        assert_eq!(valid(begin, begin - hour).renewal_time(), 30 * day);
    }

    #[test]
    fn whole_days_are_never_0_once_it_has_expired() {
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 * DAY);
        let certificate = valid(SystemTime::UNIX_EPOCH, end);
        let hour = Duration::from_secs(60 * 60);
        let cases = [
            (49, 2),
            (48, 2),
            (24, 1),
            (1, 0),
            (0, 0),
            (-1, -1),
            (-24, -1),
            (-47, -1),
            (-48, -2),
            (-49, -2),
        ];
        for (hours, days) in cases {
            let now = match u32::try_from(hours) {
                Ok(left) => end - hour * left,
                Err(_) => end + hour * u32::try_from(-hours).unwrap(),
            };
            assert_eq!(certificate.days_left_at(now), days, "{hours} hours left");
            assert_eq!(certificate.time_left(now).is_none(), days < 0, "{hours}");
        }
    }
}
