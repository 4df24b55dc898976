//! What the log warns of, once.

use std::time::Duration;

use trunkline::{Connector, Endpoint, Tls};

use crate::client::calls::unary;
use crate::client::told::Told;
use crate::support::leak::LeakCheck;
use crate::support::scratch::Scratch;
use crate::support::wait::wait_until;
use crate::tls::authority::Authority;
use crate::tls::log::Log;
use crate::tls::server::TlsServer;

use super::connected::{LIMIT, all_ready, connected};

const EXPIRES: &str = "a certificate of this side is about to expire";
const NO_NAMES: &str = "TLS does not check host names";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Two endpoints with the same options are one reason for a warning, not two.
#[tokio::test]
async fn what_is_dangerous_or_ends_soon_is_logged_once() {
    let leaks = LeakCheck::start().await;
    let authority = Authority::new("root");
    let issue = || authority.issue().subject("shop").for_clients();
    let (soon, late) = (
        issue().valid_for_days(20).finish(),
        issue().valid_for_days(40).finish(),
    );
    let servers = ["a", "b"].map(|it| TlsServer::tcp(it, &authority.issue().loopback().finish()));
    let tls = || Tls::new().ca_pem(authority.pem());
    let ends_soon = || tls().identity_pem(soon.chain_pem(), soon.key_pem());
    let ends_late = || tls().identity_pem(late.chain_pem(), late.key_pem());
    let cases = [
        (tls(), 0, 0),
        (ends_soon(), 1, 0),
        (ends_late(), 0, 0),
        (ends_late().expiry_warning(41 * DAY), 1, 0),
        (ends_soon().expiry_warning(Duration::ZERO), 0, 0),
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
    let next = issue("second").valid_for_days(20).finish();
    next.write(&folder.path(""), "tls");
    wait_until(LIMIT, || log.count(EXPIRES) > 0).await;
    assert_eq!(log.count("CN=second (20 days left)"), 1);
    assert_eq!(channel.stats().tls_expiring, 1);
    let last = issue("third").valid_for_days(19).finish();
    last.write(&folder.path(""), "tls");
    wait_until(LIMIT, || log.count("CN=third (19 days left)") > 0).await;
    assert_eq!(log.count(EXPIRES), 2);
    drop((channel, server));
    leaks.finish().await;
}
