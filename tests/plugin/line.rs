//! Certificates and handshake lines as a plugin written in Go makes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::tls::authority::{Authority, Issue};
use crate::tls::identity::Identity;
use crate::tls::server::TlsServer;

/// The DER as the line has it.
pub(super) fn encoded(der: &[u8]) -> String {
    STANDARD_NO_PAD.encode(der)
}

/// Self-signed, for localhost, with the rights of an authority. The key is on P-256 unless another is given.
pub(super) fn like_gos(authority: &Authority) -> Issue<'_> {
    authority
        .issue()
        .subject("localhost")
        .dns("localhost")
        .authority()
}

/// What a plugin that listens there, with this certificate, writes.
pub(super) fn line(server: &TlsServer, certificate: &Identity) -> String {
    let der = encoded(&certificate.der());
    format!("1|1|tcp|{}|grpc|{der}\n", server.addr())
}
