//! Probes over HTTP, over TCP and of one's own.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::future::{Ready, pending, ready};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::task::{Context, Poll};

use http::{Method, Request, Response, StatusCode};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tower::Service;
use trunkline::{
    Address, Connector, Dial, DialError, Dialing, Health, HealthCheck, HealthSource, Probe,
    ProbeFuture, ProbeTarget, SocketDialer, UnixOptions,
};

use super::rig::{LIMIT, TICK, each, often};
use crate::client::calls::{endpoint, unary};
use crate::client::health::{about, are, is, said, shares};
use crate::support::h2_server::H2Peer;
use crate::support::leak::LeakCheck;
use crate::support::scratch::Scratch;
use crate::support::server::EchoServer;
use crate::support::wait::{wait_until, within};

/// Answers `GET /health/…` with a status that the test sets.
#[derive(Clone, Debug)]
struct Page(watch::Receiver<StatusCode>);

impl NamedService for Page {
    const NAME: &'static str = "health";
}

impl Service<Request<Body>> for Page {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        assert_eq!(request.method(), Method::GET);
        assert_eq!(request.uri().path(), "/health/ready");
        assert_eq!(request.uri().query(), Some("full"));
        let mut response = Response::new(Body::empty());
        *response.status_mut() = *self.0.borrow();
        ready(Ok(response))
    }
}

#[tokio::test]
async fn http_is_well_from_200_to_299() {
    let leaks = LeakCheck::start().await;
    each([503, 404, 302, 401], async |ill| {
        let (says, page) = watch::channel(StatusCode::OK);
        let a = EchoServer::builder("a")
            .beside(Routes::new(Page(page)))
            .tcp();
        let (_says, page) = watch::channel(StatusCode::NO_CONTENT);
        let b = EchoServer::builder("b")
            .beside(Routes::new(Page(page)))
            .tcp();
        let connector = Connector::endpoints([endpoint(&a), endpoint(&b)]);
        let check = often(HealthCheck::http("/health/ready?full"));
        let channel = connector.health_check(check).connect().await.unwrap();
        are(&channel, &[Health::Healthy; 2]).await;
        says.send_replace(StatusCode::from_u16(ill).unwrap());
        let status = is(&channel, 0, Health::Ejected).await;
        let (source, reason) = said(&status);
        assert_eq!(source, Some(HealthSource::Probe));
        assert!(reason.contains(&format!("HTTP {ill}")), "{reason}");
        about(&shares(&channel, [&a, &b], 10).await, &[0, 10]);
        if ill == 503 {
            says.send_replace(StatusCode::OK);
            are(&channel, &[Health::Healthy; 2]).await;
        }
    })
    .await;
    leaks.finish().await;
}

/// tonic answers with status 200 to a path that it does not know: it takes every request for gRPC's.
#[tokio::test]
async fn a_path_that_a_grpc_server_does_not_have_is_not_well() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let connector = Connector::tcp(server.addr().to_string());
    let check = often(HealthCheck::http("/healthz"));
    let channel = connector.health_check(check).connect().await.unwrap();
    let status = is(&channel, 0, Health::Tolerated).await;
    let (source, reason) = said(&status);
    assert_eq!(source, Some(HealthSource::Probe));
    assert!(reason.contains("Unimplemented"), "{reason}");
    about(&shares(&channel, [&server], 5).await, &[5]);
    drop((channel, server));
    leaks.finish().await;
}

/// What the request says, and that an answer that never ends does no harm.
#[tokio::test]
async fn an_http_probe_reads_no_more_than_the_head() {
    let leaks = LeakCheck::start().await;
    let peer = H2Peer::tcp();
    let connector = Connector::tcp(peer.addr().to_string());
    let check = often(HealthCheck::http("/healthz"));
    let channel = connector.health_check(check).connect_lazy().unwrap();
    let mut conn = peer.accept().await;
    let mut bodies = Vec::new();
    for _ in 0..3 {
        let mut request = conn.next().await;
        assert_eq!(request.parts.method, Method::GET);
        assert_eq!(request.path(), "/healthz");
        let authority = request.parts.uri.authority().unwrap();
        assert_eq!(authority.as_str(), peer.addr().to_string());
        let agent = request.header("user-agent").unwrap();
        assert!(agent.starts_with("trunkline/"), "{agent}");
        assert!(request.header("authorization").is_none());
        let body = request.respond.send_response(Response::new(()), false);
        bodies.push(body.unwrap());
        is(&channel, 0, Health::Healthy).await;
    }
    drop((channel, bodies, conn, peer));
    leaks.finish().await;
}

/// Opens sockets until it is told not to.
#[derive(Clone, Debug, Default)]
struct Gate {
    sockets: SocketDialer,
    shut: Arc<AtomicBool>,
}

impl Dial for Gate {
    fn dial<'a>(&'a self, address: &'a Address) -> Dialing<'a> {
        match self.shut.load(SeqCst) {
            false => self.sockets.dial(address),
            true => {
                let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
                Box::pin(ready(Err(DialError::connect(refused))))
            }
        }
    }
}

