//! Public roots: who is trusted where nothing, or more than a private authority, is named.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use trunkline::{Connector, Retry, Tls};

use crate::client::calls::unary;
use crate::support::leak::LeakCheck;
use crate::support::scratch::Scratch;
use crate::support::wait::within;
use crate::tls::authority::Authority;
use crate::tls::server::TlsServer;

use super::connected::LIMIT;

/// Tell the other process whom to call, and whom to trust.
const TARGET: &str = "TRUNKLINE_ROOTS_TARGET";
const TRUST: &str = "TRUNKLINE_ROOTS_TRUST";
const PRIVATE: &str = "TRUNKLINE_ROOTS_PRIVATE";

/// What another process, whose system's roots are in this file, makes of a server.
fn answer(system: &Path, private: &Path, target: &str, trust: &str) -> String {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "roots::one_client", "--ignored", "--nocapture"])
        .env(TARGET, target)
        .env(TRUST, trust)
        .env(PRIVATE, private)
        .env("SSL_CERT_FILE", system)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find_map(|it| it.strip_prefix(TARGET));
    line.unwrap_or_else(|| panic!("{said}")).to_owned()
}

/// The variable that names the system's roots is everybody's, so it is set for processes of their own.
#[tokio::test]
async fn public_roots_are_trusted_where_nothing_else_is_named_or_they_are() {
    let leaks = LeakCheck::start().await;
    let folder = Scratch::new();
    let (public, private) = (Authority::new("public"), Authority::new("private"));
    let server = |name, it: &Authority| TlsServer::tcp(name, &it.issue().loopback().finish());
    let (a, b) = (server("a", &public), server("b", &private));
    let [system, own, none, missing] =
        ["public.pem", "private.pem", "none.pem", "missing.pem"].map(|it| folder.path(it));
    fs::write(&system, public.pem()).unwrap();
    fs::write(&own, private.pem()).unwrap();
    fs::write(&none, "").unwrap();
    let nobody = ": nobody who is trusted has signed it";
    for (trust, of_a, of_b) in [
        ("", ": a answers", nobody),
        ("native", ": a answers", nobody),
        // Mozilla does not know them.
        ("webpki", nobody, nobody),
        ("webpki native", ": a answers", nobody),
        // A private authority is the only one, unless others are named.
        ("private", nobody, ": b answers"),
        ("private native", ": a answers", ": b answers"),
        ("private webpki", nobody, ": b answers"),
    ] {
        for (server, expected) in [(&a, of_a), (&b, of_b)] {
            let said = answer(&system, &own, &server.uri(), trust);
            assert!(said.ends_with(expected), "{trust:?}: {said}");
        }
    }
    for roots in [&none, &missing] {
        for trust in ["", "native", "private native"] {
            let said = answer(roots, &own, &a.uri(), trust);
            assert!(
                said.starts_with(": config: ") && said.contains("tls.native_roots: "),
                "{said}"
            );
        }
        let said = answer(roots, &own, &b.uri(), "private");
        assert_eq!(said, ": b answers");
    }
    // One that does not open holds up `connect`, but not for ever.
    let pipe = folder.path("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let said = answer(&pipe, &own, &a.uri(), "native");
    assert!(
        said.contains("tls.native_roots: reading them takes more than 5s"),
        "{said}"
    );
    drop((a, b));
    leaks.finish().await;
}

#[tokio::test]
#[ignore = "a part of the test above, which runs it in another process"]
async fn one_client() {
    let Ok(target) = env::var(TARGET) else { return };
    let trust = env::var(TRUST).unwrap();
    let mut connector = Connector::target(target).retry(Retry::none());
    if !trust.is_empty() {
        let tls = trust.split(' ').fold(Tls::new(), |tls, it| match it {
            "native" => tls.native_roots(),
            "webpki" => tls.webpki_roots(),
            _ => tls.ca_file(env::var(PRIVATE).unwrap()),
        });
        connector = connector.tls(tls);
    }
    let channel = match connector.connect_lazy() {
        Ok(channel) => channel,
        Err(error) => {
            assert!(error.is_config(), "{error:?}");
            return println!("\n{TARGET}: config: {error}");
        }
    };
    match within(LIMIT, "a call", unary(&channel, 1)).await {
        Ok(reply) => println!("\n{TARGET}: {} answers", reply.server),
        Err(_) => {
            let error = channel.status().endpoints.remove(0).last_error.unwrap();
            println!("\n{TARGET}: {}", error.rsplit_once("refused").unwrap().1);
        }
    }
}
