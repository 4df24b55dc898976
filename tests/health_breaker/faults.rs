//! What counts as a fault, and what does not.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use tonic::Code;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::Service;
use trunkline::{CallOptions, Connector, Endpoint, Health, HealthSource, Retry, State};
use trunkline_proto::EchoRequest;
use trunkline_proto::echo_client::EchoClient;

use super::rig::{LIMIT, NEVER, Rig, for_good};
use crate::client::calls::{ask, endpoint, hang};
use crate::client::health::{self, about, are, is, said, shares, spread, status};
use crate::support::calls::request;
use crate::support::frames::code;
use crate::support::leak::LeakCheck;
use crate::support::raw_peer::RawPeer;
use crate::support::reaction::Reaction;
use crate::support::server::EchoServer;
use crate::support::wait::{wait_equal, wait_until};

const FAULTS: [Code; 5] = [
    Code::Unavailable,
    Code::Internal,
    Code::Unknown,
    Code::DataLoss,
    Code::DeadlineExceeded,
];

#[tokio::test]
async fn five_faults_in_a_row_eject() {
    for code in FAULTS {
        let leaks = LeakCheck::start().await;
        let rig = Rig::with(2, for_good()).await;
        rig.servers[0].behaviour().fail(1.0, code);
        about(&spread(&rig.channel, &rig.servers, 8).await, &[4, 4]);
        assert_eq!(status(&rig.channel, 0).health, Health::Healthy, "four");
        about(&spread(&rig.channel, &rig.servers, 2).await, &[1, 1]);
        let told = is(&rig.channel, 0, Health::Ejected).await;
        let reason = "5 calls in a row failed";
        assert_eq!(said(&told), (Some(HealthSource::Breaker), reason));
        let total = told.for_how_long + told.changes_in.unwrap();
        assert!((NEVER..=NEVER.mul_f64(1.2)).contains(&total), "{total:?}");
        assert_eq!(told.observed, []);

        // None of the calls comes to it, and its connection stays.
        about(&shares(&rig.channel, &rig.servers, 30).await, &[0, 30]);
        let endpoint = health::endpoint(&rig.channel, 0);
        assert_eq!((endpoint.state, endpoint.connections), (State::Ready, 1));
        assert_eq!(endpoint.answered, 5);
        assert_eq!(rig.servers[0].journal().accepted(), 1);
        assert_eq!(rig.servers[0].journal().open(), 1);
        assert!(!rig.channel.status().panic);
        assert_eq!(status(&rig.channel, 1).health, Health::Healthy);
        drop(rig);
        leaks.finish().await;
    }
}

/// One success between them, and they are not in a row.
#[tokio::test]
async fn faults_that_are_not_in_a_row_need_a_share() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::with(2, for_good()).await;
    // Two of ten, evenly spread: that many succeed as must.
    rig.servers[0].behaviour().fail(0.2, Code::Internal);
    about(&spread(&rig.channel, &rig.servers, 100).await, &[50, 50]);
    assert_eq!(status(&rig.channel, 0).health, Health::Healthy);
    // Three of ten is too many, soon.
    rig.servers[0].behaviour().fail(0.5, Code::Internal);
    let mut calls = 0;
    while status(&rig.channel, 0).health == Health::Healthy {
        calls += spread(&rig.channel, &rig.servers, 2).await[0];
        assert!(calls < 50);
    }
    let told = is(&rig.channel, 0, Health::Ejected).await;
    let (source, reason) = said(&told);
    assert_eq!(source, Some(HealthSource::Breaker));
    let total = 50 + calls;
    let ending = format!(" of the last {total} calls failed");
    assert!(reason.ends_with(&ending), "{reason}");
    about(&shares(&rig.channel, &rig.servers, 20).await, &[0, 20]);
    drop(rig);
    leaks.finish().await;
}

#[tokio::test]
async fn three_of_ten_eject_once_there_are_ten() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::with(2, for_good()).await;
    rig.servers[0].behaviour().fail(0.3, Code::Unavailable);
    let mut calls = 0;
    while status(&rig.channel, 0).health == Health::Healthy {
        calls += spread(&rig.channel, &rig.servers, 2).await[0];
        assert!(calls < 20);
    }
    assert!(calls >= 10, "{calls} calls");
    is(&rig.channel, 0, Health::Ejected).await;
    drop(rig);
    leaks.finish().await;
}

