//! Answers to gRPC calls that are not the server's own: the HTTP status of something in front of it, without a
//! `grpc-status`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod client;
mod support;

use std::time::Duration;

use bytes::Bytes;
use client::calls::unary;
use client::health::{said, status};
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use support::body::post;
use support::h2_server::{H2Conn, H2Peer, H2Request};
use support::leak::LeakCheck;
use support::wait::within;
use tonic::Code;
use tonic::body::Body;
use trunkline::{
    Backoff, Channel, Connector, Delivery, Health, HealthCheck, HealthSource, Hedge, History, Retry,
};
use trunkline_proto::{EchoReply, Message as _};

const LIMIT: Duration = Duration::from_secs(10);
const PAGE: &[u8] = b"<p>come back later";

/// Answers as a proxy does whose server is away: with a page, or with a status alone.
fn refuse(mut request: H2Request, status: u16, has_page: bool) {
    let response = Response::builder()
        .status(status)
        .header("content-type", "text/html");
    let response = response.body(()).unwrap();
    let sent = request.respond.send_response(response, !has_page);
    if has_page {
        sent.unwrap()
            .send_data(Bytes::from_static(PAGE), true)
            .unwrap();
    }
}

fn accept(request: H2Request) {
    request.ok(&EchoReply::default().encode_to_vec());
}

async fn connect(adjust: impl FnOnce(Connector) -> Connector) -> (Channel, H2Conn, H2Peer) {
    let peer = H2Peer::tcp();
    let connector = adjust(Connector::target(peer.uri()));
    let (channel, conn) = tokio::join!(connector.connect(), peer.accept());
    (channel.unwrap(), conn, peer)
}

/// One that has not asked about health yet.
async fn connect_lazy(adjust: impl FnOnce(Connector) -> Connector) -> (Channel, H2Conn, H2Peer) {
    let peer = H2Peer::tcp();
    let channel = adjust(Connector::target(peer.uri()))
        .connect_lazy()
        .unwrap();
    (channel, peer.accept().await, peer)
}

/// `UNAVAILABLE` is retried by default, if it says that the request was not processed: that is what 503 and 429 say. A proxy
/// that answers 502 or 504 may have passed it on.
#[tokio::test]
async fn what_a_proxy_says_in_place_of_its_server_is_retried() {
    let leaks = LeakCheck::start().await;
    let (no, maybe) = (Delivery::Answered, Delivery::MaybeProcessed);
    let by_default = Retry::exponential;
    let idempotent = || Retry::exponential().idempotent(true);
    let configured = || Retry::exponential().codes([Code::Unavailable]);
    for (http, has_page, retry, delivery) in [
        (503, true, by_default(), no),
        (503, false, by_default(), no),
        (429, true, by_default(), no),
        (502, true, idempotent(), maybe),
        (504, false, idempotent(), maybe),
        (502, false, configured(), maybe),
        (504, true, configured(), maybe),
    ] {
        let (channel, mut conn, peer) = connect(|it| it.retry(retry)).await;
        let answering = async {
            refuse(conn.next().await, http, has_page);
            let again = conn.next().await;
            assert_eq!(again.header("grpc-previous-rpc-attempts"), Some("1"));
            accept(again);
        };
        let both = async { tokio::join!(channel.send(post(Body::empty())), answering) };
        let (response, ()) = within(LIMIT, "the call", both).await;
        let response = response.unwrap();
        assert_eq!(response.status(), 200, "{http}");
        let history = response.extensions().get::<History>().unwrap().clone();
        let told: Vec<_> = history
            .iter()
            .map(|it| (it.code(), it.delivery(), it.counted()))
            .collect();
        assert_eq!(told, [(Code::Unavailable, delivery, true)], "{http}");
        response.into_body().collect().await.unwrap();
        let stats = channel.stats();
        assert_eq!((stats.retries, stats.failed), (1, 0), "{http}");
        drop((channel, conn, peer));
    }
    leaks.finish().await;
}

