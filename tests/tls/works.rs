//! What works: TCP and Unix sockets, every way to ask for TLS, and what both sides see of each other.

use std::net::Ipv4Addr;

use trunkline::{Certificate, Connector, Endpoint, PoolOptions, Tls, TlsVersion};

use crate::client::calls::unary;
use crate::support::leak::LeakCheck;
use crate::support::scratch::Scratch;
use crate::support::server::EchoServer;
use crate::tls::authority::Authority;
use crate::tls::identity::pem;
use crate::tls::server::{TlsServer, TlsServerBuilder};

use super::connected::{Leads, connected, says, works};

#[tokio::test]
async fn https_is_encrypted_and_says_so() {
    let leaks = LeakCheck::start().await;
    let authority = Authority::new("root");
    let server = TlsServer::tcp("a", &authority.issue().loopback().finish());
    let tls = Tls::new().ca_pem(authority.pem());
    let channel = connected(Connector::target(server.uri()).tls(tls)).await;
    assert_eq!(unary(&channel, 1).await.unwrap().server, "a");
    let seen = server.seen();
    assert_eq!((seen.accepted(), seen.plaintext()), (1, 0));
    assert!(seen.records() >= 4);
    let address = server.addr().to_string();
    assert_eq!(seen.targets(), [("https".to_owned(), address)]);
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn the_connector_or_the_endpoint_asks_for_tls() {
    let leaks = LeakCheck::start().await;
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = TlsServer::tcp("a", &ours.issue().loopback().finish());
    let other = TlsServer::tcp("b", &theirs.issue().loopback().finish());
    let plain = EchoServer::start_tcp("c");
    let tls = || Tls::new().ca_pem(ours.pem());
    let own = Tls::new().ca_pem(theirs.pem());

    works(Connector::tcp(server.named()).tls(tls()), "a").await;
    works(Connector::tcp(server.addr().to_string()).tls(tls()), "a").await;
    works(
        Connector::endpoints([Endpoint::tcp(server.named()).tls(tls())]),
        "a",
    )
    .await;
    // An endpoint's own options go before the channel's, even those of another scheme.
    let endpoint = Endpoint::uri(other.uri()).tls(own.clone());
    works(Connector::endpoints([endpoint]).tls(tls()), "b").await;
    let endpoint = Endpoint::uri(format!("http://{}", other.addr())).tls(own.clone());
    works(Connector::endpoints([endpoint]), "b").await;

    // Each endpoint of a channel in its own way; without a word about TLS there is none.
    let channel = connected(Connector::endpoints([
        Endpoint::tcp(server.addr().to_string()).tls(tls()),
        Endpoint::tcp(other.addr().to_string()).tls(own),
        Endpoint::uri(plain.uri()),
    ]))
    .await;
    super::connected::all_ready(&channel).await;
    let mut names = Vec::new();
    for id in 0..3 {
        names.push(unary(&channel, id).await.unwrap().server);
    }
    names.sort();
    assert_eq!(names, ["a", "b", "c"]);
    let endpoints = channel.status().endpoints;
    let peers: Vec<_> = endpoints.iter().map(|it| it.peer.is_some()).collect();
    assert_eq!(peers, [true, true, false]);
    assert_eq!(server.seen().plaintext() + other.seen().plaintext(), 0);
    drop((channel, server, other, plain));
    leaks.finish().await;
}

#[tokio::test]
async fn unix_sockets_are_encrypted_under_a_name() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let authority = Authority::new("root");
    let identity = authority.issue().dns("plugin.internal").finish();
    let server = TlsServer::builder("a", &identity).unix(scratch.path("a.sock"));
    let tls = Tls::new()
        .ca_pem(authority.pem())
        .server_name("plugin.internal");
    works(Connector::unix(server.path()).tls(tls.clone()), "a").await;
    works(
        Connector::endpoints([Endpoint::unix(server.path()).tls(tls)]),
        "a",
    )
    .await;
    // No name is needed where a certificate or an identity takes its place.
    let tls = Tls::new().pin_certificate(identity.der());
    works(Connector::unix(server.path()).tls(tls), "a").await;
    let tls = Tls::new()
        .ca_pem(authority.pem())
        .allow_sans(["plugin.internal"]);
    works(Connector::unix(server.path()).tls(tls), "a").await;
    let seen = server.seen();
    assert_eq!(seen.plaintext(), 0);
    let target = ("https".to_owned(), "localhost".to_owned());
    assert!(seen.targets().iter().all(|it| *it == target));
    assert_eq!(
        seen.handshakes()[0].server_name.as_deref(),
        Some("plugin.internal")
    );
    drop(server);
    leaks.finish().await;
}

