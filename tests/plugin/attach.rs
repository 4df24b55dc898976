//! Automatic mutual TLS with a server that is set up as go-plugin's are, in the cryptography of ring.

use trunkline::plugin::{Identity, MAX_MESSAGE_SIZE};
use trunkline::{Connector, Endpoint};
use trunkline_proto::EchoRequest;
use trunkline_proto::echo_client::EchoClient;

use crate::connected::{connected, refused, says, works};
use crate::support::calls::request;
use crate::support::leak::LeakCheck;
use crate::support::scratch::Scratch;
use crate::tls::authority::Authority;
use crate::tls::server::TlsServer;

use super::line::{encoded, like_gos, line};

#[tokio::test]
async fn both_sides_are_who_they_were() {
    let leaks = LeakCheck::start().await;
    let (identity, stranger) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let authority = Authority::new("unused");
    let own = like_gos(&authority).self_signed();
    let server = TlsServer::builder("plugin", &own)
        .requires_client(identity.certificate_pem())
        .tcp();
    let line = line(&server, &own);
    let to = |endpoint| Connector::endpoints([endpoint]);

    let channel = connected(to(Endpoint::from_handshake_with(&line, &identity).unwrap())).await;
    let reply = EchoClient::new(channel.clone()).unary(request(1)).await;
    assert_eq!(reply.unwrap().into_inner().server, "plugin");
    let status = channel.status().endpoints.remove(0);
    assert_eq!(status.peer.unwrap().serial, own.serial_text());
    assert_eq!(status.identity.unwrap().subject, "CN=localhost");
    let target = ("https".to_owned(), "localhost".to_owned());
    assert_eq!(server.seen().targets(), [target]);
    let handshake = server.seen().handshakes().remove(0);
    assert_eq!(handshake.server_name.as_deref(), Some("localhost"));
    assert_eq!(handshake.version, "TLSv1_3");

    // Other hosts: without an identity, and with one of their own.
    let nobody = Endpoint::from_handshake(&line).unwrap();
    says(
        &refused(to(nobody)).await,
        &["it wants a client certificate"],
    );
    let other = Endpoint::from_handshake_with(&line, &stranger).unwrap();
    says(&refused(to(other)).await, &["the client certificate"]);

    // Another plugin in its place, though its certificate says the same.
    let next = like_gos(&authority).self_signed();
    let impostor = TlsServer::builder("impostor", &next)
        .requires_client(identity.certificate_pem())
        .tcp();
    let claimed = super::line::line(&impostor, &own);
    let endpoint = Endpoint::from_handshake_with(&claimed, &identity).unwrap();
    assert_eq!(
        refused(to(endpoint)).await,
        "the server's certificate is refused: it is not the pinned one"
    );
    let seen = impostor.seen();
    assert_eq!((seen.plaintext(), seen.targets()), (0, Vec::new()));
    drop((channel, server, impostor));
    leaks.finish().await;
}

#[tokio::test]
async fn a_unix_socket_and_the_older_tls() {
    let leaks = LeakCheck::start().await;
    let folder = Scratch::new();
    let identity = Identity::generate().unwrap();
    let own = like_gos(&Authority::new("unused")).self_signed();
    let server = TlsServer::builder("plugin", &own)
        .requires_client(identity.certificate_pem())
        .tls12_only()
        .unix(folder.path("plugin"));
    let (path, der) = (server.path().display(), encoded(&own.der()));
    let line = format!("1|1|unix|{path}|grpc|{der}|false\n");
    let endpoint = Endpoint::from_handshake_with(&line, &identity).unwrap();
    works(Connector::endpoints([endpoint]), "plugin").await;
    drop(server);
    leaks.finish().await;
}

/// Both ways, and only with the setting that the documentation names.
#[tokio::test]
async fn messages_may_be_larger_than_tonic_takes() {
    let leaks = LeakCheck::start().await;
    let identity = Identity::generate().unwrap();
    let own = like_gos(&Authority::new("unused")).self_signed();
    let server = TlsServer::builder("plugin", &own)
        .requires_client(identity.certificate_pem())
        .tcp();
    let endpoint = Endpoint::from_handshake_with(&line(&server, &own), &identity).unwrap();
    let channel = connected(Connector::endpoints([endpoint])).await;
    let large = EchoRequest {
        payload: vec![7; 5 * 1024 * 1024],
        ..request(1)
    };
    let mut lifted = EchoClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_SIZE);
    let reply = lifted.unary(large.clone()).await.unwrap().into_inner();
    assert!(reply.payload == large.payload);
    let refused = EchoClient::new(channel.clone()).unary(large).await;
    assert_eq!(refused.unwrap_err().code(), tonic::Code::OutOfRange);
    drop((channel, lifted, server));
    leaks.finish().await;
}