/// What is not retried is the caller's as it came, and so is the last answer of all.
#[tokio::test]
async fn what_is_not_retried_comes_through_as_it_is() {
    let leaks = LeakCheck::start().await;
    let soon = Backoff::calls().initial(Duration::from_millis(1));
    let twice = Retry::exponential().attempts(2).backoff(soon);
    for (http, retry, requests) in [
        (503, Retry::none(), 1),
        (503, twice.clone(), 2),
        (502, twice.clone(), 1),
        (504, twice.clone(), 1),
        (500, twice.clone(), 1),
        (404, twice.clone(), 1),
        (401, twice.clone(), 1),
        (400, twice, 1),
    ] {
        let (channel, mut conn, peer) = connect(|it| it.retry(retry)).await;
        let answering = async {
            for _ in 0..requests {
                refuse(conn.next().await, http, true);
            }
        };
        let both = async { tokio::join!(channel.send(post(Body::empty())), answering) };
        let (response, ()) = within(LIMIT, "the call", both).await;
        let response = response.unwrap();
        assert_eq!(response.status().as_u16(), http);
        assert_eq!(response.headers()["content-type"], "text/html");
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), PAGE);
        assert_eq!(channel.stats().failed, 0);
        assert_eq!(channel.status().endpoints[0].in_flight, 0);
        drop((channel, conn, peer));
    }
    leaks.finish().await;
}

/// Each is one fault of its endpoint, whether it has a body or not, and whether that is read or not.
#[tokio::test]
async fn they_count_once_each() {
    let leaks = LeakCheck::start().await;
    for pinned in [false, true] {
        for (http, has_page) in [(503, false), (503, true), (502, true), (504, false)] {
            let (channel, mut conn, peer) = connect(|it| it.retry(Retry::none())).await;
            let pin = channel.acquire().await.unwrap();
            for nth in 1..=5 {
                assert_eq!(status(&channel, 0).health, Health::Healthy, "{nth}");
                let answering = async { refuse(conn.next().await, http, has_page) };
                let calling = async {
                    match pinned {
                        true => pin.send(post(Body::empty())).await,
                        false => channel.send(post(Body::empty())).await,
                    }
                };
                let (response, ()) = tokio::join!(calling, answering);
                let body = response.unwrap().into_body().collect().await.unwrap();
                assert_eq!(body.to_bytes().is_empty(), !has_page);
                let endpoint = channel.status().endpoints.remove(0);
                assert_eq!((endpoint.answered, endpoint.failed), (nth, 0));
            }
            let told = client::health::is(&channel, 0, Health::Tolerated).await;
            let reason = "5 calls in a row failed";
            assert_eq!(said(&told), (Some(HealthSource::Breaker), reason));
            drop((pin, channel, conn, peer));
        }
    }
    leaks.finish().await;
}

/// Another attempt follows at once, and the proxy's answer is not the call's.
#[tokio::test]
async fn a_hedged_call_goes_on_after_one() {
    let leaks = LeakCheck::start().await;
    let never = Duration::from_secs(3600);
    let (channel, mut conn, peer) = connect(|it| {
        it.retry(Retry::exponential().idempotent(true))
            .hedge(Hedge::after(never))
    })
    .await;
    let answering = async {
        refuse(conn.next().await, 503, true);
        accept(conn.next().await);
    };
    let both = async { tokio::join!(unary(&channel, 1), answering) };
    within(LIMIT, "the call", both).await.0.unwrap();
    let stats = channel.stats();
    assert_eq!((stats.hedges, stats.failed), (1, 0));
    drop((channel, conn, peer));
    leaks.finish().await;
}

/// To a question about health it means what it means to a call: 404 is `UNIMPLEMENTED`, so that there is no health service;
/// 403 is `PERMISSION_DENIED`; 503 is a failure.
#[tokio::test]
async fn health_checks_take_it_for_the_code_too() {
    let leaks = LeakCheck::start().await;
    for (http, health) in [
        (404, Health::Healthy),
        (403, Health::Healthy),
        (503, Health::Tolerated),
    ] {
        let tick = Duration::from_millis(100);
        let check = HealthCheck::grpc_check().interval(tick).timeout(LIMIT);
        let check = check.unhealthy_threshold(1);
        let (channel, mut conn, peer) = connect_lazy(|it| it.health_check(check)).await;
        refuse(conn.next().await, http, true);
        // The first failure of a probe only ends the wait for it.
        client::health::is(&channel, 0, Health::Healthy).await;
        if http != 404 {
            refuse(conn.next().await, http, false);
        }
        let told = client::health::is(&channel, 0, health).await;
        if health == Health::Tolerated {
            let reason = "the server answered HTTP 503 Service Unavailable";
            assert_eq!(said(&told), (Some(HealthSource::Probe), reason));
        }
        drop((channel, conn, peer));
    }
    leaks.finish().await;
}