#[tokio::test]
async fn the_applications_own_codes_say_nothing() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::with(2, for_good()).await;
    let codes = (1..=16).map(Code::from).filter(|it| !FAULTS.contains(it));
    let codes: Vec<_> = codes.collect();
    assert_eq!(codes.len(), 11);
    for code in codes {
        rig.servers[0].behaviour().fail(1.0, code);
        let calls = spread(&rig.channel, &rig.servers, 40).await;
        about(&calls, &[20, 20]);
        let told = status(&rig.channel, 0);
        assert_eq!(told.health, Health::Healthy, "{code:?}");
        assert_eq!(said(&told), (None, ""), "{code:?}");
    }
    drop(rig);
    leaks.finish().await;
}

/// Neither a good answer nor a fault: it does not stand between faults either.
#[tokio::test]
async fn resource_exhausted_neither_counts_nor_clears() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::with(2, for_good()).await;
    for (code, calls) in [
        (Code::Unavailable, 8),
        (Code::ResourceExhausted, 40),
        (Code::Unavailable, 2),
    ] {
        assert_eq!(status(&rig.channel, 0).health, Health::Healthy);
        rig.servers[0].behaviour().fail(1.0, code);
        spread(&rig.channel, &rig.servers, calls).await;
    }
    is(&rig.channel, 0, Health::Ejected).await;
    drop(rig);
    leaks.finish().await;
}

#[tokio::test]
async fn cancelled_calls_say_nothing() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::with(2, for_good()).await;
    for round in 1..=3 {
        let calls: Vec<_> = (0..40).map(|id| hang(&rig.channel, id)).collect();
        for server in &rig.servers {
            wait_equal(LIMIT, 20, || server.journal().in_flight()).await;
        }
        calls.iter().for_each(tokio::task::JoinHandle::abort);
        for server in &rig.servers {
            wait_equal(LIMIT, 20 * round, || server.journal().cancelled()).await;
        }
    }
    are(&rig.channel, &[Health::Healthy; 2]).await;
    about(&shares(&rig.channel, &rig.servers, 20).await, &[10, 10]);
    drop(rig);
    leaks.finish().await;
}

/// What a call came to may only be known at its end.
#[tokio::test]
async fn a_status_at_the_end_of_a_stream_counts() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::with(1, for_good()).await;
    let mut client = EchoClient::new(rig.channel.clone());
    for id in 1..=5 {
        assert_eq!(status(&rig.channel, 0).health, Health::Healthy);
        let request = EchoRequest {
            repeat: 2,
            fail_code: 14,
            ..request(id)
        };
        let replies = client.server_stream(request).await.unwrap();
        let mut replies = replies.into_inner();
        for _ in 0..2 {
            assert!(replies.message().await.unwrap().is_some());
        }
        replies.message().await.unwrap_err();
    }
    is(&rig.channel, 0, Health::Tolerated).await;
    drop((client, rig));
    leaks.finish().await;
}

/// Streams that the peer resets, each in its own way.
#[tokio::test]
async fn resets_count_unless_they_refuse_the_call() {
    for (reset, counts) in [
        (code::INTERNAL_ERROR, true),
        (code::PROTOCOL_ERROR, true),
        (code::REFUSED_STREAM, false),
        (code::CANCEL, false),
        (code::ENHANCE_YOUR_CALM, false),
    ] {
        let leaks = LeakCheck::start().await;
        let resets = RawPeer::tcp().serve(&[], move |_| Reaction::Reset(reset));
        let answers = RawPeer::tcp().serve(&[], |request| Reaction::echo(request, "b"));
        let endpoints = [&resets, &answers].map(|peer| Endpoint::uri(peer.uri()));
        let connector = Connector::endpoints(endpoints).retry(Retry::none());
        let channel = connector.breaker(for_good()).connect().await.unwrap();
        are(&channel, &[Health::Healthy; 2]).await;
        let seen = resets.seen();
        while seen.requests() < 10 && status(&channel, 0).health == Health::Healthy {
            let _ = ask(&channel, request(1), CallOptions::new()).await;
            tokio::task::yield_now().await;
        }
        if counts {
            is(&channel, 0, Health::Ejected).await;
            assert_eq!(seen.requests(), 5);
        } else {
            assert_eq!(status(&channel, 0).health, Health::Healthy);
        }
        assert_eq!(status(&channel, 1).health, Health::Healthy);
        drop((channel, resets, answers));
        leaks.finish().await;
    }
}

