//! Tokens that calls carry: got once for all, renewed in time, replaced when refused, and never sent in the open.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod support;

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::behaviour::Behaviour;
use support::calls::request;
use support::echo::EchoService;
use support::journal::Journal;
use support::leak::LeakCheck;
use support::scratch::Scratch;
use support::server::EchoServer;
use support::wait::{wait_equal, within};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::{Code, Status};
use trunkline::{Channel, Connector, Credentials, Error, Hedge, Retry, Token};
use trunkline_proto::EchoRequest;
use trunkline_proto::echo_client::EchoClient;
use trunkline_proto::echo_server::EchoServer as Service;

const LIMIT: Duration = Duration::from_secs(5);

/// A server on a Unix socket that takes calls with one token only, and notes all that came.
struct Guarded {
    path: PathBuf,
    good: Arc<Mutex<String>>,
    seen: Arc<Mutex<BTreeMap<String, u64>>>,
    end: Option<oneshot::Sender<()>>,
    _folder: Scratch,
}

impl Guarded {
    fn start(good: &str) -> Self {
        let folder = Scratch::new();
        let path = folder.path("guarded.sock");
        let good = Arc::new(Mutex::new(good.to_owned()));
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let service = Service::new(EchoService {
            name: "guarded".into(),
            journal: Arc::new(Journal::default()),
            behaviour: Arc::new(Behaviour::default()),
        });
        let (expected, noted) = (Arc::clone(&good), Arc::clone(&seen));
        let check = move |request: tonic::Request<()>| {
            let token = request
                .metadata()
                .get("authorization")
                .map(|it| it.to_str().unwrap().to_owned());
            let token = token.unwrap_or_default();
            *noted.lock().unwrap().entry(token.clone()).or_insert(0) += 1;
            if token == format!("Bearer {}", expected.lock().unwrap()) {
                Ok(request)
            } else {
                Err(Status::unauthenticated("not that one"))
            }
        };
        let service = InterceptedService::new(service, check);
        let incoming = UnixListenerStream::new(UnixListener::bind(&path).unwrap());
        let (end, ended) = oneshot::channel();
        let server = Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming_shutdown(incoming, async {
            let _ = ended.await;
        }));
        Self {
            path,
            good,
            seen,
            end: Some(end),
            _folder: folder,
        }
    }

    fn accept(&self, good: &str) {
        *self.good.lock().unwrap() = good.to_owned();
    }

    /// How many calls came with this header.
    fn seen(&self, header: &str) -> u64 {
        self.seen.lock().unwrap().get(header).copied().unwrap_or(0)
    }

    async fn connect(&self, credentials: Credentials) -> Channel {
        Connector::unix(&self.path)
            .credentials(credentials)
            .retry(Retry::none())
            .connect()
            .await
            .unwrap()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.end.take());
    }
}

async fn call(channel: &Channel, id: u64) -> Result<(), Status> {
    EchoClient::new(channel.clone())
        .unary(request(id))
        .await
        .map(|_| ())
}

/// Counts exchanges; the token is `t1`, `t2`, ….
fn counted(lifetime: Option<Duration>) -> (Credentials, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    let credentials = Credentials::exchange(move || {
        let nth = counter.fetch_add(1, SeqCst) + 1;
        async move {
            let token = Token::new(format!("t{nth}"));
            Ok(lifetime.map_or(token.clone(), |it| token.expires_in(it)))
        }
    });
    (credentials, count)
}

