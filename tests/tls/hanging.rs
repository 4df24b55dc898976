//! Files that can't be opened, because nobody answers: a pipe, or a disk that is gone. Neither `connect` nor a running
//! channel waits for them.

use std::fs;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use trunkline::{Connector, PoolOptions, Retry, Tls};

use crate::client::calls::unary;
use crate::support::leak::LeakCheck;
use crate::support::wait::{wait_until, within};
use crate::tls::authority::Authority;
use crate::tls::files::{Files, Set};
use crate::tls::lease::Lease;
use crate::tls::server::TlsServer;

use super::connected::{LIMIT, connected, says};

/// What `connect` says about these options, within limits.
async fn rejected(tls: Tls) -> String {
    let connecting = Connector::tcp("127.0.0.1:1")
        .tls(tls)
        .ready_timeout(10 * LIMIT)
        .connect();
    // On a thread of its own: it may hold that up while it reads.
    let connecting = tokio::spawn(connecting);
    let error = within(LIMIT, "the answer", connecting).await.unwrap();
    let error = error.unwrap_err();
    assert!(error.is_config(), "{error:?}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_is_refused() {
    let leaks = LeakCheck::start().await;
    let (files, root) = (Files::new(), Authority::new("root"));
    let identity = root.issue().for_clients().finish();
    let (chain, key) = identity.write(&files.path(""), "own");
    let pipe = files.pipe("pipe");
    let trusting = || Tls::new().ca_pem(root.pem());
    for (tls, field) in [
        (Tls::new().ca_file(&pipe), "tls.ca: "),
        (trusting().identity_files(&pipe, &key), "tls.identity: "),
        (trusting().identity_files(&chain, &pipe), "tls.identity: "),
        (trusting().crl_file(&pipe), "tls.crl: "),
    ] {
        let parts = [field, pipe.to_str().unwrap(), "it is no regular file"];
        says(&rejected(tls).await, &parts);
    }
    leaks.finish().await;
}

/// The error names the file, and the runtime goes on meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_never_opens_is_given_up() {
    let leaks = LeakCheck::start().await;
    let (files, root) = (Files::new(), Authority::new("root"));
    let (chain, key) = root.issue().finish().write(&files.path(""), "own");
    // It is not to be named for what was not read after the other.
    let revoked = files.path("crl");
    fs::write(&revoked, root.revoke(&[])).unwrap();
    let Some(lease) = Lease::on(&key) else {
        return leaks.finish().await;
    };
    let tls = Tls::new()
        .ca_pem(root.pem())
        .crl_file(&revoked)
        .identity_files(&chain, &key);
    let parts = [
        "tls.identity: ",
        key.to_str().unwrap(),
        "reading it takes more than 5s",
    ];
    says(&rejected(tls).await, &parts);
    drop(lease);
    leaks.finish().await;
}

/// What was good stays in use, calls and new connections go on, and the status says what is wrong until it is right
/// again.
async fn kept<T>(names: &[&str], spoil: impl Fn(&Files, &str) -> Option<T>, problem: &str) {
    let leaks = LeakCheck::start().await;
    let (files, root) = (Files::new(), Authority::new("root"));
    let (own, next) = (
        root.issue().for_clients().finish(),
        root.issue().for_clients().finish(),
    );
    let set = |identity| Set {
        authorities: root.pem(),
        identity,
    };
    files.rewrite(&set(&own));
    let server = TlsServer::builder("a", &root.issue().loopback().finish())
        .requires_clients_of(&root)
        .tcp();
    // Connections grow old, so that there are new ones.
    let age = Duration::from_millis(300);
    let pool = PoolOptions::new()
        .connect_timeout(age / 2)
        .unix_connect_timeout(age / 2)
        .max_connection_age(age);
    let connector = Connector::target(server.uri()).tls(files.tls()).pool(pool);
    let channel = connected(connector.retry(Retry::none())).await;
    let status = || channel.status().endpoints.remove(0);
    let serial = || status().identity.map(|it| it.serial);
    for &name in names {
        let Some(lease) = spoil(&files, name) else {
            break;
        };
        wait_until(2 * LIMIT, || status().tls_error.is_some()).await;
        says(&status().tls_error.unwrap(), &[problem]);
        assert_eq!(serial(), Some(own.serial_text()));
        let before = server.seen().handshakes().len();
        wait_until(LIMIT, || {
            server.seen().handshakes().len() > before && status().connections > 0
        })
        .await;
        unary(&channel, 1).await.unwrap();
        drop(lease);
        fs::remove_file(files.path(name)).unwrap();
        files.rewrite(&set(&own));
        wait_until(LIMIT, || status().tls_error.is_none()).await;
    }
    // It still looks.
    files.rewrite(&set(&next));
    wait_until(LIMIT, || serial() == Some(next.serial_text())).await;
    unary(&channel, 2).await.unwrap();
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn a_file_that_becomes_a_pipe_changes_nothing() {
    let spoil = |files: &Files, name: &str| Some(files.pipe(name));
    kept(
        &["ca.crt", "tls.crt", "tls.key"],
        spoil,
        "it is no regular file",
    )
    .await;
}

#[tokio::test]
async fn a_file_that_does_not_open_any_more_changes_nothing() {
    let spoil = |files: &Files, name: &str| Lease::on(&files.path(name));
    kept(&["tls.key"], spoil, "reading the files takes more than 5s").await;
}

/// A runtime waits for its own threads that read files when it ends. A read that nothing can end is not on one of them.
#[test]
fn a_file_that_hangs_does_not_keep_a_program_from_its_end() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let lease = runtime.block_on(async {
        let leaks = LeakCheck::start().await;
        let (files, root) = (Files::new(), Authority::new("root"));
        let own = root.issue().for_clients().finish();
        files.rewrite(&Set {
            authorities: root.pem(),
            identity: &own,
        });
        let server = TlsServer::tcp("a", &root.issue().loopback().finish());
        let channel = connected(Connector::target(server.uri()).tls(files.tls())).await;
        let lease = Lease::on(&files.path("tls.key"))?;
        let trouble = || channel.status().endpoints.remove(0).tls_error.is_some();
        wait_until(2 * LIMIT, trouble).await;
        drop((channel, server));
        leaks.finish().await;
        Some(lease)
    });
    let (send, ended) = sync_channel(1);
    let ending = thread::spawn(move || {
        drop(runtime);
        send.send(())
    });
    let ended = ended.recv_timeout(LIMIT);
    drop(lease);
    ending.join().unwrap().unwrap();
    ended.expect("the runtime ends while the file hangs");
}
