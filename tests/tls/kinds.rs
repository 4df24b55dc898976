//! Names of one kind do not stand for names of another.

use std::time::Duration;

use trunkline::{Connector, Endpoint, Tls};

use crate::support::leak::LeakCheck;
use crate::tls::authority::{Authority, Issue};
use crate::tls::identity::Identity;
use crate::tls::server::TlsServer;

use super::connected::{connected, refused};

const NAMES: [&str; 3] = [
    "payments.internal",
    "10.9.8.7",
    "spiffe://example.org/payments",
];

async fn refusal(identity: &Identity, tls: Tls) -> String {
    let server = TlsServer::tcp("a", identity);
    refused(Connector::target(server.uri()).tls(tls)).await
}

#[tokio::test]
async fn an_identity_is_compared_with_its_own_kind() {
    let leaks = LeakCheck::start().await;
    let root = Authority::new("root");
    let tls = || Tls::new().ca_pem(root.pem()).allow_sans(NAMES);
    let issue = || root.issue();
    let right: [fn(Issue<'_>) -> Issue<'_>; 4] = [
        |it| it.dns("payments.internal"),
        |it| it.dns("PAYMENTS.internal"),
        |it| it.ip([10, 9, 8, 7].into()),
        |it| it.uri("spiffe://example.org/payments"),
    ];
    for named in right {
        let server = TlsServer::tcp("a", &named(issue()).finish());
        drop(connected(Connector::target(server.uri()).tls(tls())).await);
    }
    let wrong: [fn(Issue<'_>) -> Issue<'_>; 5] = [
        |it| it.uri("payments.internal"),
        |it| it.dns("10.9.8.7"),
        |it| it.uri("10.9.8.7"),
        |it| it.dns("spiffe://example.org/payments"),
        // A SPIFFE certificate has one URI.
        |it| {
            it.uri("spiffe://example.org/payments")
                .uri("spiffe://example.org/shop")
        },
    ];
    for named in wrong {
        let text = refusal(&named(issue()).finish(), tls()).await;
        assert!(text.contains("none of its names"), "{text}");
    }
    leaks.finish().await;
}

/// What an authority may not sign as a DNS name, it may not sign as anything else either.
#[tokio::test]
async fn a_limited_authority_does_not_get_around_its_limits() {
    let leaks = LeakCheck::start().await;
    let root = Authority::new("root");
    let tenant = root.limited_to("tenant", "tenant.internal");
    let tls = || {
        Tls::new()
            .ca_pem(root.pem())
            .allow_sans(["payments.internal", "a.tenant.internal"])
    };
    let inside = TlsServer::tcp("a", &tenant.issue().dns("a.tenant.internal").finish());
    drop(connected(Connector::target(inside.uri()).tls(tls())).await);
    drop(inside);
    for (outside, why) in [
        (
            tenant.issue().dns("payments.internal"),
            "an authority has signed it that may not sign for all of its names",
        ),
        (
            tenant.issue().uri("payments.internal"),
            "none of its names (payments.internal) is allowed",
        ),
    ] {
        let text = refusal(&outside.finish(), tls()).await;
        assert!(text.contains(why), "{text}");
    }
    leaks.finish().await;
}

#[tokio::test]
async fn a_socket_needs_no_name_where_none_is_checked() {
    let leaks = LeakCheck::start().await;
    let tls = Tls::new()
        .ca_pem(Authority::new("root").pem())
        .dangerous()
        .skip_host_names();
    let channel = Connector::endpoints([Endpoint::unix("/nowhere/x.sock")])
        .tls(tls)
        .connect_lazy()
        .unwrap();
    channel.close(Duration::from_secs(1)).await;
    drop(channel);
    leaks.finish().await;
}
