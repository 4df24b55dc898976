//! Other grounds for trust than a host's name: identities, pinned certificates, and none at all.

use trunkline::{Connector, Tls};

use crate::support::leak::LeakCheck;
use crate::tls::authority::Authority;
use crate::tls::identity::Identity;
use crate::tls::server::TlsServer;

use super::connected::{Leads, refused, says, works};

const PAYMENTS: &str = "spiffe://example.org/payments";

/// A channel to a server with this certificate, under the name `payments.internal`.
fn to(server: &TlsServer, tls: Tls) -> Connector {
    Connector::tcp("payments.internal:443")
        .dialer(Leads(server.addr()))
        .tls(tls)
}

async fn accepted(identity: &Identity, tls: Tls) {
    let server = TlsServer::tcp("a", identity);
    works(to(&server, tls), "a").await;
}

async fn refusal(identity: &Identity, tls: Tls) -> String {
    let server = TlsServer::tcp("a", identity);
    let text = refused(to(&server, tls)).await;
    let seen = server.seen();
    assert_eq!((seen.plaintext(), seen.targets()), (0, Vec::new()));
    text
}

#[tokio::test]
async fn one_of_the_identities_is_enough_and_needed() {
    let leaks = LeakCheck::start().await;
    let (authority, other) = (Authority::new("root"), Authority::new("other"));
    let tls = || Tls::new().ca_pem(authority.pem());
    let spiffe = authority.issue().uri(PAYMENTS).finish();
    let several = authority
        .issue()
        .dns("a.internal")
        .uri(PAYMENTS)
        .ip([10, 0, 0, 1].into())
        .finish();

    accepted(&spiffe, tls().allow_sans([PAYMENTS])).await;
    accepted(
        &spiffe,
        tls().allow_sans(["spiffe://example.org/shop", PAYMENTS]),
    )
    .await;
    accepted(
        &several,
        tls().allow_sans(["shop.internal"]).allow_sans([PAYMENTS]),
    )
    .await;
    accepted(&several, tls().allow_sans(["a.internal"])).await;
    accepted(&several, tls().allow_sans(["10.0.0.1"])).await;
    // The host's name does not matter then: neither for it nor against it.
    let named = authority.issue().dns("payments.internal").finish();
    let text = refusal(&named, tls().allow_sans([PAYMENTS])).await;
    assert_eq!(
        text,
        "the server's certificate is refused: none of its names (payments.internal) is allowed"
    );
    for near in [
        "spiffe://example.org/payments/",
        "spiffe://example.org/payment",
        "spiffe://example.org/Payments",
        "spiffe://example.org",
    ] {
        let text = refusal(&spiffe, tls().allow_sans([near])).await;
        says(
            &text,
            &["none of its names (spiffe://example.org/payments) is allowed"],
        );
    }
    // To the letter: a certificate with a wildcard is not one for all that it covers.
    let wild = authority.issue().dns("*.internal").finish();
    says(
        &refusal(&wild, tls().allow_sans(["a.internal"])).await,
        &["(*.internal)"],
    );
    // Nor does a common name make an identity.
    let common = authority.issue().subject(PAYMENTS).finish();
    says(
        &refusal(&common, tls().allow_sans([PAYMENTS])).await,
        &["none of its names (none)"],
    );
    // A message does not grow with the certificate.
    let many = (0..200).fold(authority.issue(), |it, nth| {
        it.dns(&format!("{nth}.internal"))
    });
    let text = refusal(&many.finish(), tls().allow_sans([PAYMENTS])).await;
    says(&text, &["7.internal and 192 more"]);

    // All else is verified as ever.
    let stranger = other.issue().uri(PAYMENTS).finish();
    let text = refusal(&stranger, tls().allow_sans([PAYMENTS])).await;
    says(&text, &["nobody who is trusted has signed it"]);
    let old = authority.issue().uri(PAYMENTS).expired_days_ago(2).finish();
    says(
        &refusal(&old, tls().allow_sans([PAYMENTS])).await,
        &["it expired 2 days ago"],
    );
    let revoked = tls()
        .allow_sans([PAYMENTS])
        .crl_pem(authority.revoke(&[&spiffe]));
    says(&refusal(&spiffe, revoked).await, &["it is revoked"]);
    let client = authority.issue().uri(PAYMENTS).for_clients().finish();
    says(
        &refusal(&client, tls().allow_sans([PAYMENTS])).await,
        &["it is not meant for servers"],
    );
    leaks.finish().await;
}

#[tokio::test]
async fn a_pinned_certificate_and_no_other() {
    let leaks = LeakCheck::start().await;
    let authority = Authority::new("root");
    let pin = |identity: &Identity| Tls::new().pin_certificate(identity.der());
    let own = authority.issue().self_signed();
    accepted(&own, pin(&own)).await;
    // Whatever else speaks against it.
    let old = authority.issue().expired_days_ago(2).self_signed();
    accepted(&old, pin(&old)).await;
    let above = authority.issue().authority().self_signed();
    accepted(&above, pin(&above)).await;
    // One of several.
    accepted(&own, pin(&old).pin_certificate(own.der())).await;
    let refusal_of_pin = "the server's certificate is refused: it is not the pinned one";
    assert_eq!(refusal(&own, pin(&old)).await, refusal_of_pin);
    // What a pinned certificate has signed is not pinned, nor is another for the same key.
    let below = authority.issue().finish();
    let root = Tls::new().pin_certificate(authority.der());
    assert_eq!(refusal(&below, root).await, refusal_of_pin);
    // Not somewhere in the chain, either.
    let beside = own.followed_by(old.chain());
    assert_eq!(refusal(&beside, pin(&old)).await, refusal_of_pin);
    leaks.finish().await;
}

/// Without being pinned, the certificate of an authority is none of a server.
#[tokio::test]
async fn an_authority_is_no_server() {
    let leaks = LeakCheck::start().await;
    let authority = Authority::new("root");
    let above = authority
        .issue()
        .dns("payments.internal")
        .authority()
        .self_signed();
    let tls = Tls::new().ca_pem(above.chain_pem());
    let text = refusal(&above, tls).await;
    says(
        &text,
        &["it is the certificate of an authority; pin it (pin_certificate)"],
    );
    leaks.finish().await;
}

#[tokio::test]
async fn names_are_skipped_only_by_a_dangerous_word() {
    let leaks = LeakCheck::start().await;
    let (authority, other) = (Authority::new("root"), Authority::new("other"));
    let careless = || {
        Tls::new()
            .ca_pem(authority.pem())
            .dangerous()
            .skip_host_names()
    };
    accepted(&authority.issue().dns("shop.internal").finish(), careless()).await;
    accepted(&authority.issue().finish(), careless()).await;
    // It can be seen, from outside too.
    let shown = format!("{:?}", careless());
    says(&shown, &["dangerous", "host names are not checked"]);
    says(
        &format!("{:?}", Connector::tcp("a:1").tls(careless())),
        &["host names are not checked"],
    );
    assert!(!format!("{:?}", Tls::new()).contains("dangerous"));
    // The chain is verified as ever.
    let stranger = other.issue().dns("payments.internal").finish();
    says(
        &refusal(&stranger, careless()).await,
        &["nobody who is trusted has signed it"],
    );
    let old = authority.issue().expired_days_ago(2).finish();
    says(&refusal(&old, careless()).await, &["it expired 2 days ago"]);
    // Identities are a rule of their own.
    let named = authority.issue().dns("shop.internal").finish();
    let text = refusal(&named, careless().allow_sans([PAYMENTS])).await;
    says(&text, &["none of its names (shop.internal) is allowed"]);
    leaks.finish().await;
}
