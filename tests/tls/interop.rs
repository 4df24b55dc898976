//! Servers that share no code with the crate: gRPC's C core, which has BoringSSL, and `openssl`.

use std::time::Duration;

use trunkline::{Connector, PoolOptions, Tls, TlsVersion};
use trunkline_proto::foreign::HandledRequest;
use trunkline_proto::foreign::tally_client::TallyClient;

use crate::client::calls::unary;
use crate::foreign::server::GrpcioServer;
use crate::support::leak::LeakCheck;
use crate::support::scratch::Scratch;
use crate::tls::authority::Authority;
use crate::tls::openssl::{self, OpensslServer};
use crate::tls::server::TlsServer;

use super::connected::{connected, refused, says, works};

#[tokio::test]
async fn grpcio_takes_our_certificate_and_we_take_its() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let (authority, clients) = (Authority::new("root"), Authority::new("clients"));
    let identity = authority.intermediate("region").issue().loopback().finish();
    let (chain, key) = identity.write(&scratch.path(""), "server");
    let root = scratch.path("clients.crt");
    std::fs::write(&root, clients.pem()).unwrap();
    let files = [("chain", &*chain), ("key", &*key), ("clients", &*root)];
    let server = GrpcioServer::tls(&files);
    let tls = || Tls::new().ca_pem(authority.pem());
    let own = clients.intermediate("team").issue().for_clients().finish();
    let known = || tls().identity_pem(own.chain_pem(), own.key_pem());

    let channel = connected(Connector::target(server.uri()).tls(known())).await;
    for id in 1..=20 {
        assert_eq!(unary(&channel, id).await.unwrap().id, id);
    }
    let peer = channel.status().endpoints.remove(0).peer.unwrap();
    assert_eq!(peer.serial, identity.serial_text());
    let only_old = known().cipher_suites(["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"]);
    let old = connected(Connector::target(server.uri()).tls(only_old)).await;
    assert_eq!(unary(&old, 21).await.unwrap().id, 21);

    // It says nothing to that, and closes.
    let text = refused(Connector::target(server.uri()).tls(tls())).await;
    says(
        &text,
        &[
            "no HTTP/2 handshake: connection lost: ",
            "does it want a client certificate? see Tls::identity_files",
        ],
    );
    let stranger = authority.issue().for_clients().finish();
    let stranger = tls().identity_pem(stranger.chain_pem(), stranger.key_pem());
    let text = refused(Connector::target(server.uri()).tls(stranger)).await;
    says(
        &text,
        &[
            "no HTTP/2 handshake: connection lost: ",
            "does it accept this side's certificate?",
        ],
    );
    let other = known().server_name("payments.internal");
    let text = refused(Connector::target(server.uri()).tls(other)).await;
    says(
        &text,
        &["it is not for payments.internal but for", "localhost"],
    );

    let mut tally = TallyClient::new(channel.clone());
    let handled = tally.handled(HandledRequest {}).await.unwrap().into_inner();
    drop(tally);
    assert_eq!((handled.calls, handled.ids, handled.peers), (21, 21, 2));
    drop((channel, old));
    assert!(server.stop().await.success());
    leaks.finish().await;
}

#[tokio::test]
async fn openssl_servers_are_refused_for_what_they_are() {
    let leaks = LeakCheck::start().await;
    if !openssl::is_there() {
        return leaks.finish().await;
    }
    let scratch = Scratch::new();
    let (authority, other) = (Authority::new("root"), Authority::new("other"));
    let (chain, key) = authority
        .issue()
        .loopback()
        .finish()
        .write(&scratch.path(""), "server");
    let root = scratch.path("clients.crt");
    std::fs::write(&root, other.pem()).unwrap();
    let root = root.to_str().unwrap();
    let tls = || Tls::new().ca_pem(authority.pem());
    let new = || tls().min_version(TlsVersion::V1_3);
    let suite = |name: &str| tls().cipher_suites([name]);
    let no_version = "none of the allowed versions of TLS";
    let no_h2 = "the server does not offer HTTP/2 (ALPN h2)";
    let weak = "DEFAULT@SECLEVEL=0";
    let own = authority.issue().for_clients().finish();
    let stranger = tls().identity_pem(own.chain_pem(), own.key_pem());
    let cases: &[(&[&str], Tls, &str)] = &[
        (&["-alpn", "h2", "-tls1_2"], new(), no_version),
        (
            &["-alpn", "h2", "-tls1_1", "-cipher", weak],
            tls(),
            no_version,
        ),
        (
            &["-alpn", "h2", "-tls1", "-cipher", weak],
            tls(),
            no_version,
        ),
        (&[], tls(), no_h2),
        (&["-alpn", "http/1.1"], tls(), no_h2),
        (
            &[
                "-alpn",
                "h2",
                "-tls1_3",
                "-ciphersuites",
                "TLS_AES_128_GCM_SHA256",
            ],
            suite("TLS_AES_256_GCM_SHA384"),
            "the server refuses: there is no common version, cipher suite or signature",
        ),
        (
            &[
                "-alpn",
                "h2",
                "-tls1_2",
                "-cipher",
                "ECDHE-ECDSA-AES128-SHA",
            ],
            tls(),
            "the server refuses: there is no common version, cipher suite or signature",
        ),
        (
            &[
                "-alpn",
                "h2",
                "-tls1_3",
                "-Verify",
                "1",
                "-verify_return_error",
                "-CAfile",
                root,
            ],
            tls(),
            "the server refuses: it wants a client certificate (Tls::identity_files)",
        ),
        (
            &[
                "-alpn",
                "h2",
                "-tls1_3",
                "-Verify",
                "1",
                "-verify_return_error",
                "-CAfile",
                root,
            ],
            stranger,
            "the server refuses: nobody whom it trusts has signed the client certificate",
        ),
    ];
    for (arguments, tls, expected) in cases {
        let server = OpensslServer::start(&chain, &key, arguments);
        let text = refused(Connector::tcp(server.address()).tls(tls.clone())).await;
        println!("openssl s_server {}: {text}", arguments.join(" "));
        says(&text, &[expected]);
    }
    leaks.finish().await;
}

