//! Tests of [`Address`] as a whole.

use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

fn hosts() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?(\\.[a-z][a-z0-9]{0,8}){0,5}\\.?",
        Just(String::from("unix")),
        Just(String::from("Unix-Abstract")),
        any::<Ipv4Addr>().prop_map(|ip| ip.to_string()),
        any::<Ipv6Addr>().prop_map(|ip| format!("[{ip}]")),
    ]
}

fn tcp_texts() -> impl Strategy<Value = String> {
    (hosts(), 1..=u16::MAX).prop_map(|(host, port)| format!("{host}:{port}"))
}

fn paths() -> impl Strategy<Value = PathBuf> {
    let bytes = prop_oneof![any::<u8>(), Just(b'/'), Just(b'.'), Just(b'%'), Just(b'@')];
    let legal = bytes.prop_filter("NUL", |byte| *byte != 0);
    // Not a dot last: `//.` is the root directory.
    (proptest::collection::vec(legal, 1..100), "[^/.\0]").prop_map(|(bytes, last)| {
        PathBuf::from(OsString::from_vec(
            [b"/", bytes.as_slice(), last.as_bytes()].concat(),
        ))
    })
}

fn names() -> impl Strategy<Value = PathBuf> {
    let legal = prop_oneof![1..=u8::MAX, Just(b'/'), Just(b'@')];
    proptest::collection::vec(legal, 1..=103)
        .prop_map(|bytes| PathBuf::from(OsString::from_vec([b"@", bytes.as_slice()].concat())))
}

fn addresses() -> impl Strategy<Value = Address> {
    prop_oneof![
        tcp_texts().prop_map(|text| Address::tcp(&text).unwrap()),
        paths().prop_map(|path| Address::unix(path).unwrap()),
        names().prop_map(|name| Address::unix(name).unwrap()),
    ]
}

/// Texts near the border of what is legal.
fn near_addresses() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-zA-Z:/@?#%.\\[\\]0-9\\\\ -]{0,6}",
        "(tcp|http|https|unix|unix-abstract|ftp)(:|://)",
        tcp_texts(),
        ".{0,3}",
    ];
    proptest::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
}