#[tokio::test]
async fn both_sides_show_their_certificates() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let (authority, clients) = (Authority::new("root"), Authority::new("clients"));
    let issue = authority.issue().subject("payments").loopback();
    let identity = issue
        .uri("spiffe://example.org/payments")
        .valid_for_days(20)
        .finish();
    let own = clients
        .issue()
        .subject("shop")
        .for_clients()
        .valid_for_days(40)
        .finish();
    let server = TlsServer::builder("a", &identity)
        .requires_clients_of(&clients)
        .tcp();
    let (chain, key) = own.write(&scratch.path(""), "shop");
    let tls = Tls::production().ca_pem(authority.pem());
    for tls in [
        tls.clone().identity_pem(own.chain_pem(), own.key_pem()),
        tls.clone()
            .identity_pem(own.chain_pem(), own.key_sec1_pem()),
        tls.clone().identity_files(chain, key),
    ] {
        let channel = connected(Connector::target(server.uri()).tls(tls)).await;
        unary(&channel, 1).await.unwrap();
        let status = channel.status().endpoints.remove(0);
        let peer = status.peer.unwrap();
        assert_eq!((&*peer.subject, &*peer.issuer), ("CN=payments", "CN=root"));
        assert_eq!(peer.serial, identity.serial_text());
        let names = ["localhost", "127.0.0.1", "spiffe://example.org/payments"];
        assert_eq!(peer.sans, names);
        assert_eq!(peer.days_left(), 20);
        assert!(peer.not_before < peer.not_after);
        assert_eq!(peer.chain, []);
        let identity = status.identity.unwrap();
        assert_eq!((&*identity.subject, identity.days_left()), ("CN=shop", 40));
        assert_eq!(identity.serial, own.serial_text());
        assert_eq!(status.tls_error, None);
    }
    let handshakes = server.seen().handshakes();
    assert_eq!(handshakes.len(), 3);
    for handshake in handshakes {
        assert_eq!(handshake.client, Some(own.serial_text()));
        assert_eq!(handshake.version, "TLSv1_3");
    }
    drop(server);
    leaks.finish().await;
}

#[tokio::test]
async fn a_certificate_that_is_only_asked_for_may_be_missing() {
    let leaks = LeakCheck::start().await;
    let authority = Authority::new("root");
    let identity = authority.issue().loopback().finish();
    let server = TlsServer::builder("a", &identity)
        .asks_clients_of(&authority)
        .tcp();
    let tls = Tls::new().ca_pem(authority.pem());
    works(Connector::target(server.uri()).tls(tls), "a").await;
    assert_eq!(server.seen().handshakes()[0].client, None);
    drop(server);
    leaks.finish().await;
}

/// The chain comes with its intermediates, and either end of it may be what is trusted.
#[tokio::test]
async fn intermediates_are_followed_to_the_root() {
    let leaks = LeakCheck::start().await;
    let root = Authority::new("root");
    let between = root.intermediate("region");
    let below = between.intermediate("cluster");
    let server = TlsServer::tcp("a", &below.issue().loopback().finish());
    for trusted in [&root, &between, &below] {
        let tls = Tls::new().ca_pem(trusted.pem());
        works(Connector::target(server.uri()).tls(tls), "a").await;
    }
    // Several authorities in one text, and in several.
    let other = Authority::new("other");
    let tls = Tls::new().ca_pem(format!("{}\n{}", other.pem(), root.pem()));
    works(Connector::target(server.uri()).tls(tls), "a").await;
    let tls = Tls::new().ca_pem(root.pem()).ca_pem(other.pem());
    works(Connector::target(server.uri()).tls(tls), "a").await;
    drop(server);
    leaks.finish().await;
}