/// Keys as people have them: RSA in both encodings, other curves, encrypted ones.
#[tokio::test]
async fn keys_that_openssl_made() {
    let leaks = LeakCheck::start().await;
    if !openssl::is_there() {
        return leaks.finish().await;
    }
    let authority = Authority::new("root");
    let identity = authority.issue().loopback().finish();
    let server = TlsServer::builder("a", &identity)
        .requires_clients_of(&authority)
        .tcp();
    let scratch = Scratch::new();
    let file = scratch.path("key.pem");
    let path = file.to_str().unwrap();
    let tls = || Tls::new().ca_pem(authority.pem());
    let curve = |name: &str| format!("ec_paramgen_curve:{name}");
    let (p256, p384) = (curve("P-256"), curve("P-384"));
    let kinds: &[&[&str]] = &[
        &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        &["EC", "-pkeyopt", &p256],
        &["EC", "-pkeyopt", &p384],
        &["ED25519"],
    ];
    for kind in kinds {
        let made = [&["genpkey", "-algorithm"], *kind].concat();
        std::fs::write(&file, openssl::run(&made)).unwrap();
        let key = std::fs::read_to_string(&file).unwrap();
        let own = authority.issue().key_pem(&key).for_clients().finish();
        let works_with = async |key: String| {
            let tls = tls().identity_pem(own.chain_pem(), key);
            works(Connector::target(server.uri()).tls(tls), "a").await;
            let last = server.seen().handshakes().pop().unwrap();
            assert_eq!(last.client, Some(own.serial_text()));
        };
        works_with(key).await;
        // PKCS#1 and SEC1; the last kind has no older form.
        if kind[0] != "ED25519" {
            let old = openssl::run(&["pkey", "-in", path, "-traditional"]);
            assert!(old.contains("BEGIN RSA PRIVATE KEY") || old.contains("BEGIN EC PRIVATE KEY"));
            works_with(old).await;
        }
        let encrypted = openssl::run(&["pkey", "-in", path, "-aes256", "-passout", "pass:secret"]);
        let tls = tls().identity_pem(own.chain_pem(), encrypted);
        let error = Connector::target(server.uri())
            .tls(tls)
            .connect_lazy()
            .unwrap_err();
        assert!(error.is_config());
        says(
            &error.to_string(),
            &[
                "tls.identity: ",
                "the key is encrypted; decrypt it (openssl pkey)",
            ],
        );
    }
    drop(server);
    leaks.finish().await;
}

/// ring does not know the curve, AWS-LC does.
#[tokio::test]
async fn p521_needs_a_feature() {
    let leaks = LeakCheck::start().await;
    if !openssl::is_there() {
        return leaks.finish().await;
    }
    let scratch = Scratch::new();
    let (chain, key) = (scratch.path("own.crt"), scratch.path("own.key"));
    let files = [
        "-keyout",
        key.to_str().unwrap(),
        "-out",
        chain.to_str().unwrap(),
    ];
    let made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-521 -nodes -days 2 -subj /CN=a \
                -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:false";
    let made: Vec<_> = made
        .split(' ')
        .filter(|it| !it.is_empty())
        .chain(files)
        .collect();
    openssl::run(&made);
    let own = Tls::new().ca_file(&chain).identity_files(&chain, &key);
    let channel = Connector::tcp("localhost:1").tls(own).connect_lazy();
    let server = OpensslServer::start(&chain, &key, &["-alpn", "h2"]);
    let soon = PoolOptions::new().connect_timeout(Duration::from_millis(500));
    let connector = Connector::tcp(server.address()).tls(Tls::new().ca_file(&chain));
    let text = refused(connector.pool(soon)).await;
    if cfg!(feature = "aws-lc-rs") {
        assert!(channel.is_ok(), "{channel:?}");
        // The handshake is through; this server speaks no HTTP/2.
        says(&text, &["connected, but no HTTP/2 SETTINGS came"]);
    } else {
        let hint = "a P-521 key needs the feature aws-lc-rs";
        let error = channel.as_ref().unwrap_err();
        assert!(error.is_config());
        says(
            &error.to_string(),
            &["tls.identity: ", key.to_str().unwrap(), hint],
        );
        says(&text, &[hint]);
    }
    drop((channel, server));
    leaks.finish().await;
}