#[tokio::test]
async fn tcp_probes_open_a_connection_and_close_it() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let path = scratch.path("a.sock");
    let servers = [
        EchoServer::start_tcp("a"),
        EchoServer::start_unix("a", path),
    ];
    each(servers, async |server| {
        let gate = Gate::default();
        let connector = Connector::endpoints([endpoint(&server)]).dialer(gate.clone());
        let connector = connector.health_check(often(HealthCheck::tcp()));
        let channel = connector.connect().await.unwrap();
        is(&channel, 0, Health::Healthy).await;
        let journal = server.journal();
        wait_until(LIMIT, || journal.accepted() >= 5).await;
        wait_until(LIMIT, || journal.open() == 1).await;
        about(&shares(&channel, [&server], 5).await, &[5]);
        // Nobody can connect any more; the calls' own connection stays.
        gate.shut.store(true, SeqCst);
        let status = is(&channel, 0, Health::Tolerated).await;
        let (source, reason) = said(&status);
        assert_eq!(source, Some(HealthSource::Probe));
        assert!(reason.contains("refused"), "{reason}");
        about(&shares(&channel, [&server], 5).await, &[5]);
        gate.shut.store(false, SeqCst);
        is(&channel, 0, Health::Healthy).await;
    })
    .await;
    leaks.finish().await;
}

/// What calls would not go through is not well, though it can be opened.
#[tokio::test]
async fn tcp_probes_look_at_a_socket_as_connections_do() {
    let leaks = LeakCheck::start().await;
    let scratch = Scratch::new();
    let server = EchoServer::start_unix("a", scratch.path("a.sock"));
    let chmod = |mode| fs::set_permissions(server.path(), Permissions::from_mode(mode)).unwrap();
    chmod(0o755);
    let connector = Connector::endpoints([endpoint(&server)])
        .unix_options(UnixOptions::new().refuse_world_writable(true))
        .health_check(often(HealthCheck::tcp()));
    let channel = connector.connect().await.unwrap();
    is(&channel, 0, Health::Healthy).await;
    chmod(0o777);
    let status = is(&channel, 0, Health::Tolerated).await;
    let (source, reason) = said(&status);
    assert_eq!(source, Some(HealthSource::Probe));
    assert!(reason.contains("everybody may write"), "{reason}");
    chmod(0o755);
    is(&channel, 0, Health::Healthy).await;
    drop((channel, server));
    leaks.finish().await;
}

/// What a probe of one's own does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Well,
    Fails,
    NeverAnswers,
    Panics,
    /// Before there is a future.
    PanicsAtOnce,
}

#[derive(Clone, Debug)]
struct Own {
    does: watch::Sender<Does>,
    times: Arc<AtomicU64>,
    running: Arc<()>,
}

impl Own {
    fn new(does: Does) -> Self {
        Self {
            does: watch::Sender::new(does),
            times: Arc::default(),
            running: Arc::default(),
        }
    }

    fn times(&self) -> u64 {
        self.times.load(SeqCst)
    }
}

impl Probe for Own {
    fn probe<'a>(&'a self, target: &'a ProbeTarget) -> ProbeFuture<'a> {
        self.times.fetch_add(1, SeqCst);
        // The other endpoint is well.
        let does = match target.metadata("patient") {
            Some(_) => *self.does.borrow(),
            None => Does::Well,
        };
        assert!(target.address().to_string().starts_with("127.0.0.1:"));
        assert!(does != Does::PanicsAtOnce, "asked to panic");
        let running = Arc::clone(&self.running);
        Box::pin(async move {
            let _running = running;
            match does {
                Does::Well => Ok(()),
                Does::Fails => Err("the disk is full".into()),
                Does::NeverAnswers => pending().await,
                Does::Panics | Does::PanicsAtOnce => panic!("asked to panic"),
            }
        })
    }
}

#[tokio::test]
async fn probes_of_ones_own_are_believed() {
    let leaks = LeakCheck::start().await;
    let ways = [
        (Does::Fails, "the disk is full"),
        (Does::NeverAnswers, "no answer within 100ms"),
        (Does::Panics, "the probe panicked"),
        (Does::PanicsAtOnce, "the probe panicked"),
    ];
    each(ways, async |(does, reason)| {
        let [a, b] = ["a", "b"].map(EchoServer::start_tcp);
        let own = Own::new(Does::Well);
        let endpoints = [endpoint(&a).metadata("patient", "yes"), endpoint(&b)];
        let check = often(HealthCheck::custom(own.clone())).timeout(TICK);
        let connector = Connector::endpoints(endpoints).health_check(check);
        let channel = connector.connect().await.unwrap();
        are(&channel, &[Health::Healthy; 2]).await;
        own.does.send_replace(does);
        let status = is(&channel, 0, Health::Ejected).await;
        assert_eq!(said(&status), (Some(HealthSource::Probe), reason));
        about(&shares(&channel, [&a, &b], 10).await, &[0, 10]);
        if does == Does::Panics {
            own.does.send_replace(Does::Well);
            are(&channel, &[Health::Healthy; 2]).await;
        }
        drop(channel);
        wait_until(LIMIT, || Arc::strong_count(&own.running) == 1).await;
    })
    .await;
    leaks.finish().await;
}

/// A panic before the first answer must not keep calls waiting for ever.
#[tokio::test]
async fn a_probe_that_panics_keeps_no_call() {
    let leaks = LeakCheck::start().await;
    each([Does::Panics, Does::PanicsAtOnce], async |does| {
        let server = EchoServer::start_tcp("a");
        let own = Own::new(does);
        let connector = Connector::endpoints([endpoint(&server).metadata("patient", "yes")]);
        let connector = connector.health_check(often(HealthCheck::custom(own.clone())));
        let channel = connector.connect_lazy().unwrap();
        within(LIMIT, "a call", unary(&channel, 1)).await.unwrap();
        wait_until(LIMIT, || own.times() >= 4).await;
        within(LIMIT, "a call", unary(&channel, 2)).await.unwrap();
        own.does.send_replace(Does::Well);
        is(&channel, 0, Health::Healthy).await;
        drop((channel, server));
    })
    .await;
    leaks.finish().await;
}
