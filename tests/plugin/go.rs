//! A plugin that is written in Go, with go-plugin itself. Skipped where `scripts/go-plugin` has not built it.

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use trunkline::plugin::{CLIENT_CERTIFICATE, Handshake, Identity, MAX_MESSAGE_SIZE};
use trunkline::{Connector, Endpoint};
use trunkline_proto::EchoRequest;
use trunkline_proto::echo_client::EchoClient;

use crate::client::calls::unary;
use crate::connected::{connected, refused, says};
use crate::foreign::plugin::Plugin;
use crate::support::calls::request;
use crate::support::leak::LeakCheck;
use crate::support::scratch::Scratch;

fn skipped() {
    println!("skipped: there is no plugin in Go; run scripts/go-plugin");
}

async fn works(endpoint: Endpoint) {
    let service = endpoint.health_service_name().unwrap().to_owned();
    let channel = connected(Connector::endpoints([endpoint])).await;
    // Of another name it would say that it is not found.
    let mut client = HealthClient::new(channel.clone());
    let health = client
        .check(HealthCheckRequest { service })
        .await
        .unwrap()
        .into_inner()
        .status();
    assert_eq!(health, ServingStatus::Serving);
    for id in 1..=20 {
        assert_eq!(unary(&channel, id).await.unwrap().server, "go-plugin");
    }
    drop((channel, client));
}

/// Its keys are on P-521, which ring does not know.
#[cfg(feature = "aws-lc-rs")]
#[tokio::test]
async fn it_is_attached_to_with_automatic_mutual_tls() {
    let leaks = LeakCheck::start().await;
    for identity in [Identity::generate(), Identity::generate_p521()] {
        let (folder, identity) = (Scratch::new(), identity.unwrap());
        let environment = [
            ("PLUGIN_PROTOCOL_VERSIONS", "1"),
            (CLIENT_CERTIFICATE, identity.certificate_pem()),
        ];
        let Some(plugin) = Plugin::go(&folder.path(""), &environment) else {
            skipped();
            break;
        };
        let handshake = Handshake::parse(plugin.line()).unwrap();
        assert!(handshake.certificate.is_some());
        assert_eq!(handshake.protocol_version, 1);
        works(Endpoint::from_handshake_with(plugin.line(), &identity).unwrap()).await;

        let stranger = Identity::generate().unwrap();
        let other = Endpoint::from_handshake_with(plugin.line(), &stranger).unwrap();
        let text = refused(Connector::endpoints([other])).await;
        says(&text, &["the server refuses: "]);
        let nobody = Endpoint::from_handshake(plugin.line()).unwrap();
        let text = refused(Connector::endpoints([nobody])).await;
        says(&text, &["the server refuses: "]);
        assert!(plugin.stop().await.success());
    }
    leaks.finish().await;
}

/// A plugin takes requests of 4 MiB, unless it was made otherwise; its host lifts both limits for itself.
#[tokio::test]
async fn without_a_certificate_it_speaks_plaintext() {
    let leaks = LeakCheck::start().await;
    let folder = Scratch::new();
    let Some(plugin) = Plugin::go(&folder.path(""), &[]) else {
        skipped();
        return leaks.finish().await;
    };
    let endpoint = Endpoint::from_handshake(plugin.line()).unwrap();
    works(endpoint.clone()).await;
    let channel = connected(Connector::endpoints([endpoint])).await;
    let mut client = EchoClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_SIZE);
    let large = EchoRequest {
        payload: vec![7; 5 * 1024 * 1024],
        ..request(1)
    };
    let status = client.unary(large).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
    drop((channel, client));
    assert!(plugin.stop().await.success());
    leaks.finish().await;
}