#[tokio::test]
async fn further_connections_resume_the_session() {
    let leaks = LeakCheck::start().await;
    let authority = Authority::new("root");
    let builder = TlsServer::builder("a", &authority.issue().loopback().finish());
    let tls = Tls::new().ca_pem(authority.pem());
    let versions: [fn(TlsServerBuilder) -> TlsServerBuilder; 2] =
        [TlsServerBuilder::tls12_only, TlsServerBuilder::tls13_only];
    for version in versions {
        for (client, servers, expected) in [(true, true, 3), (false, true, 0), (true, false, 0)] {
            let server = version(builder.clone()).resumption(servers).tcp();
            let connector = Connector::target(server.uri())
                .tls(tls.clone().resumption(client))
                .pool(PoolOptions::new().min_connections(4));
            let channel = connected(connector).await;
            super::connected::connections(&channel, 4).await;
            assert_eq!(unary(&channel, 1).await.unwrap().server, "a");
            let seen = server.seen();
            assert_eq!(seen.handshakes().len(), 4);
            assert_eq!(seen.resumed(), expected, "{:?}", seen.handshakes());
            // A resumed session shows no certificate; it is known from the first one.
            let peer = channel.status().endpoints.remove(0).peer;
            assert_eq!(peer.unwrap().subject, "CN=peer");
            drop((channel, server));
        }
    }
    leaks.finish().await;
}

#[tokio::test]
async fn versions_and_suites_are_chosen() {
    let leaks = LeakCheck::start().await;
    let authority = Authority::new("root");
    let identity = authority.issue().loopback().finish();
    let any = TlsServer::tcp("a", &identity);
    let old = TlsServer::builder("a", &identity).tls12_only().tcp();
    let tls = || Tls::new().ca_pem(authority.pem());
    let ecdhe = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
    let cases = [
        (&any, tls(), "TLSv1_3", None),
        (&old, tls(), "TLSv1_2", None),
        (&any, tls().min_version(TlsVersion::V1_3), "TLSv1_3", None),
        (
            &any,
            Tls::production().ca_pem(authority.pem()),
            "TLSv1_3",
            None,
        ),
        (
            &any,
            tls().cipher_suites(["TLS13_AES_128_GCM_SHA256"]),
            "TLSv1_3",
            Some("TLS13_AES_128_GCM_SHA256"),
        ),
        // As IANA calls it, and in small letters.
        (
            &any,
            tls().cipher_suites(["tls_chacha20_poly1305_sha256"]),
            "TLSv1_3",
            Some("TLS13_CHACHA20_POLY1305_SHA256"),
        ),
        // Only 1.2 has it.
        (&any, tls().cipher_suites([ecdhe]), "TLSv1_2", Some(ecdhe)),
        (
            &old,
            tls().cipher_suites(["TLS13_AES_256_GCM_SHA384", ecdhe]),
            "TLSv1_2",
            Some(ecdhe),
        ),
    ];
    for (server, tls, version, suite) in cases {
        works(Connector::target(server.uri()).tls(tls.clone()), "a").await;
        let last = server.seen().handshakes().pop().unwrap();
        assert_eq!(last.version, version, "{tls:?}");
        if let Some(suite) = suite {
            assert_eq!(last.suite, suite);
        }
    }
    drop((any, old));
    leaks.finish().await;
}

