//! Values that make no sense, whatever the files say: `connect` names the field.

use std::time::Duration;

use trunkline::{Connector, Endpoint, Tls, TlsVersion};

use crate::support::leak::LeakCheck;
use crate::tls::authority::Authority;

use super::bad_config::rejected;
use super::connected::says;

#[tokio::test]
async fn values_out_of_range() {
    let leaks = LeakCheck::start().await;
    let authority = Authority::new("root");
    let tls = || Tls::new().ca_pem(authority.pem());
    for name in [
        "",
        " ",
        "a b",
        "spiffe://example.org/a",
        "a:443",
        &"a".repeat(300),
    ] {
        rejected(
            &tls().server_name(name),
            &["tls.server_name: ", "is no DNS name and no IP address"],
        );
    }
    let suites = |names: &[&str]| tls().cipher_suites(names.iter().copied());
    let unknown = "tls.cipher_suites: \"TLS_RSA_WITH_RC4_128_MD5\" is unknown; there are TLS13_";
    rejected(&suites(&["TLS_RSA_WITH_RC4_128_MD5"]), &[unknown]);
    rejected(
        &suites(&["TLS_AES_128_GCM_SHA256", ""]),
        &["tls.cipher_suites: \"\" is unknown"],
    );
    let old = suites(&["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]).min_version(TlsVersion::V1_3);
    rejected(
        &old,
        &["tls.cipher_suites: none of them belongs to min_version or above"],
    );
    rejected(
        &tls().allow_sans(["a", ""]),
        &["tls.allow_sans: \"\" is no URI, no DNS name and no IP address"],
    );
    rejected(
        &tls().allow_sans(["*"]),
        &["tls.allow_sans: \"*\" is no URI, no DNS name and no IP address"],
    );
    rejected(
        &tls().allow_sans(Vec::<String>::new()),
        &["tls.allow_sans: the list is empty"],
    );
    for beside in [
        Tls::new().ca_pem(authority.pem()),
        Tls::new().ca_file("/nowhere"),
        Tls::new().crl_pem(authority.revoke(&[])),
        Tls::new().allow_sans(["a.internal"]),
    ] {
        rejected(
            &beside.pin_certificate(authority.der()),
            &[
                "tls.pin_certificate: authorities, revocation lists and allowed names have no effect",
            ],
        );
    }
    let and_more = [authority.der(), b"\n".to_vec()].concat();
    for bytes in [&b""[..], b"hello", authority.pem().as_bytes(), &and_more] {
        rejected(
            &Tls::new().pin_certificate(bytes),
            &["tls.pin_certificate: it is no certificate in DER"],
        );
    }
    for interval in [Duration::ZERO, Duration::from_millis(9), Duration::MAX] {
        rejected(
            &tls().reload_interval(interval),
            &["tls.reload_interval: must be from 10 ms to a day"],
        );
    }
    rejected(
        &tls().expiry_warning(Duration::MAX),
        &["tls.expiry_warning: must be at most ten years"],
    );
    leaks.finish().await;
}

#[tokio::test]
async fn sockets_without_a_name_need_one() {
    let leaks = LeakCheck::start().await;
    let tls = Tls::new().ca_pem(Authority::new("root").pem());
    let error = Connector::unix("/run/a.sock")
        .tls(tls.clone())
        .connect_lazy()
        .unwrap_err();
    assert!(error.is_config());
    let parts = [
        "tls.server_name: ",
        "/run/a.sock",
        "has no host name for its certificate; set tls.server_name",
    ];
    says(&error.to_string(), &parts);
    // One of several is enough.
    let endpoints = [Endpoint::tcp("localhost:1"), Endpoint::unix("/run/a.sock")];
    let error = Connector::endpoints(endpoints)
        .tls(tls)
        .connect_lazy()
        .unwrap_err();
    assert!(error.is_config());
    says(&error.to_string(), &parts);
    leaks.finish().await;
}
