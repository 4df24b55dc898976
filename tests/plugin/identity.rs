//! What a host's certificate says.

use std::time::Duration;

use trunkline::plugin::Identity;
use trunkline::{Certificate, Connector, Endpoint};
use x509_parser::pem::parse_x509_pem;

use crate::tls::authority::Authority;

use super::line::{encoded, like_gos};

#[test]
fn it_is_like_go_plugins() {
    let identity = Identity::generate().unwrap();
    let pem = identity.certificate_pem();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert!(pem.ends_with("\n-----END CERTIFICATE-----\n"));
    assert!(pem.lines().all(|line| line.len() <= 64));

    let (_, pem_read) = parse_x509_pem(pem.as_bytes()).unwrap();
    let read = pem_read.parse_x509().unwrap();
    assert_eq!(read.subject().to_string(), "CN=localhost");
    assert_eq!(read.issuer().to_string(), "CN=localhost");
    assert!(read.is_ca());
    let usage = read.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && usage.server_auth);
    let usage = read.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.key_cert_sign());
    assert!(usage.key_encipherment() && usage.key_agreement());

    let shown = Certificate::from_pem(pem).unwrap().remove(0);
    assert_eq!(shown.sans, ["localhost"]);
    let length = shown.not_after.duration_since(shown.not_before).unwrap();
    assert_eq!(length, Duration::from_secs(262_980 * 60 * 60 + 30));
    assert_eq!(shown.days_left(), 262_980 / 24);

    let other = Identity::generate().unwrap();
    assert_ne!(identity, other);
    let serial = |it: &Identity| {
        Certificate::from_pem(it.certificate_pem()).unwrap()[0]
            .serial
            .clone()
    };
    assert_ne!(serial(&identity), serial(&other));
}

/// A unit test looks for the key's own text; here it is all that users can print.
#[test]
fn no_output_has_a_key() {
    let identity = Identity::generate().unwrap();
    let der = like_gos(&Authority::new("unused")).self_signed().der();
    let line = format!("1|1|unix|/tmp/plugin|grpc|{}", encoded(&der));
    let endpoint = Endpoint::from_handshake_with(&line, &identity).unwrap();
    let connector = Connector::endpoints([endpoint.clone()]);
    let shown = format!("{identity:?} {identity:#?} {endpoint:?} {endpoint:#?} {connector:?}");
    assert!(!shown.contains("PRIVATE"), "{shown}");
    assert!(shown.contains("***"), "{shown}");
}