#[tokio::test]
async fn a_fixed_token_is_carried_and_ones_own_goes_first() {
    let leaks = LeakCheck::start().await;
    let server = Guarded::start("fixed");
    let channel = server.connect(Credentials::token("fixed")).await;
    call(&channel, 1).await.unwrap();
    assert_eq!(server.seen("Bearer fixed"), 1);
    let mut own = tonic::Request::new(request(2));
    own.metadata_mut()
        .insert("authorization", "Basic x".parse().unwrap());
    let error = EchoClient::new(channel.clone())
        .unary(own)
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::Unauthenticated, "not that one")
    );
    assert_eq!(server.seen("Basic x"), 1);
    // A pinned channel carries it, too.
    let pinned = channel.acquire().await.unwrap();
    EchoClient::new(pinned).unary(request(3)).await.unwrap();
    assert_eq!(server.seen("Bearer fixed"), 2);

    // Refused, it is not tried again: there is no other.
    server.accept("another");
    assert_eq!(
        call(&channel, 4).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    assert_eq!(server.seen("Bearer fixed"), 3);
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_makes_one_exchange() {
    let leaks = LeakCheck::start().await;
    let server = Guarded::start("t1");
    let (gate, count) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU64::new(0)));
    let credentials = {
        let (gate, count) = (Arc::clone(&gate), Arc::clone(&count));
        Credentials::exchange(move || {
            let gate = Arc::clone(&gate);
            let nth = count.fetch_add(1, SeqCst) + 1;
            async move {
                gate.acquire().await?.forget();
                Ok(Token::new(format!("t{nth}")))
            }
        })
    };
    let channel = server.connect(credentials).await;
    let mut calls = JoinSet::new();
    for id in 0..1000 {
        let channel = channel.clone();
        calls.spawn(async move { call(&channel, id).await });
    }
    wait_equal(LIMIT, 1000, || channel.stats().calls).await;
    // Whoever leaves does not take it along.
    let left = tokio::time::timeout(Duration::from_millis(1), call(&channel, 1000)).await;
    assert!(left.is_err());
    gate.add_permits(1);
    while let Some(done) = within(LIMIT, "the calls", calls.join_next()).await {
        done.unwrap().unwrap();
    }
    assert_eq!(count.load(SeqCst), 1);

    // All of a thousand calls are refused together: one exchange again, and none fails.
    server.accept("t2");
    gate.add_permits(100);
    for id in 0..1000 {
        let channel = channel.clone();
        calls.spawn(async move { call(&channel, id).await });
    }
    while let Some(done) = within(LIMIT, "the calls", calls.join_next()).await {
        done.unwrap().unwrap();
    }
    assert_eq!(count.load(SeqCst), 2);
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let leaks = LeakCheck::start().await;
    let server = Guarded::start("t2");
    let (credentials, count) = counted(None);
    let channel = server.connect(credentials).await;
    call(&channel, 1).await.unwrap();
    assert_eq!(
        (
            count.load(SeqCst),
            server.seen("Bearer t1"),
            server.seen("Bearer t2")
        ),
        (2, 1, 1)
    );
    call(&channel, 2).await.unwrap();
    assert_eq!(count.load(SeqCst), 2);

    server.accept("none of them");
    let error = call(&channel, 3).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::Unauthenticated, "not that one")
    );
    assert_eq!((server.seen("Bearer t2"), server.seen("Bearer t3")), (3, 1));
    drop((channel, server));
    leaks.finish().await;
}

/// Whatever the kind of call: one with a body that has to be sent again, and one that may have company.
#[tokio::test]
async fn calls_of_every_kind_get_another_token() {
    let leaks = LeakCheck::start().await;
    let server = Guarded::start("t2");
    let (credentials, _) = counted(None);
    let channel = server.connect(credentials).await;
    let requests = (1..=3).map(|id| EchoRequest {
        payload: vec![7; 10],
        ..request(id)
    });
    let mut client = EchoClient::new(channel.clone());
    let reply = client.client_stream(tokio_stream::iter(requests)).await;
    assert_eq!(reply.unwrap().into_inner().payload.len(), 30);
    assert_eq!((server.seen("Bearer t1"), server.seen("Bearer t2")), (1, 1));

    let (credentials, count) = counted(None);
    let hedged = Connector::unix(&server.path)
        .credentials(credentials)
        .retry(Retry::none().idempotent(true))
        .hedge(Hedge::after(LIMIT))
        .connect();
    let hedged = hedged.await.unwrap();
    call(&hedged, 4).await.unwrap();
    assert_eq!((count.load(SeqCst), hedged.stats().hedges), (2, 0));
    server.accept("none of them");
    assert_eq!(
        call(&hedged, 5).await.unwrap_err().message(),
        "not that one"
    );
    assert_eq!(count.load(SeqCst), 3);
    drop((channel, client, hedged, server));
    leaks.finish().await;
}