/// Answers each request with a status.
#[derive(Clone, Debug)]
struct Page(StatusCode);

impl NamedService for Page {
    const NAME: &'static str = "page";
}

impl Service<Request<Body>> for Page {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.0;
        ready(Ok(response))
    }
}

/// Requests that are not gRPC go by HTTP's status.
#[tokio::test]
async fn http_counts_from_500_on() {
    for (code, counts) in [(503, true), (500, true), (404, false), (429, false)] {
        let leaks = LeakCheck::start().await;
        let serve = |name, code| {
            let page = Page(StatusCode::from_u16(code).unwrap());
            EchoServer::builder(name).beside(Routes::new(page)).tcp()
        };
        let servers = [serve("a", code), serve("b", 200)];
        let connector = Connector::endpoints(servers.each_ref().map(endpoint));
        let connector = connector.retry(Retry::none());
        let channel = connector.breaker(for_good()).connect().await.unwrap();
        are(&channel, &[Health::Healthy; 2]).await;
        let mut seen = Vec::new();
        for _ in 0..20 {
            let request = Request::get("http://ignored/page/x").body(Body::empty());
            let response = channel.send(request.unwrap()).await.unwrap();
            seen.push(response.status().as_u16());
        }
        let bad = seen.iter().filter(|it| **it == code).count();
        if counts {
            assert_eq!(bad, 5, "{seen:?}");
            is(&channel, 0, Health::Ejected).await;
        } else {
            about(&[bad as u64], &[10]);
            assert_eq!(status(&channel, 0).health, Health::Healthy);
        }
        drop((channel, servers));
        leaks.finish().await;
    }
}

#[tokio::test]
async fn calls_on_a_pinned_connection_count() {
    let leaks = LeakCheck::start().await;
    let rig = Rig::with(2, for_good()).await;
    let pinned = rig.channel.acquire().await.unwrap();
    let mut addresses = rig.servers.iter().map(|it| it.addr().to_string());
    let nth = addresses.position(|it| it == pinned.endpoint()).unwrap();
    let mut client = EchoClient::new(pinned);
    rig.servers[nth].behaviour().fail(1.0, Code::Internal);
    for id in 1..=5 {
        assert_eq!(status(&rig.channel, nth).health, Health::Healthy);
        client.unary(request(id)).await.unwrap_err();
    }
    is(&rig.channel, nth, Health::Ejected).await;
    let mut wanted = [10, 10];
    wanted[nth] = 0;
    wanted[1 - nth] = 20;
    about(&shares(&rig.channel, &rig.servers, 20).await, &wanted);
    // It stays where it is, and what it does there goes on.
    client.unary(request(6)).await.unwrap_err();
    assert_eq!(rig.servers[nth].journal().started(), 6);
    drop((client, rig));
    leaks.finish().await;
}

/// What is no answer of the endpoint's is not its fault: a full queue, a call that can't be sent.
#[tokio::test]
async fn what_never_came_to_it_says_nothing() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::builder("a").max_concurrent_streams(1).tcp();
    let pool = trunkline::PoolOptions::new().max_connections(1);
    let connector = Connector::tcp(server.addr().to_string()).retry(Retry::none());
    let connector = connector.pool(pool.wait_timeout(Duration::from_millis(10)));
    let channel = connector.breaker(for_good()).connect().await.unwrap();
    let call = hang(&channel, 1);
    wait_equal(LIMIT, 1, || server.journal().in_flight()).await;
    for id in 2..12 {
        let short = CallOptions::new().timeout(Duration::from_millis(5));
        for options in [CallOptions::new(), short] {
            ask(&channel, request(id), options).await.unwrap_err();
        }
    }
    assert_eq!(status(&channel, 0).health, Health::Healthy);
    assert_eq!(server.journal().started(), 1);
    call.abort();
    wait_until(LIMIT, || server.journal().in_flight() == 0).await;
    drop((channel, server));
    leaks.finish().await;
}
