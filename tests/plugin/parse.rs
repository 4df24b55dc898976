//! What is read from a handshake line, and what is said of lines that are none.

use proptest::prelude::*;
use trunkline::plugin::{Handshake, Identity};
use trunkline::{Address, Endpoint};

use crate::connected::says;
use crate::tls::authority::Authority;

use super::line::{encoded, like_gos};

fn certificate() -> Vec<u8> {
    like_gos(&Authority::new("unused")).self_signed().der()
}

#[test]
fn lines_are_read_as_go_plugin_reads_them() {
    let der = certificate();
    let base64 = encoded(&der);
    let unix = || Address::unix("/tmp/plugin4711").unwrap();
    let tcp = || Address::tcp("127.0.0.1:10000").unwrap();
    let cases = [
        ("1|1|unix|/tmp/plugin4711|grpc".to_owned(), 1, unix(), false),
        (
            "1|6|unix|/tmp/plugin4711|grpc|".to_owned(),
            6,
            unix(),
            false,
        ),
        (
            "1|5|tcp|127.0.0.1:10000|grpc|\n".to_owned(),
            5,
            tcp(),
            false,
        ),
        (
            "1|0|tcp|127.0.0.1:10000|grpc|\r\n".to_owned(),
            0,
            tcp(),
            false,
        ),
        // As Go writes a name in Linux's abstract namespace, and a version with a sign.
        (
            "1|+4|unix|@plugin|grpc".to_owned(),
            4,
            Address::unix("@plugin").unwrap(),
            false,
        ),
        (
            " 1|1|tcp|[::1]:10000|grpc| ".to_owned(),
            1,
            Address::tcp("[::1]:10000").unwrap(),
            false,
        ),
        // Older plugins write other things there.
        (
            format!("1|1|unix|/tmp/plugin4711|grpc|{}", "x".repeat(50)),
            1,
            unix(),
            false,
        ),
        (
            format!("1|1|unix|/tmp/plugin4711|grpc|{base64}\n"),
            1,
            unix(),
            true,
        ),
        (
            format!("1|1|unix|/tmp/plugin4711|grpc|{base64}|false\n"),
            1,
            unix(),
            true,
        ),
        // Of later versions, perhaps.
        (
            format!("1|1|tcp|127.0.0.1:10000|grpc|{base64}|0|more|"),
            1,
            tcp(),
            true,
        ),
    ];
    for (line, version, address, has_certificate) in cases {
        let handshake = Handshake::parse(&line).unwrap();
        assert_eq!(handshake.protocol_version, version, "{line}");
        assert_eq!(handshake.address, address, "{line}");
        assert_eq!(handshake.certificate.is_some(), has_certificate, "{line}");
        assert!(!handshake.multiplexed, "{line}");
        let endpoint = handshake.endpoint().unwrap();
        assert_eq!(endpoint.address().unwrap(), &address);
        assert_eq!(endpoint.health_service_name(), Some("plugin"));
        assert_eq!(endpoint, Endpoint::from_handshake(&line).unwrap());
        if has_certificate {
            assert_eq!(handshake.certificate.as_ref(), Some(&der));
        }
    }
}

