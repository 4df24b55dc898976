//! Certificates that are replaced while calls are under way.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tonic::Status;
use trunkline::{Backoff, Channel, Connector, EndpointStatus, PoolOptions, Retry, Tls};

use crate::client::calls::unary;
use crate::support::journal::duplicates;
use crate::support::leak::LeakCheck;
use crate::support::load::Load;
use crate::support::report::wrong;
use crate::support::wait::wait_until;
use crate::tls::authority::Authority;
use crate::tls::files::{Files, Set};
use crate::tls::log::Log;
use crate::tls::server::{TlsServer, TlsServerBuilder};

use super::connected::{LIMIT, connected, says};

fn endpoint(channel: &Channel) -> EndpointStatus {
    channel.status().endpoints.remove(0)
}

/// The serial numbers of both sides, as the channel knows them: its own, and that of its oldest connection's server.
fn serials(channel: &Channel) -> (Option<String>, Option<String>) {
    let endpoint = endpoint(channel);
    let serial = |it: Option<trunkline::Certificate>| it.map(|it| it.serial);
    (serial(endpoint.identity), serial(endpoint.peer))
}

async fn call(channel: Channel, id: u64) -> Result<(), Status> {
    let reply = unary(&channel, id).await?;
    match reply.id == id {
        true => Ok(()),
        false => Err(wrong("the reply to another id")),
    }
}

const NOT_USED: &str = "TLS files can't be used; what was good before stays in use";

/// Looks after the connections every 50 ms.
fn pool() -> PoolOptions {
    PoolOptions::new().idle_timeout(Duration::from_millis(400))
}

