//! Which certificates of servers are accepted.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

use super::certificate::{Certificate, listed};
use super::error::Refusal;
use super::names::Name;

/// The usual rules, and what [`Tls`](super::Tls) adds to them.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Chain, validity, revocation and names; not there when certificates are pinned.
    pub(super) usual: Option<Arc<WebPkiServerVerifier>>,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) pinned: Vec<Vec<u8>>,
    /// In place of the host's name.
    pub(super) allowed: Option<Vec<Name>>,
    pub(super) any_name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(usual) = &self.usual else {
            let pinned = self.pinned.iter().any(|it| **it == **end_entity);
            return match pinned {
                true => Ok(ServerCertVerified::assertion()),
                false => Err(refused(Refusal::NotPinned)),
            };
        };
        let verified =
            usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if self.allowed.is_none() && !self.any_name {
            return verified;
        }
        // Names come last in rustls: who fails by the name only has passed all else.
        match verified {
            Ok(_)
            | Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => {}
            Err(other) => return Err(other),
        }
        if let Some(allowed) = &self.allowed
            && !Name::any_is_of(allowed, end_entity)
        {
            let sans = Certificate::from_der(end_entity)
                .map(|it| it.sans)
                .unwrap_or_default();
            return Err(refused(Refusal::NotAllowed(listed(&sans))));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn refused(refusal: Refusal) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
}