#[test]
fn what_is_wrong_is_named() {
    let base64 = encoded(&certificate());
    let with = |rest: &str| format!("1|1|tcp|127.0.0.1:1|grpc|{rest}");
    let core = |core: &str| format!("{core}|1|tcp|127.0.0.1:1|grpc|");
    let app = |app: &str| format!("1|{app}|tcp|127.0.0.1:1|grpc|");
    let at = |place: &str| format!("1|1|{place}|grpc|");
    let protocol = |rest: &str| format!("1|1|tcp|127.0.0.1:1{rest}");
    let cases = [
        (String::new(), "handshake: \"\" is no core|app|network"),
        (
            "panic: no".to_owned(),
            "handshake: \"panic: no\" is no core|",
        ),
        (
            "1|1|unix".to_owned(),
            "which must be the first that the plugin writes",
        ),
        (
            "x".repeat(64 * 1024 + 1),
            "handshake: it has more than 65536 bytes",
        ),
        ("y".repeat(64 * 1024), "yyy\"… is no core|app"),
        (
            core("1") + "\n" + &core("1"),
            "handshake: it is more than one line",
        ),
        (
            core("2"),
            "handshake.core: version 2 is unknown; it must be 1",
        ),
        (core(""), "handshake.core: \"\" is no version"),
        (core("-1"), "handshake.core: \"-1\" is no version"),
        (core("hello"), "the first that the plugin writes"),
        (
            app(""),
            "handshake.app: \"\" is no version; it must be a number",
        ),
        (app("1.2"), "handshake.app: \"1.2\" is no version"),
        (app("99999999999"), "handshake.app: "),
        (
            at("udp|127.0.0.1:1"),
            "handshake.network: \"udp\" is unknown; it must be unix or tcp",
        ),
        (at("|/tmp/plugin"), "handshake.network: \"\" is unknown"),
        (
            at("TCP|127.0.0.1:1"),
            "handshake.network: \"TCP\" is unknown",
        ),
        (at("unix|plugin.sock"), "handshake.address: "),
        (at("unix|"), "handshake.address: "),
        (at("tcp|/tmp/plugin"), "handshake.address: "),
        (at("tcp|127.0.0.1"), "handshake.address: "),
        (at("tcp|127.0.0.1:0"), "handshake.address: "),
        (
            protocol(""),
            "handshake.protocol: it speaks net/rpc, which is Go's own; only grpc",
        ),
        (protocol("|"), "handshake.protocol: it speaks net/rpc"),
        (
            protocol("|netrpc|"),
            "handshake.protocol: it speaks net/rpc",
        ),
        (
            protocol("|GRPC|"),
            "handshake.protocol: \"GRPC\" is unknown; only grpc",
        ),
        (with(&"x".repeat(51)), "handshake.certificate: "),
        (
            with(&(base64.clone() + "=")),
            "handshake.certificate: it must be DER in standard base64, without padding",
        ),
        (
            with(&base64.replacen('M', "!", 1)),
            "handshake.certificate: it must be DER in standard base64",
        ),
        (
            with(&encoded(&[0x30; 60])),
            "handshake.certificate: what it has in base64 is no certificate in DER",
        ),
        (
            with(&encoded(&[certificate(), vec![0]].concat())),
            "handshake.certificate: what it has in base64 is no certificate in DER",
        ),
        (
            with(&format!("{base64}|")),
            "handshake.multiplexed: \"\" must be true or false",
        ),
        (
            with("|yes"),
            "handshake.multiplexed: \"yes\" must be true or false",
        ),
        (
            with("|true"),
            "handshake.multiplexed: the plugin multiplexes its connection with yamux",
        ),
        (with(&format!("{base64}|1\n")), "PLUGIN_MULTIPLEX_GRPC"),
    ];
    let identity = Identity::generate().unwrap();
    for (line, words) in cases {
        let error = Endpoint::from_handshake(&line).unwrap_err();
        assert!(error.is_config(), "{error:?}");
        says(&error.to_string(), &[words]);
        assert!(error.to_string().len() < 400, "{error}");
        Endpoint::from_handshake_with(&line, &identity).unwrap_err();
    }
    // It can be told all the same.
    assert!(Handshake::parse(&with("|true")).unwrap().multiplexed);
}

/// A plugin that does not do its part of automatic mutual TLS is not talked to in plaintext.
#[test]
fn an_identity_needs_a_certificate() {
    let identity = Identity::generate().unwrap();
    for line in [
        "1|1|unix|/tmp/plugin|grpc",
        "1|1|unix|/tmp/plugin|grpc|",
        "1|1|unix|/tmp/plugin|grpc||false",
        "1|1|tcp|127.0.0.1:1|grpc|no certificate",
    ] {
        Endpoint::from_handshake(line).unwrap();
        let error = Endpoint::from_handshake_with(line, &identity).unwrap_err();
        assert!(error.is_config());
        let words = [
            "handshake.certificate: the plugin has sent none",
            "PLUGIN_CLIENT_CERT",
        ];
        says(&error.to_string(), &words);
    }
}

fn whatever(line: &str, identity: &Identity) {
    if let Ok(handshake) = Handshake::parse(line) {
        assert_eq!(handshake.endpoint().is_err(), handshake.multiplexed);
        let with = handshake.endpoint_with(identity);
        let refused = handshake.multiplexed || handshake.certificate.is_none();
        assert_eq!(with.is_err(), refused);
    }
}

proptest! {
    #[test]
    fn no_line_panics(line in any::<String>()) {
        whatever(&line, &Identity::generate().unwrap());
    }

    #[test]
    fn no_near_line_panics(
        fields in prop::collection::vec(
            prop_oneof![
                "[0-9]{0,3}",
                Just("1".to_owned()),
                Just("unix".to_owned()),
                Just("tcp".to_owned()),
                Just("grpc".to_owned()),
                Just("true".to_owned()),
                Just("/tmp/plugin".to_owned()),
                "[A-Za-z0-9+/=]{0,120}",
                "\\PC{0,8}",
            ],
            0..9,
        ),
    ) {
        whatever(&fields.join("|"), &Identity::generate().unwrap());
    }

    #[test]
    fn no_spoilt_certificate_panics(at in 0..400_usize, byte in any::<u8>()) {
        let mut der = certificate();
        let at = at % der.len();
        der[at] = byte;
        let line = format!("1|1|unix|/tmp/plugin|grpc|{}", encoded(&der));
        whatever(&line, &Identity::generate().unwrap());
    }
}
