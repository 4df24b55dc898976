//! Certificates of servers that are refused, each with the reason (cases 1 to 8 and 10).

use rustls::pki_types::CertificateDer;
use trunkline::{Connector, Endpoint, Tls};

use crate::memory::resident_kib;
use crate::support::leak::LeakCheck;
use crate::tls::authority::Authority;
use crate::tls::identity::Identity;
use crate::tls::server::TlsServer;

use super::connected::{Leads, refused, says, works};

/// What a channel says of a server with this certificate, at which it saw nothing but TLS and no request.
async fn refusal(identity: &Identity, tls: Tls) -> String {
    let server = TlsServer::tcp("a", identity);
    let text = refused(Connector::target(server.uri()).tls(tls)).await;
    let seen = server.seen();
    assert!(seen.accepted() > 0);
    assert_eq!((seen.plaintext(), seen.targets()), (0, Vec::new()));
    assert_eq!(seen.handshakes(), [], "the server takes it for accepted");
    text
}

fn trusting(authority: &Authority) -> Tls {
    Tls::new().ca_pem(authority.pem())
}

#[tokio::test]
async fn certificates_out_of_their_time() {
    let leaks = LeakCheck::start().await;
    let authority = Authority::new("root");
    let tls = || trusting(&authority);
    let issue = || authority.issue().loopback();
    let text = refusal(&issue().expired_days_ago(2).finish(), tls()).await;
    assert_eq!(
        text,
        "the server's certificate is refused: it expired 2 days ago"
    );
    let text = refusal(&issue().expired_days_ago(1).finish(), tls()).await;
    says(&text, &["it expired one day ago"]);
    let text = refusal(&issue().expired_days_ago(0).finish(), tls()).await;
    says(&text, &["it has expired today"]);
    let text = refusal(&issue().valid_in_days(3).finish(), tls()).await;
    says(&text, &["it is valid only from 3 days from now on"]);
    leaks.finish().await;
}

#[tokio::test]
async fn certificates_that_nobody_trusted_has_signed() {
    let leaks = LeakCheck::start().await;
    let (authority, other) = (Authority::new("root"), Authority::new("other"));
    // The name of the authority is nothing; its key is.
    let namesake = Authority::new("root");
    let nobody = "the server's certificate is refused: nobody who is trusted has signed it";
    for identity in [
        other.issue().loopback().finish(),
        authority.issue().loopback().self_signed(),
        authority
            .intermediate("region")
            .issue()
            .loopback()
            .finish()
            .followed_by([]),
    ] {
        assert_eq!(refusal(&identity, trusting(&authority)).await, nobody);
    }
    let text = refusal(&namesake.issue().loopback().finish(), trusting(&authority)).await;
    says(&text, &["the server's certificate is refused"]);
    leaks.finish().await;
}

#[tokio::test]
async fn certificates_for_others() {
    let leaks = LeakCheck::start().await;
    let authority = Authority::new("root");
    let tls = || trusting(&authority);
    // The names that it has are in the text.
    let identity = authority
        .issue()
        .dns("shop.internal")
        .dns("www.shop.internal")
        .finish();
    let server = TlsServer::tcp("a", &identity);
    let named = Endpoint::tcp("payments.internal:50051");
    let connector = Connector::endpoints([named.clone()]).dialer(Leads(server.addr()));
    let text = refused(connector.tls(tls())).await;
    assert_eq!(
        text,
        "the server's certificate is refused: it is not for payments.internal but for shop.internal, www.shop.internal"
    );
    // A name that is told for requests is none that is verified.
    let named = named.authority("shop.internal");
    let connector = Connector::endpoints([named]).dialer(Leads(server.addr()));
    says(
        &refused(connector.tls(tls())).await,
        &["it is not for payments.internal"],
    );
    let connector = Connector::tcp("shop.internal:1").dialer(Leads(server.addr()));
    works(connector.tls(tls()), "a").await;
    // An address is no name.
    let text = refused(Connector::target(server.uri()).tls(tls())).await;
    says(
        &text,
        &["it is not for 127.0.0.1 but for shop.internal, www"],
    );
    let text = refusal(&authority.issue().ip([127, 0, 0, 2].into()).finish(), tls()).await;
    says(&text, &["it is not for 127.0.0.1 but for 127.0.0.2"]);
    let uri = "spiffe://example.org/a";
    let text = refusal(&authority.issue().uri(uri).finish(), tls()).await;
    says(
        &text,
        &["it is not for 127.0.0.1 but for spiffe://example.org/a"],
    );
    // Whoever chooses the names does not choose what the log looks like.
    let odd = authority
        .issue()
        .uri("a:\n2026 ERROR\u{1b}[31m")
        .uri(&"b".repeat(9000));
    let text = refusal(&odd.finish(), tls()).await;
    says(&text, &["but for a:\\n2026 ERROR\\u{1b}[31m, bbb", "b…"]);
    assert!(
        text.len() < 500 && !text.contains(char::is_control),
        "{text}"
    );
    let text = refusal(&authority.issue().dns("127.0.0.1.nip.io").finish(), tls()).await;
    says(&text, &["it is not for 127.0.0.1"]);
    // A common name is none either (RFC 9525, 2).
    let only_common = authority.issue().subject("127.0.0.1").finish();
    says(
        &refusal(&only_common, tls()).await,
        &["it is not for 127.0.0.1 but for none"],
    );
    let server_name = tls().server_name("payments.internal");
    let only_common = authority.issue().subject("payments.internal").finish();
    says(
        &refusal(&only_common, server_name).await,
        &["it is not for payments.internal"],
    );
    // Nor is a certificate for clients one for servers.
    let client = authority.issue().loopback().for_clients().finish();
    says(
        &refusal(&client, tls()).await,
        &["it is not meant for servers"],
    );
    drop(server);
    leaks.finish().await;
}

