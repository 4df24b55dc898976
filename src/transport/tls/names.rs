//! The names that a certificate may be good for, each of its kind.

use std::net::IpAddr;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// An identity that servers may have in place of the host's name.
///
/// The kinds are kept apart: an authority that may sign DNS names of one domain only may sign any URI, and a URI of the
/// same letters is not that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// In lower case.
    Dns(String),
    Ip(IpAddr),
    /// To the letter. A SPIFFE ID is one.
    Uri(String),
}

impl Name {
    /// An address if it is one, a URI if it has a scheme, else a DNS name.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Ok(ip) = text.parse() {
            return Some(Self::Ip(ip));
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let plain = !scheme.is_empty()
                && scheme
                    .bytes()
                    .all(|it| it.is_ascii_alphanumeric() || b"+-.".contains(&it));
            return (plain && !rest.is_empty()).then(|| Self::Uri(text.to_owned()));
        }
        let dns = rustls::pki_types::DnsName::try_from(text).ok()?;
        Some(Self::Dns(dns.as_ref().to_ascii_lowercase()))
    }

    /// Whether the certificate is good for one of these. A SPIFFE ID counts only if it is the certificate's one URI
    /// (SPIFFE's X.509-SVID, section 2).
    pub(super) fn any_is_of(allowed: &[Self], certificate: &[u8]) -> bool {
        let Ok((_, read)) = X509Certificate::from_der(certificate) else {
            return false;
        };
        let Ok(Some(names)) = read.subject_alternative_name() else {
            return false;
        };
        let names = &names.value.general_names;
        let uris = names
            .iter()
            .filter(|it| matches!(it, GeneralName::URI(_)))
            .count();
        names.iter().filter_map(|it| Self::of(it)).any(|name| {
            let spiffe = matches!(&name, Self::Uri(uri) if uri.starts_with("spiffe://"));
            (!spiffe || uris == 1) && allowed.contains(&name)
        })
    }

    fn of(name: &GeneralName<'_>) -> Option<Self> {
        match name {
            GeneralName::DNSName(name) => Some(Self::Dns(name.to_ascii_lowercase())),
            GeneralName::URI(uri) => Some(Self::Uri((*uri).to_owned())),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let v6 = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
                v4.or_else(|_| v6()).ok().map(Self::Ip)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_a_kind() {
        let uri = |text: &str| Some(Name::Uri(text.to_owned()));
        let dns = |text: &str| Some(Name::Dns(text.to_owned()));
        assert_eq!(Name::parse("Payments.internal"), dns("payments.internal"));
        assert_eq!(
            Name::parse("10.0.0.1"),
            Some(Name::Ip([10, 0, 0, 1].into()))
        );
        assert_eq!(Name::parse("::1"), Some(Name::Ip("::1".parse().unwrap())));
        assert_eq!(
            Name::parse("spiffe://example.org/a"),
            uri("spiffe://example.org/a")
        );
        for odd in [
            "",
            "a b",
            "://x",
            "spiffe://",
            "a\0b",
            "user@example.org",
            "*.*",
        ] {
            assert_eq!(Name::parse(odd), None, "{odd:?}");
        }
    }
}