/// Three times new certificates on both sides, with another root at the end. No call notices.
async fn rotation(row: &str, place: impl Fn(&Files, &Set<'_>, usize)) {
    let leaks = LeakCheck::start().await;
    let (files, clients) = (Files::new(), Authority::new("clients"));
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let own: Vec<_> = (0..4)
        .map(|_| clients.issue().for_clients().finish())
        .collect();
    let theirs = [&old, &old, &new, &new].map(|root| root.issue().loopback().finish());
    let both = old.pem() + &new.pem();
    let roots = [old.pem(), old.pem(), both, new.pem()];
    let set = |nth: usize| Set {
        authorities: roots[nth].clone(),
        identity: &own[nth],
    };
    let builder = TlsServer::builder("a", &theirs[0]).requires_clients_of(&clients);
    let server = builder.tcp();
    server.behaviour().set_delay(Duration::from_millis(5));
    place(&files, &set(0), 0);
    let connector = Connector::target(server.uri())
        .tls(files.tls())
        .retry(Retry::none());
    let channel = connected(connector.pool(pool())).await;

    let calling = channel.clone();
    let load = Load::new(500.0).duration(Duration::from_secs(4));
    let load = load.start(move |id| call(calling.clone(), id));
    for nth in 1..4 {
        // Under this set for a while.
        let sent = load.sent();
        wait_until(LIMIT, || load.sent() >= sent + 200).await;
        let before = server.seen().handshakes().len();
        // The trusted roots go first, as they have to: the server's next certificate must be known already.
        if nth == 2 {
            let early = Set {
                identity: &own[1],
                ..set(2)
            };
            place(&files, &early, 10);
            wait_until(LIMIT, || server.seen().handshakes().len() > before).await;
        }
        server.replace(&theirs[nth]);
        place(&files, &set(nth), nth);
        let wanted = (
            Some(own[nth].serial_text()),
            Some(theirs[nth].serial_text()),
        );
        wait_until(LIMIT, || serials(&channel) == wanted).await;
        // What is old goes with its last call.
        wait_until(LIMIT, || {
            server.journal().open() == endpoint(&channel).connections as u64
        })
        .await;
        let handshakes = server.seen().handshakes();
        assert!(handshakes.len() > before);
        assert_eq!(
            handshakes.last().unwrap().client,
            Some(own[nth].serial_text())
        );
        assert_eq!(endpoint(&channel).tls_error, None);
    }
    let report = load.finish().await;
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    let accepted = server.seen().accepted();
    assert_eq!(server.seen().failed(), [""; 0]);
    assert_eq!(server.seen().plaintext(), 0);
    let handled = server.journal().handled();
    drop((channel, server));
    let leak = leaks.leaked().await;
    let figures = [("connections", accepted)];
    report.score_with(row, &duplicates([handled]), leak, None, &figures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rewritten_files_are_taken_over_under_load() {
    rotation("tls-rewritten", |files, set, _| files.rewrite(set)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relinked_files_are_taken_over_under_load() {
    rotation("tls-relinked", |files, set, nth| files.relink(set, nth)).await;
}

/// What is in use stays so until all of it is good; meanwhile new connections are made with it too.
#[tokio::test]
async fn bad_files_change_nothing_and_are_told_of() {
    let log = Log::start();
    let leaks = LeakCheck::start().await;
    let files = Files::new();
    let (authority, clients) = (Authority::new("root"), Authority::new("clients"));
    let issue = || clients.issue().subject("shop").for_clients();
    let (first, other) = (issue().finish(), issue().finish());
    let expired = issue().expired_days_ago(2).finish();
    let good = Set {
        authorities: authority.pem(),
        identity: &first,
    };
    files.rewrite(&good);
    let identity = authority.issue().loopback().finish();
    let server = TlsServer::builder("a", &identity)
        .requires_clients_of(&clients)
        .tcp();
    // Connections grow old, so that there are new ones.
    let age = Duration::from_millis(300);
    let pool = pool()
        .connect_timeout(age / 2)
        .unix_connect_timeout(age / 2)
        .max_connection_age(age);
    let connector = Connector::target(server.uri()).tls(files.tls()).pool(pool);
    let channel = connected(connector.retry(Retry::none())).await;

    let (ca, chain, key) = (
        files.path("ca.crt"),
        files.path("tls.crt"),
        files.path("tls.key"),
    );
    let spoil: [(&dyn Fn(), &PathBuf, &str); 9] = [
        (&|| fs::write(&key, "").unwrap(), &key, "it is empty"),
        (
            &|| fs::write(&key, "hello").unwrap(),
            &key,
            "it has no private key in PEM",
        ),
        (
            &|| fs::write(&key, other.key_pem()).unwrap(),
            &key,
            "the key does not belong to the certificate",
        ),
        (&|| fs::remove_file(&key).unwrap(), &key, "No such file"),
        (
            &|| fs::write(&chain, other.key_pem()).unwrap(),
            &chain,
            "are certificate and key exchanged?",
        ),
        (
            &|| drop(expired.write(&files.path(""), "tls")),
            &chain,
            "CN=shop can't be used: it expired 2 days ago",
        ),
        (
            &|| fs::write(&ca, "-----BEGIN CERTIFICATE-----\n").unwrap(),
            &ca,
            "a section has no end",
        ),
        (&|| fs::write(&ca, "").unwrap(), &ca, "it is empty"),
        (&|| fs::remove_file(&ca).unwrap(), &ca, "No such file"),
    ];
    for (spoil, path, problem) in spoil {
        spoil();
        wait_until(LIMIT, || endpoint(&channel).tls_error.is_some()).await;
        wait_until(LIMIT, || channel.stats().tls_failures > 0).await;
        let error = endpoint(&channel).tls_error.unwrap();
        says(&error, &["tls.", path.to_str().unwrap(), problem]);
        assert_eq!(serials(&channel).0, Some(first.serial_text()));
        let before = server.seen().handshakes().len();
        wait_until(LIMIT, || server.seen().handshakes().len() > before).await;
        unary(&channel, 1).await.unwrap();
        // Many looks later it was said once.
        let said = [NOT_USED, &error].map(|it| log.count(it));
        assert_eq!(said[1], 1, "{error}");
        assert_eq!(channel.stats().tls_failures, said[0] as u64);
        // The same as before is no news, and good again.
        files.rewrite(&good);
        wait_until(LIMIT, || endpoint(&channel).tls_error.is_none()).await;
        unary(&channel, 2).await.unwrap();
    }
    let clients: Vec<_> = server
        .seen()
        .handshakes()
        .into_iter()
        .map(|it| it.client)
        .collect();
    assert!(
        clients.iter().all(|it| *it == Some(first.serial_text())),
        "{clients:?}"
    );
    // From bad to something new.
    fs::write(&key, "hello").unwrap();
    wait_until(LIMIT, || endpoint(&channel).tls_error.is_some()).await;
    files.rewrite(&Set {
        authorities: authority.pem(),
        identity: &other,
    });
    let wanted = Some(other.serial_text());
    wait_until(LIMIT, || serials(&channel).0 == wanted).await;
    wait_until(LIMIT, || {
        server.seen().handshakes().last().unwrap().client == wanted
    })
    .await;
    assert_eq!(endpoint(&channel).tls_error, None);
    drop((channel, server));
    leaks.finish().await;
}

/// A file that is written again with the same contents costs no connection.
#[tokio::test]
async fn files_that_stay_the_same_cost_nothing() {
    let leaks = LeakCheck::start().await;
    let (files, clock) = (Files::new(), Files::new());
    let authority = Authority::new("root");
    let identity = authority.issue().loopback().finish();
    let set = Set {
        authorities: authority.pem(),
        identity: &identity,
    };
    files.rewrite(&set);
    clock.rewrite(&set);
    let server = TlsServer::tcp("a", &identity);
    let connector = |files: &Files| {
        let connector = Connector::target(server.uri()).tls(files.tls());
        connector.pool(pool())
    };
    let channel = connected(connector(&files)).await;
    // Another channel looks at its own files as often: what it has seen twice, the first has had time to see.
    let other = connected(connector(&clock)).await;
    for nth in 0..3 {
        files.rewrite(&set);
        for (text, bad) in [("hello".to_owned(), true), (identity.key_pem(), false)] {
            fs::write(clock.path("tls.key"), text).unwrap();
            wait_until(LIMIT, || endpoint(&other).tls_error.is_some() == bad).await;
        }
        unary(&channel, nth).await.unwrap();
        assert_eq!(endpoint(&channel).connection_attempts_succeeded, 1);
    }
    drop((channel, other, server));
    leaks.finish().await;
}

/// Whoever would be refused now does not come in by a session of before; and a revocation list can be replaced like any other
/// file.
#[tokio::test]
async fn no_session_outlives_what_it_was_made_under() {
    let leaks = LeakCheck::start().await;
    let (root, other) = (Authority::new("root"), Authority::new("other"));
    let identity = root.issue().loopback().finish();
    // Connections grow old, so that there are new ones.
    let age = Duration::from_millis(300);
    let pool = pool()
        .connect_timeout(age / 2)
        .unix_connect_timeout(age / 2)
        .dial_backoff(Backoff::dialling().initial(age / 20).max(age / 5))
        .max_connection_age(age);
    for version in [TlsServerBuilder::tls12_only, TlsServerBuilder::tls13_only] {
        let files = Files::new();
        let (ca, crl) = (files.path("ca.crt"), files.path("crl"));
        let (trusted, nobody) = (root.pem(), root.revoke(&[]));
        fs::write(&ca, &trusted).unwrap();
        fs::write(&crl, &nobody).unwrap();
        let server = version(TlsServer::builder("a", &identity)).tcp();
        let tls = Tls::new().ca_file(&ca).crl_file(&crl);
        let tls = tls.reload_interval(Duration::from_millis(50));
        let connector = Connector::target(server.uri()).tls(tls).pool(pool.clone());
        let channel = connected(connector.retry(Retry::none())).await;
        let revoked = root.revoke(&[&identity]);
        for (path, bad, good, problem) in [
            (&crl, &revoked, &nobody, "it is revoked"),
            (
                &ca,
                &other.pem(),
                &trusted,
                "nobody who is trusted has signed it",
            ),
        ] {
            let resumed = server.seen().resumed();
            wait_until(LIMIT, || server.seen().resumed() > resumed).await;
            fs::write(path, bad).unwrap();
            let refused = || {
                endpoint(&channel)
                    .last_error
                    .is_some_and(|it| it.contains(problem))
            };
            wait_until(LIMIT, refused).await;
            let then = endpoint(&channel);
            wait_until(LIMIT, || {
                endpoint(&channel).connection_attempts_failed >= then.connection_attempts_failed + 3
            })
            .await;
            let now = endpoint(&channel);
            assert_eq!(
                now.connection_attempts_succeeded, then.connection_attempts_succeeded,
                "{now:?}"
            );
            fs::write(path, good).unwrap();
            wait_until(LIMIT, || {
                endpoint(&channel).connection_attempts_succeeded > now.connection_attempts_succeeded
            })
            .await;
            unary(&channel, 1).await.unwrap();
        }
        drop((channel, server));
    }
    leaks.finish().await;
}
