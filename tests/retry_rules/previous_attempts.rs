//! `grpc-previous-rpc-attempts`: what a server is told about the attempts before.

use std::future::Future;

use h2::Reason;
use http::{Method, Request};
use tonic::body::Body;
use trunkline::{Channel, Connector};

use super::{LIMIT, send};
use crate::client::pair::quick;
use crate::support::h2_server::{H2Conn, H2Peer, H2Request};
use crate::support::leak::LeakCheck;
use crate::support::wait::within;

const HEADER: &str = "grpc-previous-rpc-attempts";

/// How a server ends an attempt.
#[derive(Clone, Copy, Debug)]
enum End {
    Unavailable,
    Refuse,
    Reset,
    Ok,
}

fn end(request: H2Request, end: End) {
    match end {
        End::Unavailable => request.fail(14, "asked to fail"),
        End::Refuse => request.reset(Reason::REFUSED_STREAM),
        End::Reset => request.reset(Reason::INTERNAL_ERROR),
        End::Ok => request.ok(&[]),
    }
}

/// Ends the attempts of one call like this, and gives what the header was in each.
async fn told(
    conn: &mut H2Conn,
    ends: &[End],
    call: impl Future<Output = ()>,
) -> Vec<Option<String>> {
    let serve = async {
        let mut told = Vec::new();
        for &how in ends {
            let request = conn.next().await;
            told.push(request.header(HEADER).map(str::to_owned));
            end(request, how);
        }
        told
    };
    let (told, ()) = tokio::join!(serve, within(LIMIT, "the call", call));
    told
}

async fn connected(peer: &H2Peer) -> (Channel, H2Conn) {
    let retry = quick().attempts(5).idempotent(true);
    let connecting = Connector::target(peer.uri()).retry(retry).connect();
    let (channel, conn) = tokio::join!(connecting, peer.accept());
    (channel.unwrap(), conn)
}

#[tokio::test]
async fn a_server_is_told_how_many_attempts_came_before() {
    use End::{Ok, Refuse, Reset, Unavailable};
    let leaks = LeakCheck::start().await;
    let peer = H2Peer::tcp();
    let (channel, mut conn) = connected(&peer).await;
    let cases: [(&[End], &[Option<&str>]); 5] = [
        (&[Ok], &[None]),
        (&[Unavailable, Reset, Ok], &[None, Some("1"), Some("2")]),
        (
            &[Unavailable; 5],
            &[None, Some("1"), Some("2"), Some("3"), Some("4")],
        ),
        // A resend is the same attempt once more.
        (&[Refuse, Unavailable, Ok], &[None, None, Some("1")]),
        // Only the first refusal is free.
        (
            &[Unavailable, Refuse, Refuse, Ok],
            &[None, Some("1"), Some("1"), Some("2")],
        ),
    ];
    for (id, (ends, expected)) in (1..).zip(cases) {
        let call = async { drop(send(&channel, id).await.unwrap()) };
        let told = told(&mut conn, ends, call).await;
        let told: Vec<_> = told.iter().map(Option::as_deref).collect();
        assert_eq!(told, expected, "{ends:?}");
    }
    drop((channel, conn, peer));
    leaks.finish().await;
}

/// It is a header of gRPC's.
#[tokio::test]
async fn other_requests_do_not_have_it() {
    let leaks = LeakCheck::start().await;
    let peer = H2Peer::tcp();
    let (channel, mut conn) = connected(&peer).await;
    let call = async {
        let request = Request::builder().method(Method::GET).uri("/thing");
        let request = request.body(Body::empty()).unwrap();
        drop(channel.send(request).await.unwrap());
    };
    let told = told(&mut conn, &[End::Reset, End::Reset, End::Ok], call).await;
    assert_eq!(told, [None, None, None]);
    assert_eq!(channel.stats().retries, 2);
    drop((channel, conn, peer));
    leaks.finish().await;
}
