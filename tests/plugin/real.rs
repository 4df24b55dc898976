//! A plugin that shares no code with the crate: pyvider-rpcplugin, as go-plugin's hosts start it.

use trunkline::plugin::{CLIENT_CERTIFICATE, Handshake, Identity, MAX_MESSAGE_SIZE, Reattach};
use trunkline::{Connector, Endpoint};
use trunkline_proto::EchoRequest;
use trunkline_proto::echo_client::EchoClient;

use crate::client::calls::unary;
use crate::connected::{connected, refused, says};
use crate::foreign::plugin::Plugin;
use crate::support::calls::request;
use crate::support::leak::LeakCheck;
use crate::support::scratch::Scratch;

#[tokio::test]
async fn it_is_attached_to_with_automatic_mutual_tls() {
    let leaks = LeakCheck::start().await;
    for network in ["unix", "tcp"] {
        let folder = Scratch::new();
        let identity = Identity::generate().unwrap();
        // By itself it asks no client for a certificate, because gRPC's C core takes no key that Go's hosts have. It takes
        // ours.
        let environment = [
            (CLIENT_CERTIFICATE, identity.certificate_pem()),
            ("PLUGIN_CLIENT_ROOT_CERTS", identity.certificate_pem()),
        ];
        let plugin = Plugin::start(network, &folder.path(""), &environment);
        let handshake = Handshake::parse(plugin.line()).unwrap();
        assert_eq!(handshake.protocol_version, 1);
        assert_eq!(handshake.address.as_tcp().is_some(), network == "tcp");
        let endpoint = Endpoint::from_handshake_with(plugin.line(), &identity).unwrap();
        let channel = connected(Connector::endpoints([endpoint])).await;
        for id in 1..=20 {
            assert_eq!(unary(&channel, id).await.unwrap().id, id);
        }
        let large = EchoRequest {
            payload: vec![7; 5 * 1024 * 1024],
            ..request(21)
        };
        let mut client =
            EchoClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_SIZE);
        let reply = client.unary(large.clone()).await.unwrap().into_inner();
        assert!(reply.payload == large.payload);

        let stranger = Identity::generate().unwrap();
        let other = Endpoint::from_handshake_with(plugin.line(), &stranger).unwrap();
        let text = refused(Connector::endpoints([other])).await;
        says(&text, &["does it accept this side's certificate?"]);
        let nobody = Endpoint::from_handshake(plugin.line()).unwrap();
        let text = refused(Connector::endpoints([nobody])).await;
        says(&text, &["does it want a client certificate?"]);
        drop((channel, client));
        assert!(plugin.stop().await.success());
    }
    leaks.finish().await;
}

#[tokio::test]
async fn without_a_certificate_it_speaks_plaintext() {
    let leaks = LeakCheck::start().await;
    let folder = Scratch::new();
    let plugin = Plugin::start("unix", &folder.path(""), &[]);
    let identity = Identity::generate().unwrap();
    let error = Endpoint::from_handshake_with(plugin.line(), &identity).unwrap_err();
    says(
        &error.to_string(),
        &["handshake.certificate: the plugin has sent none"],
    );
    let endpoint = Endpoint::from_handshake(plugin.line()).unwrap();
    let path = plugin.line().split('|').nth(3).unwrap();
    let record = Reattach::new("grpc", "unix", path, plugin.pid()).unwrap();
    for endpoint in [endpoint, record.endpoint()] {
        let channel = connected(Connector::endpoints([endpoint])).await;
        assert_eq!(unary(&channel, 1).await.unwrap().server, "grpcio");
    }
    assert!(plugin.stop().await.success());
    leaks.finish().await;
}