/// The name that is verified comes from the address or from the options; `:authority` is another matter.
#[tokio::test]
async fn names_come_from_the_address_or_the_options() {
    let leaks = LeakCheck::start().await;
    let authority = Authority::new("root");
    let issue = authority.issue().loopback().dns("payments.internal");
    let server = TlsServer::tcp("a", &issue.finish());
    let tls = || Tls::new().ca_pem(authority.pem());
    let named = Endpoint::tcp(server.named()).authority("shop.internal");
    let ip = (Ipv4Addr::LOCALHOST, server.addr().port());
    let cases = [
        (named, tls(), Some("localhost"), "shop.internal".to_owned()),
        // An address is no server name on the wire (RFC 6066, 3), and is verified all the same.
        (
            Endpoint::from(std::net::SocketAddr::from(ip)),
            tls(),
            None,
            server.addr().to_string(),
        ),
        (
            Endpoint::tcp(server.named()),
            tls().server_name("payments.internal"),
            Some("payments.internal"),
            server.named(),
        ),
        (
            Endpoint::tcp(server.named()),
            tls().server_name("127.0.0.1"),
            None,
            server.named(),
        ),
    ];
    for (endpoint, tls, name, authority) in cases {
        works(Connector::endpoints([endpoint]).tls(tls), "a").await;
        let last = server.seen().handshakes().pop().unwrap();
        assert_eq!(last.server_name.as_deref(), name);
        let target = ("https".to_owned(), authority);
        assert_eq!(server.seen().targets().pop(), Some(target));
    }
    // With the dot of a fully qualified name, which certificates do not have. It is for resolvers, and not all take it
    // from the hosts file.
    let dotted = Connector::tcp("payments.internal.:50051").dialer(Leads(server.addr()));
    works(dotted.tls(tls()), "a").await;
    let last = server.seen().handshakes().pop().unwrap();
    assert_eq!(last.server_name.as_deref(), Some("payments.internal"));
    drop(server);
    leaks.finish().await;
}

/// What came along with a certificate is shown with it; and what is in a file can be looked at without a connection.
#[tokio::test]
async fn chains_are_shown() {
    let leaks = LeakCheck::start().await;
    let (authority, clients) = (Authority::new("root"), Authority::new("clients"));
    let region = authority.intermediate("continent").intermediate("region");
    let identity = region.issue().subject("payments").loopback().finish();
    let own = clients.intermediate("team").issue().for_clients().finish();
    let server = TlsServer::builder("a", &identity)
        .requires_clients_of(&clients)
        .tcp();
    let tls = Tls::new()
        .ca_pem(authority.pem())
        .identity_pem(own.chain_pem(), own.key_pem());
    let channel = connected(Connector::target(server.uri()).tls(tls)).await;
    let status = channel.status().endpoints.remove(0);
    let (peer, identity_shown) = (status.peer.unwrap(), status.identity.unwrap());
    let subjects = |chain: &[Certificate]| -> Vec<_> {
        assert!(chain.iter().all(|it| it.chain.is_empty()));
        chain.iter().map(|it| it.subject.clone()).collect()
    };
    assert_eq!(peer.subject, "CN=payments");
    assert_eq!(subjects(&peer.chain), ["CN=region", "CN=continent"]);
    assert_eq!(subjects(&identity_shown.chain), ["CN=team"]);

    let read = Certificate::from_pem(identity.chain_pem() + &authority.pem()).unwrap();
    let all = ["CN=payments", "CN=region", "CN=continent", "CN=root"];
    assert_eq!(subjects(&read), all);
    assert_eq!(read[1..3], peer.chain);
    assert_eq!(read[0].serial, peer.serial);
    for (text, problem) in [
        (String::new(), "certificate: it is empty"),
        (own.key_pem(), "it has a private key and no certificate"),
        (
            authority.pem().replace("END", "AND"),
            "a section has no end",
        ),
        (
            pem("CERTIFICATE", b"nothing"),
            "a certificate in it can't be read",
        ),
    ] {
        let error = Certificate::from_pem(text).unwrap_err();
        assert!(error.is_config());
        says(&error.to_string(), &["certificate: ", problem]);
    }
    drop((channel, server));
    leaks.finish().await;
}
