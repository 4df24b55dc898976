//! What nobody may read: private keys anywhere, and the secrets of connections unless that is asked for.

use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};

use trunkline::{Connector, Endpoint, Retry, Tls};

use crate::client::calls::unary;
use crate::support::leak::{LeakCheck, alone};
use crate::support::scratch::Scratch;
use crate::support::wait::wait_until;
use crate::tls::authority::Authority;
use crate::tls::identity::pem;
use crate::tls::log::Log;
use crate::tls::server::TlsServer;

use super::connected::{LIMIT, connected};

/// A part of a key, as it stands in PEM, in hexadecimal digits, and as `Debug` writes bytes.
fn forms(key: &str) -> Vec<String> {
    let lines: Vec<_> = key.lines().filter(|it| !it.starts_with('-')).collect();
    let bytes: Vec<_> = lines[1].bytes().take(8).collect();
    let listed: Vec<_> = bytes.iter().map(u8::to_string).collect();
    let mut forms: Vec<_> = lines.iter().map(|it| it[..16].to_owned()).collect();
    forms.push(bytes.iter().map(|it| format!("{it:02x}")).collect());
    forms.push(listed.join(", "));
    forms
}

#[tokio::test]
async fn no_output_has_a_key() {
    let log = Log::start();
    let leaks = LeakCheck::start().await;
    let folder = Scratch::new();
    let authority = Authority::new("root");
    let (own, other) = (authority.issue().finish(), authority.issue().finish());
    let clients = TlsServer::builder("a", &authority.issue().loopback().finish());
    let server = clients.requires_clients_of(&authority).tcp();
    let (chain, key) = own.write(&folder.path(""), "own");
    // Keys where they do not belong, and broken ones.
    let canary = own.key_pem();
    let halved = &canary[..canary.len() / 2];
    let spoilt = canary.replacen("\nM", "\n!", 1);
    let unopened = canary.replacen("-----BEGIN", "----BEGIN", 1);
    let tls = || Tls::new().ca_pem(authority.pem());
    let options = [
        tls().identity_files(&chain, &key),
        tls().identity_pem(own.chain_pem(), &*canary),
        tls().identity_pem(other.chain_pem(), &*canary),
        tls().identity_pem(own.chain_pem(), halved),
        tls().identity_pem(own.chain_pem(), spoilt),
        tls().identity_pem(own.chain_pem(), unopened),
        tls().identity_pem(&*canary, own.chain_pem()),
        tls().identity_pem(&*canary, &*canary),
        tls().ca_pem(&*canary),
        tls().crl_pem(&*canary),
        tls().identity_pem(own.chain_pem(), pem("PRIVATE KEY", canary.as_bytes())),
        tls().pin_certificate(canary.as_bytes()),
        tls()
            .identity_pem(own.chain_pem(), &*canary)
            .server_name("shop.internal"),
    ];
    let mut shown = String::new();
    let mut accepted = 0;
    for tls in options {
        let endpoint = Endpoint::uri(server.uri()).tls(tls.clone());
        let connector = Connector::endpoints([endpoint.clone()])
            .tls(tls.clone())
            .retry(Retry::none());
        shown += &format!("{tls:?} {tls:#?} {endpoint:?} {endpoint} {connector:?}");
        match connector.connect_lazy() {
            Err(error) => {
                shown += &chain_of(&error);
                shown += &panic_of::<()>(Err(error));
            }
            Ok(channel) => {
                accepted += 1;
                let dialled = || {
                    let status = channel.status().endpoints;
                    status
                        .first()
                        .is_some_and(|it| it.connections > 0 || it.failed_dials > 0)
                };
                wait_until(LIMIT, dialled).await;
                shown += &format!("{channel:?} {:?} ", channel.status());
                if let Err(status) = unary(&channel, 1).await {
                    shown += &chain_of(&status);
                }
            }
        }
    }
    // Also when the files go bad later.
    let files = tls()
        .identity_files(&chain, &key)
        .reload_interval(std::time::Duration::from_millis(10));
    let channel = connected(Connector::target(server.uri()).tls(files)).await;
    fs::write(&key, halved).unwrap();
    wait_until(LIMIT, || channel.status().endpoints[0].tls_error.is_some()).await;
    shown += &format!("{channel:?} {:?}", channel.status());
    drop((channel, server));
    leaks.finish().await;
    let logged = log.end();

    assert_eq!(accepted, 3, "files, text, and the wrong server name");
    assert!(shown.contains("a section has no end"), "{shown}");
    assert!(shown.contains("it is not for shop.internal"), "{shown}");
    assert!(
        logged.contains("can't be used; what was good before stays in use"),
        "{logged}"
    );
    for form in forms(&canary) {
        assert!(!shown.contains(&form), "{form} is in {shown}");
        assert!(!logged.contains(&form), "{form} is in {logged}");
    }
}

/// What somebody sees who takes for granted that it works.
fn panic_of<T>(result: Result<T, trunkline::Error>) -> String {
    let careless = AssertUnwindSafe(|| drop(result.unwrap()));
    let panic = catch_unwind(careless).expect_err("it panics");
    *panic.downcast().expect("a text")
}

/// An error with all its causes, in both forms.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        text += &format!("{error} {error:?}\n");
        next = error.source();
    }
    text
}

/// Tells the other process what to do.
const CHOICE: &str = "TRUNKLINE_KEY_LOG";

/// The variable is everybody's, so it is set for a process of its own.
#[tokio::test]
async fn the_secrets_of_connections_are_logged_only_by_choice() {
    let _alone = alone().await;
    let folder = Scratch::new();
    for (choice, expected) in [("unset", false), ("no", false), ("yes", true)] {
        let path = folder.path(choice);
        let ended = Command::new(env::current_exe().unwrap())
            .args(["--exact", "secrets::one_call", "--ignored"])
            .env(CHOICE, choice)
            .env("SSLKEYLOGFILE", &path)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(ended.success(), "{choice}: {ended}");
        assert_eq!(has_secrets(&path), expected, "{choice}");
    }
}

fn has_secrets(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|it| it.contains("CLIENT_TRAFFIC_SECRET_0 "))
}

#[tokio::test]
#[ignore = "a part of the test above, which runs it in another process"]
async fn one_call() {
    let Ok(choice) = env::var(CHOICE) else { return };
    let leaks = LeakCheck::start().await;
    let authority = Authority::new("root");
    let server = TlsServer::tcp("a", &authority.issue().loopback().finish());
    let tls = Tls::new().ca_pem(authority.pem());
    let tls = match &*choice {
        "yes" => tls.key_log(true),
        "no" => tls.key_log(false),
        _ => tls,
    };
    super::connected::works(Connector::target(server.uri()).tls(tls), "a").await;
    drop(server);
    leaks.finish().await;
}
