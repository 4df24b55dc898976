//! What the log warns of, once.

use std::time::Duration;

use trunkline::{Connector, Endpoint, PoolOptions, Tls};

use crate::client::calls::unary;
use crate::client::told::Told;
use crate::support::leak::LeakCheck;
use crate::support::scratch::Scratch;
use crate::support::wait::wait_until;
use crate::tls::authority::Authority;
use crate::tls::identity::Identity;
use crate::tls::log::Log;
use crate::tls::server::TlsServer;

use super::connected::{LIMIT, all_ready, connected};

const EXPIRES: &str = "a certificate of this side is about to expire";
const PEER_EXPIRES: &str = "a server's certificate is about to expire";
const NO_NAMES: &str = "TLS does not check host names";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Two endpoints with the same options are one reason for a warning, not two.
#[tokio::test]
async fn what_is_dangerous_or_ends_soon_is_logged_once() {
    let leaks = LeakCheck::start().await;
    let authority = Authority::new("root");
    let issue = || authority.issue().subject("shop").for_clients();
    let of = |since, days| issue().valid_for_days(days).since_days_ago(since).finish();
    let (soon, late) = (of(345, 20), of(325, 40));
    // Of a short life, so that its last third counts: just begun, a day before that third, and in it.
    let (young, early, old) = (of(0, 20), of(39, 20), of(41, 20));
    let servers = ["a", "b"].map(|it| TlsServer::tcp(it, &authority.issue().loopback().finish()));
    let tls = || Tls::new().ca_pem(authority.pem());
    let with = |own: &Identity| tls().identity_pem(own.chain_pem(), own.key_pem());
    let ends_soon = || with(&soon);
    let ends_late = || with(&late);
    let cases = [
        (tls(), 0, 0),
        (ends_soon(), 1, 0),
        (ends_late(), 0, 0),
        (ends_late().expiry_warning(41 * DAY), 1, 0),
        (ends_soon().expiry_warning(Duration::ZERO), 0, 0),
        (with(&young), 0, 0),
        (with(&early), 0, 0),
        (with(&old), 1, 0),
        (with(&young).expiry_warning(21 * DAY), 1, 0),
        (with(&old).expiry_warning(19 * DAY), 0, 0),
        (tls().dangerous().skip_host_names(), 0, 1),
    ];
    for (tls, ending, careless) in cases {
        for given in ["to the channel", "to endpoints", "before discovery"] {
            let log = Log::start();
            let endpoints = servers.each_ref().map(|it| Endpoint::uri(it.uri()));
            let (teller, told) = Told::saying(Ok(endpoints.to_vec()));
            let connector = match given {
                "to the channel" => Connector::endpoints(endpoints).tls(tls.clone()),
                "to endpoints" => Connector::endpoints(endpoints.map(|it| it.tls(tls.clone()))),
                _ => Connector::discover(told).tls(tls.clone()),
            };
            let channel = connected(connector).await;
            all_ready(&channel).await;
            unary(&channel, 1).await.unwrap();
            let logged = (log.count(EXPIRES), log.count(NO_NAMES));
            assert_eq!(logged, (ending, careless), "{tls:?}, given {given}");
            drop((channel, teller));
        }
    }
    drop(servers);
    leaks.finish().await;
}

/// A new certificate is a new reason.
#[tokio::test]
async fn a_new_certificate_that_ends_soon_is_logged() {
    let leaks = LeakCheck::start().await;
    let folder = Scratch::new();
    let authority = Authority::new("root");
    // As scripts number them (`openssl x509 -set_serial 01`).
    let issue = |name: &str| authority.issue().subject(name).for_clients().numbered(1);
    let (chain, key) = issue("first").finish().write(&folder.path(""), "tls");
    let server = TlsServer::tcp("a", &authority.issue().loopback().finish());
    let tls = Tls::new()
        .ca_pem(authority.pem())
        .identity_files(chain, key)
        .reload_interval(Duration::from_millis(10));
    let log = Log::start();
    let channel = connected(Connector::target(server.uri()).tls(tls)).await;
    assert_eq!(log.count(EXPIRES), 0);
    let next = issue("second")
        .valid_for_days(20)
        .since_days_ago(345)
        .finish();
    next.write(&folder.path(""), "tls");
    wait_until(LIMIT, || log.count(EXPIRES) > 0).await;
    assert_eq!(log.count("CN=second (20 days left)"), 1);
    assert_eq!(channel.stats().tls_expiring, 1);
    let last = issue("third")
        .valid_for_days(19)
        .since_days_ago(346)
        .finish();
    last.write(&folder.path(""), "tls");
    wait_until(LIMIT, || log.count("CN=third (19 days left)") > 0).await;
    assert_eq!(log.count(EXPIRES), 2);
    // One with a short life that is replaced in time is none.
    issue("fourth")
        .valid_for_days(1)
        .finish()
        .write(&folder.path(""), "tls");
    let own = || channel.status().endpoints.remove(0).identity.unwrap();
    wait_until(LIMIT, || own().subject == "CN=fourth").await;
    let late = issue("fifth").valid_for_days(1).since_days_ago(3);
    late.finish().write(&folder.path(""), "tls");
    wait_until(LIMIT, || log.count("CN=fifth (1 days left)") > 0).await;
    assert_eq!(log.count("CN=fourth"), 0);
    drop((channel, server));
    leaks.finish().await;
}

