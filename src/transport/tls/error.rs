//! What went wrong in a handshake, in words.

use std::fmt;
use std::io;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::{
    AlertDescription, CertificateError, Error as TlsError, InvalidMessage, PeerIncompatible,
};

use super::certificate::{expired, listed, not_valid_yet};
use super::provider::KNOWS_P521;

/// Why a certificate was refused by rules of ours.
#[derive(Debug)]
pub(super) enum Refusal {
    NotPinned,
    /// The names that it has.
    NotAllowed(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPinned => f.write_str("it is not the pinned one"),
            Self::NotAllowed(names) => write!(f, "none of its names ({names}) is allowed"),
        }
    }
}

impl std::error::Error for Refusal {}

/// One sentence about a failed handshake.
pub(super) fn sentence(error: &io::Error) -> String {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<TlsError>())
    {
        Some(error) => tls_sentence(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server closed the connection during the TLS handshake; does it speak TLS?"
                .to_owned()
        }
        None => format!("the TLS handshake failed: {error}"),
    }
}

/// One sentence about the end of a connection, if it was TLS that ended it.
pub(super) fn problem(error: &io::Error) -> Option<String> {
    let inner = error.get_ref()?;
    inner.downcast_ref().map(tls_sentence)
}

fn tls_sentence(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(problem) => {
            format!(
                "the server's certificate is refused: {}",
                certificate_problem(problem)
            )
        }
        TlsError::InvalidMessage(problem) => message_problem(problem),
        TlsError::NoApplicationProtocol
        | TlsError::AlertReceived(AlertDescription::NoApplicationProtocol) => NO_H2.to_owned(),
        TlsError::AlertReceived(alert) => format!("the server refuses: {}", alert_problem(*alert)),
        TlsError::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "the server speaks none of the allowed versions of TLS".to_owned(),
        other => format!("the TLS handshake failed: {other}"),
    }
}

pub(super) const NO_H2: &str = "the server does not offer HTTP/2 (ALPN h2)";

/// What is not even the head of a record comes from a server of another kind; the rest is TLS gone wrong.
fn message_problem(problem: &InvalidMessage) -> String {
    match problem {
        InvalidMessage::InvalidContentType
        | InvalidMessage::UnknownProtocolVersion
        | InvalidMessage::InvalidEmptyPayload
        | InvalidMessage::MessageTooLarge => "the server does not speak TLS".to_owned(),
        InvalidMessage::HandshakePayloadTooLarge | InvalidMessage::CertificatePayloadTooLarge => {
            "the server's certificate is refused: with its chain it has more than 64 KiB".to_owned()
        }
        other => format!("the TLS handshake failed: {}", TlsError::from(*other)),
    }
}

fn certificate_problem(problem: &CertificateError) -> String {
    let between = |from: &UnixTime, until: &UnixTime| {
        Duration::from_secs(until.as_secs().saturating_sub(from.as_secs()))
    };
    match problem {
        CertificateError::ExpiredContext { time, not_after } => expired(between(not_after, time)),
        CertificateError::NotValidYetContext { time, not_before } => {
            not_valid_yet(between(time, not_before))
        }
        CertificateError::Expired => "it has expired".to_owned(),
        CertificateError::NotValidYet => "it is not valid yet".to_owned(),
        CertificateError::BadSignature => {
            "a signature does not fit: it was changed, or whoever shows it does not have its key"
                .to_owned()
        }
        CertificateError::UnknownIssuer => "nobody who is trusted has signed it".to_owned(),
        CertificateError::Revoked => "it is revoked".to_owned(),
        CertificateError::UnknownRevocationStatus => {
            "none of the revocation lists speaks of its issuer".to_owned()
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            let presented: Vec<_> = presented.iter().map(|it| bare(it)).collect();
            let names = listed(&presented);
            format!("it is not for {} but for {names}", expected.to_str())
        }
        CertificateError::NotValidForName => "it is for another name".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not meant for servers".to_owned()
        }
        CertificateError::Other(other) => {
            let text = other.to_string();
            if text.contains("CaUsedAsEndEntity") {
                return "it is the certificate of an authority; pin it (pin_certificate), or let it sign one for the \
                        server"
                    .to_owned();
            }
            // By webpki's own limits on what a chain may cost.
            if text.contains("MaximumPathDepthExceeded") {
                return "its chain is too long".to_owned();
            }
            if text.starts_with("Maximum") {
                return "its chain is too tangled to be followed".to_owned();
            }
            if text.contains("NameConstraintViolation") {
                return "an authority has signed it that may not sign for all of its names"
                    .to_owned();
            }
            text
        }
        other => {
            let text = other.to_string();
            if !KNOWS_P521 && text.contains("nsupported") {
                return format!("{text}; a P-521 key needs the feature aws-lc-rs");
            }
            text
        }
    }
}

/// webpki writes `DnsName("a.internal")` and `IpAddress(127.0.0.1)`.
fn bare(name: &str) -> String {
    let inside = name
        .split_once('(')
        .and_then(|(_, it)| it.strip_suffix(')'));
    inside.map_or(name, |it| it.trim_matches('"')).to_owned()
}

const NOTHING_COMMON: &str =
    "there is no common version, cipher suite or signature, or it wants a client certificate";

fn alert_problem(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "it wants a client certificate (Tls::identity_files)".to_owned()
        }
        AlertDescription::UnknownCA => {
            "nobody whom it trusts has signed the client certificate".to_owned()
        }
        AlertDescription::CertificateExpired => "the client certificate has expired".to_owned(),
        AlertDescription::CertificateRevoked => "the client certificate is revoked".to_owned(),
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => {
            format!("it does not accept the client certificate ({alert:?})")
        }
        AlertDescription::ProtocolVersion => {
            "it speaks none of the allowed versions of TLS".to_owned()
        }
        AlertDescription::HandshakeFailure if KNOWS_P521 => NOTHING_COMMON.to_owned(),
        AlertDescription::HandshakeFailure => {
            format!("{NOTHING_COMMON}; a P-521 key needs the feature aws-lc-rs")
        }
        AlertDescription::UnrecognisedName => {
            "it has no certificate for this server name".to_owned()
        }
        other => format!("{other:?}"),
    }
}