fn error_of(text: &str) -> String {
    match Address::parse(text) {
        Ok(address) => panic!("{text:?} was taken as {address}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_form_is_read() {
    let cases = [
        ("server:50051", "server:50051"),
        ("Server_1.Example.COM.:1", "server_1.example.com.:1"),
        ("1.2.3.4:65535", "1.2.3.4:65535"),
        ("[::1]:80", "[::1]:80"),
        ("[0:0::FFFF:1.2.3.4]:080", "[::ffff:1.2.3.4]:80"),
        ("tcp://server:1", "server:1"),
        ("TCP://server:1/", "server:1"),
        ("tcp://unix:1", "tcp://unix:1"),
        ("http://server", "server:80"),
        ("http://server/", "server:80"),
        ("HTTP://server:8080/", "server:8080"),
        ("http://[::1]", "[::1]:80"),
        ("unix:/run/a.sock", "unix:/run/a.sock"),
        ("unix:///run/a.sock", "unix:/run/a.sock"),
        ("Unix:/run//./a.sock", "unix:/run/a.sock"),
        ("unix:/run/../a", "unix:/run/../a"),
        ("unix:/run/a%20b%2c%fF", "unix:/run/a%20b%2C%FF"),
        ("unix:/run/bücher", "unix:/run/b%C3%BCcher"),
        ("unix:@name", "unix-abstract:name"),
        ("unix://@name", "unix-abstract:name"),
        ("unix:@@na/me", "unix-abstract:@na/me"),
        ("unix-abstract:name", "unix-abstract:name"),
        ("unix-abstract:///name", "unix-abstract:/name"),
        ("unix-abstract:////name", "unix-abstract:////name"),
    ];
    for (text, canonical) in cases {
        match Address::parse(text) {
            Ok(address) => assert_eq!(address.to_string(), canonical, "{text}"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn bad_texts_are_refused_by_name() {
    let long_label = format!("{}:80", "a".repeat(64));
    let long_name = format!("{}aa:80", "a.".repeat(126));
    let long_path = format!("unix:/{}", "a".repeat(107));
    let long_abstract_name = format!("unix:@{}", "a".repeat(108));
    let cases = [
        ("", "it is empty"),
        (":80", "no host before the port"),
        (":", "no host before the port"),
        ("host", "no port"),
        ("host:", "the port is empty"),
        ("tcp://host", "no port"),
        ("tcp://", "names no host"),
        ("http://", "names no host"),
        ("http:///", "names no host"),
        ("http://host:", "the port is empty"),
        ("http://:80", "no host before the port"),
        (
            "host:0",
            "port 0 cannot be connected to; use one from 1 to 65535",
        ),
        ("host:65536", "the port is too large"),
        ("host:99999999999999999999", "the port is too large"),
        ("host:http", "the port is not a number"),
        ("host:+80", "the port is not a number"),
        ("host:-1", "the port is not a number"),
        ("host:0x50", "the port is not a number"),
        ("http//x", "it has a path"),
        ("http:/x", "it has a path"),
        ("http:host", "the port is not a number"),
        ("host:80/", "it has a path"),
        ("http://host/path", "it has a path"),
        ("http://host//", "it has a path"),
        ("http://host?a=b", "it has a query"),
        ("http://host/?a=b", "it has a path"),
        ("http://host?", "it has a query; remove it"),
        ("http://host#a", "it has a fragment"),
        (
            "ftp://host:21",
            "its scheme is unknown; use tcp://, http:// or unix:",
        ),
        ("://host:21", "its scheme is unknown"),
        ("dns:///host:21", "its scheme is unknown"),
        ("https://host", "an address says nothing about TLS"),
        ("HTTPS://host:443", "an address says nothing about TLS"),
        ("http://user@host", "user information"),
        ("http://user:secret@host:80", "user information"),
        ("user:secret@host:80", "user information"),
        ("[::1", "the '[' is not closed"),
        ("[::1:80", "the '[' is not closed"),
        ("[::1]", "no port"),
        ("[::1]80", "text follows the ']'"),
        ("[]:80", "no IPv6 address in the brackets"),
        ("[1.2.3.4]:80", "no IPv6 address in the brackets"),
        ("[host]:80", "no IPv6 address in the brackets"),
        ("[fe80::1%eth0]:80", "IPv6 zone"),
        ("[fe80::1%25eth0]:80", "IPv6 zone"),
        ("::1]:80", "more than one ':'"),
        ("::1:80", "put an IPv6 address in brackets"),
        ("host:80:80", "only one port"),
        ("bücher.example:80", "xn--"),
        ("host。example:80", "xn--"),
        (&long_name, "longer than 253 bytes"),
        (&long_label, "more than 63 bytes"),
        ("a..b:80", "empty label"),
        (".a:80", "empty label"),
        (".:80", "empty label"),
        ("a..:80", "empty label"),
        ("-a:80", "starts or ends with '-'"),
        ("a-.b:80", "starts or ends with '-'"),
        ("a%20b:80", "character that host names cannot have"),
        ("a,b:80", "character that host names cannot have"),
        ("a\\b:80", "character that host names cannot have"),
        ("127.1:80", "no IPv4 address"),
        ("1.2.3.256:80", "no IPv4 address"),
        ("1.2.3.4.:80", "no IPv4 address"),
        ("0x7f000001:80", "no IPv4 address"),
        ("01.2.3.4:80", "no IPv4 address"),
        (" host:80", "it contains a space"),
        ("host:80 ", "it contains a space"),
        ("ho\tst:80", "it contains a space"),
        ("http://ho st", "it contains a space"),
        ("host:80\r\n", "it contains a line break"),
        ("ho\nst:80", "it contains a line break"),
        ("host\0:80", "NUL"),
        ("ho\u{7f}st:80", "it contains a control character"),
        ("unix:", "the socket's path is empty"),
        ("unix://", "the socket's path is empty"),
        ("unix:/", "ends in '/'"),
        ("unix:///", "ends in '/'"),
        ("unix:/run/", "ends in '/'"),
        ("unix:/.", "is the root directory"),
        ("unix:/./.", "is the root directory"),
        ("unix:run/a", "the socket's path is relative"),
        ("unix:./a", "the socket's path is relative"),
        ("unix:80", "the socket's path is relative"),
        ("unix://run/a", "three slashes"),
        ("unix://user:secret@run/a", "three slashes"),
        (&long_path, "107 bytes on Linux"),
        (&long_abstract_name, "107 bytes on Linux"),
        ("unix:/a\0b", "NUL"),
        ("unix:/a%00b", "NUL"),
        ("unix:@a%00b", "NUL"),
        ("unix:/a b", "%20"),
        ("unix:/a\r", "it contains a line break"),
        ("unix:/a\u{1b}", "it contains a control character"),
        ("unix:/a?b", "%3F"),
        ("unix:/a#b", "%23"),
        ("unix:/a%", "%25"),
        ("unix:/a%2", "%25"),
        ("unix:/a%+2", "%25"),
        ("unix:@", "the socket's abstract name is empty"),
        ("unix-abstract:", "the socket's abstract name is empty"),
        ("unix-abstract://name", "three slashes"),
    ];
    for (text, words) in cases {
        let error = error_of(text);
        assert!(error.contains(words), "{text:?} gave: {error}");
        assert!(!error.contains("secret"), "{text:?} gave: {error}");
        assert!(
            error.chars().all(|character| !character.is_control()),
            "{text:?} gave: {error:?}"
        );
    }
}

#[test]
fn only_host_and_port_make_a_tcp_address() {
    for text in ["tcp://host:80", "http://host", "unix:/a", ""] {
        assert!(Address::tcp(text).is_err(), "{text}");
    }
    // Here the scheme is a host.
    assert_eq!(Address::tcp("unix:80"), Address::parse("tcp://unix:80"));
}

#[test]
fn paths_are_taken_as_they_are() {
    let cases = [
        ("/run/a b?c#%41,d", "unix:/run/a%20b%3Fc%23%2541%2Cd"),
        ("@a b", "unix-abstract:a%20b"),
    ];
    for (path, text) in cases {
        assert_eq!(Address::unix(path).unwrap().to_string(), text);
    }
    let cases = [
        ("", "empty"),
        (
            "run/user@a.sock",
            "\"run/user@a.sock\": the socket's path is relative",
        ),
        ("/a/", "ends in '/'"),
        ("/a\0b", "NUL"),
        ("@", "abstract name is empty"),
    ];
    for (path, words) in cases {
        let error = Address::unix(path).unwrap_err().to_string();
        assert!(error.contains(words), "{path:?} gave: {error}");
    }
}

#[test]
fn a_path_may_be_as_long_as_the_system_allows() {
    let longest = if cfg!(target_os = "linux") { 107 } else { 103 };
    assert!(Address::unix(format!("/{}", "a".repeat(longest - 1))).is_ok());
    assert!(Address::unix(format!("/{}", "a".repeat(longest))).is_err());
    assert!(Address::unix(format!("@{}", "a".repeat(longest))).is_ok());
}

#[test]
fn a_dial_finds_its_parts() {
    let address = Address::tcp("[::1]:80").unwrap();
    let tcp = address.as_tcp().unwrap();
    assert_eq!(
        (tcp.host(), tcp.port()),
        (Host::Ip(Ipv6Addr::LOCALHOST.into()), 80)
    );
    assert_eq!(address.authority(), "[::1]:80");
    assert!(address.as_unix().is_none() && !address.is_unix());

    let address = Address::tcp("Server:80").unwrap();
    assert_eq!(address.as_tcp().unwrap().host(), Host::Name("server"));

    let address = Address::unix("/run/a").unwrap();
    assert_eq!(
        address.as_unix().unwrap().name(),
        UnixName::Path(Path::new("/run/a"))
    );
    assert_eq!(address.authority(), "localhost");
    assert!(address.as_tcp().is_none() && address.is_unix());

    let address = Address::unix("@a").unwrap();
    assert_eq!(address.as_unix().unwrap().name(), UnixName::Abstract(b"a"));
    assert_eq!(format!("{address:?}"), "Address(unix-abstract:a)");
}

proptest! {
    #[test]
    fn the_displayed_text_reads_back(address in addresses()) {
        let text = address.to_string();
        prop_assert_eq!(Address::parse(&text), Ok(address), "{}", text);
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b','), "{}", text);
    }

    #[test]
    fn a_path_keeps_its_bytes(name in names()) {
        let address = Address::unix(&name).unwrap();
        let UnixName::Abstract(kept) = address.as_unix().unwrap().name() else { panic!("{address}") };
        prop_assert_eq!([b"@", kept].concat(), name.as_os_str().as_encoded_bytes());
    }

    #[test]
    fn a_path_stays_the_same_file(path in paths()) {
        let address = Address::unix(&path).unwrap();
        // Paths compare by their parts.
        prop_assert_eq!(address.as_unix().unwrap().name(), UnixName::Path(&path));
    }

    #[test]
    fn an_authority_is_one_for_http(address in addresses()) {
        prop_assert!(address.authority().parse::<http::uri::Authority>().is_ok(), "{}", address);
    }

    #[test]
    fn any_text_is_read_or_refused(text in prop_oneof![".*", near_addresses()]) {
        for result in [Address::parse(&text), Address::tcp(&text), Address::unix(&text)] {
            match result {
                Ok(address) => prop_assert_eq!(Address::parse(&address.to_string()), Ok(address)),
                // 80 characters, of which each may take ten when escaped, and two clauses.
                Err(error) => prop_assert!(error.to_string().len() < 1_000),
            }
        }
    }

    #[test]
    fn addresses_are_equal_as_their_texts_are(one in "/[a./]{0,5}a", other in "/[a./]{0,5}a") {
        let (one, other) = (Address::unix(one).unwrap(), Address::unix(other).unwrap());
        prop_assert_eq!(one == other, one.to_string() == other.to_string());
    }
}