/// An API key goes to a provider in a call, and a token comes back.
#[tokio::test]
async fn an_exchange_may_be_a_call() {
    let leaks = LeakCheck::start().await;
    let (server, provider) = (Guarded::start("7"), Guarded::start("an-api-key"));
    let login = provider.connect(Credentials::token("an-api-key")).await;
    let asking = login.clone();
    let credentials = Credentials::exchange(move || {
        let mut login = EchoClient::new(asking.clone());
        async move {
            let reply = login.unary(request(7)).await?.into_inner();
            Ok(Token::new(reply.id.to_string()).expires_in(Duration::from_secs(300)))
        }
    });
    let channel = server.connect(credentials).await;
    call(&channel, 1).await.unwrap();
    call(&channel, 2).await.unwrap();
    assert_eq!(server.seen("Bearer 7"), 2);
    assert_eq!(provider.seen("Bearer an-api-key"), 1);

    // Another key is no good: whoever calls learns why.
    provider.accept("another");
    server.accept("another");
    let error = call(&channel, 3).await.unwrap_err();
    assert!(Error::from_status(&error).unwrap().is_token(), "{error:?}");
    assert!(error.message().contains("not that one"), "{error:?}");
    drop((channel, login, server, provider));
    leaks.finish().await;
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    let leaks = LeakCheck::start().await;
    let server = Guarded::start("t1");
    let (credentials, count) = counted(Some(Duration::from_secs(1000)));
    let channel = server.connect(credentials).await;
    call(&channel, 1).await.unwrap();
    // Later than any renewal begins, and so long before the end that no machine is too slow for it.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(955)).await;
    tokio::time::resume();
    assert_eq!(count.load(SeqCst), 1, "no call has come");
    // It has a token that is good, and does not wait for the next one.
    call(&channel, 2).await.unwrap();
    wait_equal(LIMIT, 2, || count.load(SeqCst)).await;
    server.accept("t2");
    call(&channel, 3).await.unwrap();
    assert_eq!((server.seen("Bearer t1"), server.seen("Bearer t2")), (2, 1));
    assert_eq!(channel.stats().resends, 0, "no call was refused");
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn a_file_is_read_again_when_its_token_is_refused() {
    let leaks = LeakCheck::start().await;
    let folder = Scratch::new();
    let path = folder.path("token");
    let server = Guarded::start("one");
    let channel = server.connect(Credentials::token_file(&path)).await;
    let error = call(&channel, 1).await.unwrap_err();
    assert!(Error::from_status(&error).unwrap().is_token());
    for part in ["no token could be got", "token: No such file"] {
        assert!(error.message().contains(part), "{error:?}");
    }
    fs::write(&path, "one\n").unwrap();
    let mut id = 1;
    // The source is asked again after a moment.
    let served = async {
        while call(&channel, id).await.is_err() {
            id += 1;
        }
    };
    within(LIMIT, "a call with the file's token", served).await;
    server.accept("two");
    fs::write(&path, "two").unwrap();
    call(&channel, 0).await.unwrap();
    fs::write(&path, "").unwrap();
    server.accept("three");
    let error = call(&channel, 0).await.unwrap_err();
    assert!(error.message().contains("the token is empty"), "{error:?}");
    drop((channel, server, folder));
    leaks.finish().await;
}

#[tokio::test]
async fn a_source_that_fails_is_not_asked_by_every_call() {
    let leaks = LeakCheck::start().await;
    let server = Guarded::start("t1");
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    let credentials = Credentials::exchange(move || {
        counter.fetch_add(1, SeqCst);
        async { Err::<Token, Box<dyn StdError + Send + Sync>>("the provider is down".into()) }
    });
    let channel = server.connect(credentials).await;
    for id in 0..100 {
        let error = call(&channel, id).await.unwrap_err();
        assert_eq!(error.code(), Code::Unauthenticated);
        assert!(
            error.message().contains("the provider is down"),
            "{error:?}"
        );
    }
    assert!(count.load(SeqCst) <= 2, "{count:?}");
    assert_eq!(server.seen.lock().unwrap().len(), 0, "nothing was sent");
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn in_the_open_it_goes_only_with_leave() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let token = || Credentials::token("secret");
    let connect = |credentials| {
        Connector::target(server.uri())
            .credentials(credentials)
            .connect()
    };
    let channel = connect(token()).await.unwrap();
    let error = call(&channel, 1).await.unwrap_err();
    let ours = Error::from_status(&error).unwrap();
    assert!(ours.is_token() && !ours.maybe_processed());
    assert!(
        error.message().contains("may not go over plaintext TCP"),
        "{error:?}"
    );
    assert_eq!(server.journal().started(), 0);
    drop(channel);
    let channel = connect(token().allow_plaintext(true)).await.unwrap();
    call(&channel, 2).await.unwrap();
    assert_eq!(server.journal().started(), 1);
    drop((channel, server));
    leaks.finish().await;
}

#[tokio::test]
async fn bad_tokens_are_refused_and_none_is_shown() {
    for bad in ["", "canary x", "canary\r\nx-evil: 1", "canary\0", "canaryé"] {
        let connector = Connector::tcp("127.0.0.1:1").credentials(Credentials::token(bad));
        let shown = format!("{connector:?}");
        let error = connector.connect_lazy().unwrap_err();
        assert!(
            error.is_config() && error.to_string().starts_with("credentials: the token"),
            "{error}"
        );
        assert!(
            !format!("{shown} {error} {error:?}").contains("canary"),
            "{shown} {error:?}"
        );
    }
    let token = Token::new("canary").expires_in(Duration::MAX);
    assert!(!format!("{token:?} {:?}", Credentials::token("canary")).contains("canary"));
}