/// A wildcard is for one label.
#[tokio::test]
async fn wildcards_are_for_one_label() {
    let leaks = LeakCheck::start().await;
    let authority = Authority::new("root");
    let server = TlsServer::tcp("a", &authority.issue().dns("*.shop.internal").finish());
    let to = |name: &str| {
        let connector = Connector::tcp(format!("{name}:443")).tls(trusting(&authority));
        connector.dialer(Leads(server.addr()))
    };
    works(to("eu.shop.internal"), "a").await;
    for name in ["shop.internal", "a.eu.shop.internal"] {
        says(
            &refused(to(name)).await,
            &[&format!("it is not for {name} but for")],
        );
    }
    drop(server);
    leaks.finish().await;
}

/// They take neither long nor much memory: what is read has a limit, and so has what is verified.
#[tokio::test]
async fn chains_without_end() {
    let leaks = LeakCheck::start().await;
    let root = Authority::new("root");
    let mut last = root.intermediate("region 0");
    for nth in 1..12 {
        last = last.intermediate(&format!("region {nth}"));
    }
    let long = last.issue().loopback().finish();
    let text = refusal(&long, trusting(&root)).await;
    says(
        &text,
        &["the server's certificate is refused: its chain is too long"],
    );

    // Many that look as if each had signed each.
    let knot: Vec<_> = (0..100).map(|_| root.intermediate("region")).collect();
    let knot = knot.iter().map(|it| it.issue().finish().chain().remove(1));
    let knot: Vec<CertificateDer<'static>> = knot.collect();
    let stranger = Authority::new("root").intermediate("region");
    let text = refusal(
        &stranger.issue().loopback().finish().followed_by(knot),
        trusting(&root),
    )
    .await;
    says(&text, &["its chain is too tangled to be followed"]);

    let huge = root.issue().loopback().larger_by(1024 * 1024).finish();
    let before = resident_kib();
    let text = refusal(&huge, trusting(&root)).await;
    let grown = resident_kib().saturating_sub(before);
    // The server's share is in it.
    assert!(grown < 16 * 1024, "grown by {grown} KiB");
    says(&text, &["with its chain it has more than 64 KiB"]);
    leaks.finish().await;
}

#[tokio::test]
async fn certificates_that_are_revoked() {
    let leaks = LeakCheck::start().await;
    let authority = Authority::new("root");
    let (good, bad) = (
        authority.issue().loopback().finish(),
        authority.issue().loopback().finish(),
    );
    let with_list = || trusting(&authority).crl_pem(authority.revoke(&[&bad]));
    let text = refusal(&bad, with_list()).await;
    assert_eq!(text, "the server's certificate is refused: it is revoked");
    let server = TlsServer::tcp("a", &good);
    works(Connector::target(server.uri()).tls(with_list()), "a").await;
    // How old the list is does not matter, for either.
    let old_list = || trusting(&authority).crl_pem(authority.revoked_long_ago(&[&bad]));
    says(&refusal(&bad, old_list()).await, &["it is revoked"]);
    works(Connector::target(server.uri()).tls(old_list()), "a").await;
    // A list of another authority says nothing of this one.
    let other = Authority::new("other");
    let elsewhere = trusting(&authority).crl_pem(other.revoke(&[]));
    let text = refused(Connector::target(server.uri()).tls(elsewhere)).await;
    says(
        &text,
        &["none of the revocation lists speaks of its issuer"],
    );
    // Without a list nothing is checked.
    let unlisted = TlsServer::tcp("b", &bad);
    works(
        Connector::target(unlisted.uri()).tls(trusting(&authority)),
        "b",
    )
    .await;
    drop((server, unlisted));
    leaks.finish().await;
}

/// Somebody shows a certificate that is not his.
#[tokio::test]
async fn certificates_without_their_key() {
    let leaks = LeakCheck::start().await;
    let authority = Authority::new("root");
    let issue = || authority.issue().loopback().finish();
    let stolen = issue().with_key_of(&issue());
    let text = refusal(&stolen, trusting(&authority)).await;
    says(
        &text,
        &[
            "the server's certificate is refused",
            "a signature does not fit",
        ],
    );
    // Not even if it is the one that is wanted.
    let text = refusal(&stolen, Tls::new().pin_certificate(stolen.der())).await;
    says(
        &text,
        &[
            "the server's certificate is refused",
            "a signature does not fit",
        ],
    );
    leaks.finish().await;
}