/// grpc-web has its status in the body: its answers are judged as those of other requests are.
#[tokio::test]
async fn grpc_web_is_not_grpc() {
    let leaks = LeakCheck::start().await;
    let (channel, mut conn, peer) = connect(|it| it).await;
    let mut request = post(Body::empty());
    let kind = HeaderValue::from_static("application/grpc-web+proto");
    request.headers_mut().insert("content-type", kind);
    let answering = async {
        let request = conn.next().await;
        assert_eq!(request.header("grpc-timeout"), None);
        refuse(request, 503, true);
    };
    let both = async { tokio::join!(channel.send(request), answering) };
    let (response, ()) = within(LIMIT, "the call", both).await;
    let body = response.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), PAGE);
    assert_eq!(channel.stats().retries, 0);
    drop((channel, conn, peer));
    leaks.finish().await;
}

/// As tonic tells its users of it.
#[tokio::test]
async fn tonic_maps_what_comes_through() {
    let leaks = LeakCheck::start().await;
    let (channel, mut conn, peer) = connect(|it| it.retry(Retry::none())).await;
    let answering = async { refuse(conn.next().await, 503, false) };
    let call = unary(&channel, 1);
    let (result, ()) = tokio::join!(call, answering);
    assert_eq!(result.unwrap_err().code(), Code::Unavailable);
    drop((channel, conn, peer));
    leaks.finish().await;
}

/// They have no `grpc-status` in any case: their answers are responses, as ever.
#[tokio::test]
async fn requests_that_are_not_grpc_are_not_retried() {
    let leaks = LeakCheck::start().await;
    for http in [503, 429] {
        let (channel, mut conn, peer) = connect(|it| it).await;
        let request = Request::get("/page").body(Body::empty()).unwrap();
        let answering = async { refuse(conn.next().await, http, true) };
        let both = async { tokio::join!(channel.send(request), answering) };
        let (response, ()) = within(LIMIT, "the call", both).await;
        let response = response.unwrap();
        assert_eq!(response.status().as_u16(), http);
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), PAGE);
        assert_eq!(channel.stats().retries, 0);
        drop((channel, conn, peer));
    }
    leaks.finish().await;
}

/// The only stream there is goes to the next attempt, although the page has not ended.
#[tokio::test]
async fn a_hedged_call_keeps_no_stream_for_a_page() {
    let leaks = LeakCheck::start().await;
    let peer = H2Peer::tcp();
    let mut one_stream = h2::server::Builder::new();
    one_stream.max_concurrent_streams(1);
    let never = Duration::from_secs(3600);
    let connector = Connector::target(peer.uri())
        .pool(trunkline::PoolOptions::new().max_connections(1))
        .retry(Retry::exponential().idempotent(true))
        .hedge(Hedge::after(never));
    let accepted = peer.accept_with(&one_stream);
    let (channel, mut conn) = tokio::join!(connector.connect(), accepted);
    let channel = channel.unwrap();
    let answering = async {
        let mut refused = conn.next().await;
        let response = Response::builder().status(503).body(()).unwrap();
        let mut page = refused.respond.send_response(response, false).unwrap();
        page.send_data(Bytes::from_static(PAGE), false).unwrap();
        accept(conn.next().await);
        page
    };
    let both = async { tokio::join!(unary(&channel, 1), answering) };
    within(LIMIT, "the call", both).await.0.unwrap();
    drop((channel, conn, peer));
    leaks.finish().await;
}

/// Only the page is lost.
#[tokio::test]
async fn a_hedged_call_ends_with_the_last_one() {
    let leaks = LeakCheck::start().await;
    let never = Duration::from_secs(3600);
    let (channel, mut conn, peer) = connect(|it| {
        it.retry(Retry::exponential().idempotent(true))
            .hedge(Hedge::after(never).attempts(2))
    })
    .await;
    let answering = async {
        refuse(conn.next().await, 503, true);
        refuse(conn.next().await, 503, true);
    };
    let both = async { tokio::join!(unary(&channel, 1), answering) };
    let (result, ()) = within(LIMIT, "the call", both).await;
    assert_eq!(result.unwrap_err().code(), Code::Unavailable);
    assert_eq!(channel.status().endpoints[0].in_flight, 0);
    drop((channel, conn, peer));
    leaks.finish().await;
}
