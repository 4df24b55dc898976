//! Peers that are refused, or refuse, for what they speak or want (cases 9, 11 and 13 to 16). Never is anything said to
//! them in plaintext, and never is there a second try with less.

use std::time::Duration;

use trunkline::{Connector, PoolOptions, Retry, Tls, TlsVersion};

use crate::client::calls::unary;
use crate::support::leak::LeakCheck;
use crate::support::wait::{wait_until, within};
use crate::tls::authority::Authority;
use crate::tls::mute::MuteServer;
use crate::tls::server::{TlsServer, TlsServerBuilder};

use super::connected::{LIMIT, refused, says};

fn pair() -> (Authority, TlsServerBuilder) {
    let authority = Authority::new("root");
    let builder = TlsServer::builder("a", &authority.issue().loopback().finish());
    (authority, builder)
}

/// Why the channel is refused by this server, which has handled nothing.
async fn refusal(server: &TlsServer, tls: Tls) -> String {
    let text = refused(Connector::target(server.uri()).tls(tls)).await;
    let seen = server.seen();
    assert!(seen.accepted() > 0);
    assert_eq!((seen.plaintext(), seen.targets()), (0, Vec::new()));
    text
}

#[tokio::test]
async fn a_client_certificate_is_wanted() {
    let leaks = LeakCheck::start().await;
    let (authority, builder) = pair();
    let clients = Authority::new("clients");
    let builder = builder.requires_clients_of(&clients);
    let tls = || Tls::new().ca_pem(authority.pem());
    let theirs = authority.issue().for_clients().finish();

    let server = builder.clone().tls13_only().tcp();
    let text = refusal(&server, tls()).await;
    says(
        &text,
        &["the server refuses: it wants a client certificate (Tls::identity_files)"],
    );
    let stranger = tls().identity_pem(theirs.chain_pem(), theirs.key_pem());
    let text = refusal(&server, stranger.clone()).await;
    says(
        &text,
        &["the server refuses: nobody whom it trusts has signed the client certificate"],
    );

    // TLS 1.2 has no alert of its own for it.
    let old = builder.tls12_only().tcp();
    let text = refusal(&old, tls()).await;
    says(&text, &["the server refuses: ", "client certificate"]);
    let text = refusal(&old, stranger).await;
    says(
        &text,
        &["the server refuses: nobody whom it trusts has signed the client certificate"],
    );
    drop((server, old));
    leaks.finish().await;
}

#[tokio::test]
async fn versions_have_a_minimum_and_suites_something_in_common() {
    let leaks = LeakCheck::start().await;
    let (authority, builder) = pair();
    let tls = || Tls::new().ca_pem(authority.pem());
    let old = builder.clone().tls12_only().tcp();
    for tls in [
        tls().min_version(TlsVersion::V1_3),
        Tls::production().ca_pem(authority.pem()),
    ] {
        let text = refusal(&old, tls).await;
        says(
            &text,
            &["the server", "none of the allowed versions of TLS"],
        );
    }
    let only = builder
        .tls13_only()
        .suites(&["TLS13_AES_128_GCM_SHA256"])
        .tcp();
    let text = refusal(&only, tls().cipher_suites(["TLS_AES_256_GCM_SHA384"])).await;
    says(&text, &["the server refuses", "cipher suite"]);
    drop((old, only));
    leaks.finish().await;
}

#[tokio::test]
async fn http2_is_agreed_on_or_nothing() {
    let leaks = LeakCheck::start().await;
    let (authority, builder) = pair();
    for protocols in [&[][..], &["http/1.1"][..], &["h3", "http/1.0"][..]] {
        let server = builder.clone().alpn(protocols).tcp();
        let text = refusal(&server, Tls::new().ca_pem(authority.pem())).await;
        assert_eq!(text, "the server does not offer HTTP/2 (ALPN h2)");
    }
    let server = builder.alpn(&["http/1.1", "h2"]).tcp();
    let tls = Tls::new().ca_pem(authority.pem());
    super::connected::works(Connector::target(server.uri()).tls(tls), "a").await;
    drop(server);
    leaks.finish().await;
}

