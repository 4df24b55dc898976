//! Score card row 61: certificates are replaced under load, on both sides.
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod rows;
mod support;
#[path = "tls/mod.rs"]
mod tls;

use std::collections::BTreeMap;
use std::time::Duration;

use rows::rig::{Rig, STREAMS, pool};
use rows::served::{NAMES, Served};
use support::wait::wait_until;
use tls::authority::Authority;
use tls::files::{Files, Set};
use tls::identity::Identity;
use tls::server::TlsServer;
use trunkline::Certificate;

impl Served for TlsServer {
    fn place(&self) -> String {
        self.uri()
    }

    fn handled(&self) -> BTreeMap<u64, u64> {
        self.journal().handled_for_good()
    }
}

/// How long a rotation may take.
const ROTATION: Duration = Duration::from_secs(20);

/// The files are written one by one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_61_certificates_rewritten() {
    rotation("61", |files, set, _| files.rewrite(set)).await;
}

/// The files are links, and change all at once, as Kubernetes does it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_61_certificates_relinked() {
    rotation("61b", |files, set, nth| files.relink(set, nth)).await;
}

/// Three times both sides get new certificates; the second time they are of another root, and the third time the old
/// root is trusted no more. No call fails, and every connection is replaced.
async fn rotation(row: &str, place: impl Fn(&Files, &Set<'_>, usize)) {
    let (files, clients) = (Files::new(), Authority::new("clients"));
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let own: [Identity; 4] = [(); 4].map(|()| clients.issue().for_clients().finish());
    let theirs = [&old, &old, &new, &new].map(|root| {
        let issue = |_| root.issue().loopback().finish();
        NAMES.map(issue)
    });
    let roots = [old.pem(), old.pem(), old.pem() + &new.pem(), new.pem()];
    let set = |nth: usize| Set {
        authorities: roots[nth].clone(),
        identity: &own[nth],
    };
    place(&files, &set(0), 0);
    let server = |(name, identity): (&str, &Identity)| {
        let builder = TlsServer::builder(name, identity).requires_clients_of(&clients);
        let server = builder.max_concurrent_streams(STREAMS as u32).tcp();
        server.behaviour().set_delay(Duration::from_millis(5));
        server
    };
    let rig = Rig::start_of(
        || NAMES.into_iter().zip(&theirs[0]).map(server).collect(),
        // Connections are looked after every 50 ms.
        |connector| {
            let pool = pool().idle_timeout(Duration::from_millis(400));
            connector.tls(files.tls()).pool(pool)
        },
    )
    .await;

    let load = rig.load();
    let (mut began, mut slowest) = (Vec::new(), Duration::ZERO);
    for nth in 1..4 {
        began.push(load.part(nth as u32, 5).await);
        // The trusted roots go first, as they have to: the servers' next certificates must be known already.
        if nth == 2 {
            let before = dials(&rig);
            let early = Set {
                identity: &own[1],
                ..set(2)
            };
            place(&files, &early, 10);
            let dialled = || {
                dials(&rig)
                    .iter()
                    .zip(&before)
                    .all(|(now, then)| now > then)
            };
            wait_until(ROTATION, dialled).await;
        }
        for (server, identity) in rig.servers.iter().zip(&theirs[nth]) {
            server.replace(identity);
        }
        place(&files, &set(nth), nth);
        wait_until(ROTATION, || is_replaced(&rig, &own[nth], &theirs[nth])).await;
        slowest = slowest.max(load.elapsed() - began[nth - 1]);
    }
    let reports = load.finish().await;

    let mut handshakes = 0;
    for server in &rig.servers {
        let seen = server.seen();
        assert_eq!((seen.failed(), seen.plaintext()), (Vec::new(), 0));
        handshakes += seen.handshakes().len() as u64;
    }
    let recovery = reports.recovery(began[0]);
    let figures = [
        ("rotations", began.len() as u64),
        ("handshakes", handshakes),
        ("slowest_rotation_ms", slowest.as_millis() as u64),
    ];
    rig.score(row, &reports, Some(recovery), &figures).await;
    reports.none_failed();
}

/// Successful ones of each endpoint of each channel.
fn dials(rig: &Rig<TlsServer>) -> Vec<u64> {
    let endpoints = [&rig.retrying, &rig.single].map(|it| it.channel.status().endpoints);
    let dials = endpoints.into_iter().flatten();
    dials.map(|it| it.connection_attempts_succeeded).collect()
}

/// Whether there is no connection but with these certificates.
fn is_replaced(rig: &Rig<TlsServer>, own: &Identity, theirs: &[Identity]) -> bool {
    let serial = |it: Option<Certificate>| it.map(|it| it.serial);
    let mut connections = 0;
    for side in [&rig.retrying, &rig.single] {
        for (endpoint, identity) in side.channel.status().endpoints.into_iter().zip(theirs) {
            connections += endpoint.connections as u64;
            let wanted = (Some(own.serial_text()), Some(identity.serial_text()));
            let shown = (serial(endpoint.identity), serial(endpoint.peer));
            // Files that are written one by one fit together only when all are.
            if shown != wanted || endpoint.tls_error.is_some() {
                return false;
            }
        }
    }
    // What is old goes with its last call.
    let open: u64 = rig.servers.iter().map(|it| it.journal().open()).sum();
    let last = |server: &TlsServer| server.seen().handshakes().pop().unwrap().client;
    open == connections
        && rig
            .servers
            .iter()
            .all(|it| last(it) == Some(own.serial_text()))
}
