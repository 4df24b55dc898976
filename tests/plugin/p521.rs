//! Keys on the curve P-521, as go-plugin's own certificates have.

#[cfg(feature = "aws-lc-rs")]
use rcgen::{KeyPair, PKCS_ECDSA_P521_SHA512};
#[cfg(feature = "aws-lc-rs")]
use rustls::crypto::aws_lc_rs;
use trunkline::{Certificate, Connector, Endpoint};
use x509_parser::pem::parse_x509_pem;

use crate::connected::says;
#[cfg(feature = "aws-lc-rs")]
use crate::{connected::works, support::leak::LeakCheck};

use super::line::encoded;

/// openssl has made it.
const PEM: &str = include_str!("../../src/transport/tls/p521.pem");

#[cfg(feature = "aws-lc-rs")]
#[tokio::test]
async fn they_work_on_both_sides() {
    use super::line::{like_gos, line};
    use crate::tls::authority::Authority;
    use crate::tls::server::TlsServer;

    let leaks = LeakCheck::start().await;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap();
    let authority = Authority::new("unused");
    let p521 = like_gos(&authority)
        .key_pem(&key.serialize_pem())
        .self_signed();
    let p256 = like_gos(&authority).self_signed();
    let plugin = trunkline::plugin::Identity::generate;
    for (own, identity) in [
        (&p521, plugin()),
        (&p521, trunkline::plugin::Identity::generate_p521()),
        (&p256, trunkline::plugin::Identity::generate_p521()),
    ] {
        let identity = identity.unwrap();
        for old in [false, true] {
            let provider = aws_lc_rs::default_provider();
            let server = TlsServer::builder_with("plugin", own, provider)
                .requires_client(identity.certificate_pem());
            let server = if old { server.tls12_only() } else { server };
            let server = server.tcp();
            let endpoint = Endpoint::from_handshake_with(&line(&server, own), &identity);
            works(Connector::endpoints([endpoint.unwrap()]), "plugin").await;
        }
    }
    leaks.finish().await;
}

/// `connect` says so, before anything is dialled.
#[tokio::test]
async fn ring_is_said_not_to_know_them() {
    let (_, pem) = parse_x509_pem(PEM.as_bytes()).unwrap();
    let line = format!("1|1|tcp|127.0.0.1:1|grpc|{}", encoded(&pem.contents));
    let endpoint = Endpoint::from_handshake(&line).unwrap();
    let made = Connector::endpoints([endpoint]).connect_lazy();
    if cfg!(feature = "aws-lc-rs") {
        made.unwrap();
        return;
    }
    let error = made.unwrap_err();
    assert!(error.is_config());
    says(
        &error.to_string(),
        &[
            "tls.pin_certificate: its key is on curve P-521, which ring does not know; turn on the feature aws-lc-rs",
        ],
    );
    // What it says can be read all the same.
    assert_eq!(
        Certificate::from_pem(PEM).unwrap()[0].subject,
        "CN=localhost"
    );
}