#[tokio::test]
async fn servers_that_speak_no_tls_hear_nothing_else() {
    let leaks = LeakCheck::start().await;
    let tls = Tls::new().ca_pem(Authority::new("root").pem());
    // The first frames of an HTTP/2 server.
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\x02";
    let not_tls = "the server does not speak TLS";
    for (words, expected) in [
        (SETTINGS, not_tls),
        (
            &b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n"[..],
            not_tls,
        ),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", not_tls),
        (
            b"",
            "the server closed the connection during the TLS handshake; does it speak TLS?",
        ),
    ] {
        let server = MuteServer::saying(words);
        let connector = Connector::tcp(server.addr().to_string()).tls(tls.clone());
        assert_eq!(refused(connector).await, expected);
        let seen = server.seen();
        assert!(seen.accepted() > 0 && seen.records() > 0);
        assert_eq!(seen.plaintext(), 0, "something but TLS was said");
    }
    leaks.finish().await;
}

#[tokio::test]
async fn tls_on_a_plaintext_endpoint_is_named() {
    let leaks = LeakCheck::start().await;
    let (_, builder) = pair();
    let server = builder.tcp();
    let text = refused(Connector::tcp(server.addr().to_string())).await;
    says(
        &text,
        &["no HTTP/2 handshake", "is it a plaintext HTTP/2 server?"],
    );
    assert_eq!(server.seen().handshakes(), []);
    drop(server);
    leaks.finish().await;
}

/// The time of connecting is that of the handshake too, and a call's own time is its own.
#[tokio::test]
async fn handshakes_that_stall_are_given_up() {
    let leaks = LeakCheck::start().await;
    let server = MuteServer::stalling();
    let tls = Tls::new().ca_pem(Authority::new("root").pem());
    let limit = Duration::from_millis(200);
    let connector = Connector::tcp(server.addr().to_string())
        .tls(tls)
        .retry(Retry::none())
        .pool(PoolOptions::new().connect_timeout(limit));
    let channel = connector.connect_lazy().unwrap();
    let status = within(LIMIT, "a call", unary(&channel, 1))
        .await
        .unwrap_err();
    says(
        status.message(),
        &["connected, but the TLS handshake did not end within 200ms"],
    );
    let failed = || channel.status().endpoints[0].failed_dials >= 2;
    wait_until(LIMIT, failed).await;
    let endpoint = channel.status().endpoints.remove(0);
    assert_eq!(endpoint.connection_attempts_succeeded, 0);
    assert_eq!(server.seen().plaintext(), 0);
    drop((channel, server));
    leaks.finish().await;
}

/// A server that is not what it was: no connection is made with less than the endpoint asks for.
#[tokio::test]
async fn a_server_that_forgets_its_certificate_gets_no_calls() {
    let leaks = LeakCheck::start().await;
    let (authority, builder) = pair();
    let server = builder.resumption(false).tcp();
    let soon = trunkline::Backoff::dialling().initial(Duration::from_millis(1));
    let connector = Connector::target(server.uri())
        .tls(Tls::new().ca_pem(authority.pem()))
        .pool(
            PoolOptions::new()
                .connect_timeout(Duration::from_millis(500))
                .max_connection_age(Duration::from_millis(600))
                .dial_backoff(soon),
        );
    let channel = super::connected::connected(connector).await;
    unary(&channel, 1).await.unwrap();
    server.replace(&Authority::new("other").issue().loopback().finish());
    // What is open stays in use as long as its replacement is refused.
    let failed = || channel.status().endpoints[0].connection_attempts_failed >= 2;
    wait_until(LIMIT, failed).await;
    let error = channel.status().endpoints.remove(0).last_error;
    says(&error.unwrap(), &["nobody who is trusted has signed it"]);
    assert_eq!(server.seen().handshakes().len(), 1);
    drop((channel, server));
    leaks.finish().await;
}