/// A certificate that is pinned may be as old as it likes, and so may those that come with one's own: they are warned of, too.
#[tokio::test]
async fn what_has_expired_is_not_said_to_be_about_to() {
    let leaks = LeakCheck::start().await;
    let authority = Authority::new("root");
    let of = |name, days| authority.issue().subject(name).expired_days_ago(days);
    let (old, gone) = (of("old", 2).self_signed(), of("gone", 3).finish());
    let own = authority.issue().for_clients().finish();
    let own = own.followed_by(gone.chain());
    let server = TlsServer::tcp("a", &old);
    let tls = Tls::new()
        .pin_certificate(old.der())
        .identity_pem(own.chain_pem(), own.key_pem());
    let log = Log::start();
    let channel = connected(Connector::target(server.uri()).tls(tls)).await;
    let theirs = "a server's certificate has expired certificate=CN=old (it expired 2 days ago)";
    wait_until(LIMIT, || log.count(theirs) == 1).await;
    let ours = "a certificate of this side has expired certificate=CN=gone (it expired 3 days ago)";
    assert_eq!(log.count(ours), 1);
    assert_eq!((log.count(EXPIRES), log.count(PEER_EXPIRES)), (0, 0));
    let stats = channel.stats();
    assert_eq!((stats.tls_expiring, stats.tls_peers_expiring), (1, 1));
    drop((channel, server));
    leaks.finish().await;
}

/// A server's certificate is warned of once, however many connections and endpoints show it, also if it comes to that only
/// while a connection is open; and the next one is a new reason.
#[tokio::test]
async fn servers_whose_certificates_end_soon_are_logged_once() {
    let leaks = LeakCheck::start().await;
    let authority = Authority::new("root");
    let issue = |name: &str| authority.issue().subject(name).loopback();
    let of = |name, since, days| {
        issue(name)
            .valid_for_days(days)
            .since_days_ago(since)
            .finish()
    };
    let soon = of("soon", 345, 20);
    let server = |name, identity: &Identity| {
        // Who resumes a session is shown no certificate.
        let builder = TlsServer::builder(name, identity).resumption(false);
        builder.tcp()
    };
    let servers = [
        server("a", &soon),
        server("b", &soon),
        server("c", &of("late", 325, 40)),
        server("d", &of("young", 0, 1)),
    ];
    let channel = |tls: Tls, pool: PoolOptions, servers: &[TlsServer]| {
        let endpoints: Vec<_> = servers.iter().map(|it| Endpoint::uri(it.uri())).collect();
        // Looked after every 50 ms.
        let pool = pool.idle_timeout(Duration::from_millis(400));
        connected(Connector::endpoints(endpoints).tls(tls).pool(pool))
    };
    let tls = || Tls::new().ca_pem(authority.pem());
    // Connections grow old, so that there are new ones.
    let age = Duration::from_millis(300);
    let short = PoolOptions::new()
        .connect_timeout(age / 2)
        .unix_connect_timeout(age / 2)
        .max_connection_age(age);

    let log = Log::start();
    let usual = channel(tls(), short, &servers).await;
    let dials = |nth: usize| usual.status().endpoints[nth].connection_attempts_succeeded;
    wait_until(LIMIT, || (0..4).all(|nth| dials(nth) > 2)).await;
    let once = "CN=soon (20 days left) names=\"localhost, 127.0.0.1\"";
    assert_eq!((log.count(once), log.count(PEER_EXPIRES)), (1, 1));
    servers[0].replace(&of("next", 346, 19));
    wait_until(LIMIT, || log.count("CN=next (19 days left)") > 0).await;
    assert_eq!((log.count(PEER_EXPIRES), log.count(EXPIRES)), (2, 0));
    let stats = usual.stats();
    assert_eq!((stats.tls_peers_expiring, stats.tls_expiring), (2, 0));
    drop(usual);

    // What it has is a day and a minute, of which the first seconds pass now.
    let tls = tls().expiry_warning(DAY + Duration::from_secs(56));
    let last = channel(tls, PoolOptions::new(), &servers[3..]).await;
    wait_until(LIMIT, || log.count("CN=young") > 0).await;
    assert_eq!(last.status().endpoints[0].connection_attempts_succeeded, 1);
    drop((last, servers));
    leaks.finish().await;
}
