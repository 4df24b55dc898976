//! What a certificate says.
#![allow(
    clippy::disallowed_types,
    reason = "a certificate's validity is a matter of the calendar"
)]

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A certificate, as far as people ask about it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

impl Certificate {
    /// Reads a certificate in DER.
    ///
    /// `None` if it is none.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let (_, read) = X509Certificate::from_der(der).ok()?;
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
        })
    }

    /// How long it is valid from `now` on; `None` once it has expired.
    #[must_use]
    pub fn time_left(&self, now: SystemTime) -> Option<Duration> {
        self.not_after.duration_since(now).ok()
    }

    /// The same in whole days, as of now; negative once it has expired.
    #[must_use]
    pub fn days_left(&self) -> i64 {
        const DAY: u64 = 24 * 60 * 60;
        match self.not_after.duration_since(SystemTime::now()) {
            Ok(left) => i64::try_from(left.as_secs() / DAY).unwrap_or(i64::MAX),
            Err(over) => -i64::try_from(over.duration().as_secs() / DAY + 1).unwrap_or(i64::MAX),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.time_left(SystemTime::now()).is_none()
    }

    pub(super) fn ends_within(&self, time: Duration) -> bool {
        self.time_left(SystemTime::now())
            .is_none_or(|left| left < time)
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} days left)", self.subject, self.days_left())
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

/// The names that an error shows.
pub(super) fn listed(names: &[String]) -> String {
    let mut text = String::new();
    for (index, name) in names.iter().take(8).enumerate() {
        let separator = if index > 0 { ", " } else { "" };
        let _ = write!(text, "{separator}{name}");
    }
    if names.len() > 8 {
        let _ = write!(text, " and {} more", names.len() - 8);
    }
    if text.is_empty() {
        text.push_str("none");
    }
    text
}
