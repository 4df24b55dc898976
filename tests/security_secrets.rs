//! Tokens are written to the server, and nowhere else: no HPACK table keeps one, no output has one, and none goes over a
//! network that others read unless that is allowed.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod client;
#[path = "tls/log.rs"]
#[expect(dead_code, unreachable_pub, reason = "made for other tests, too")]
mod log;
mod support;

use std::error::Error as StdError;
use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::time::Duration;

use client::calls::unary;
use log::Log;
use support::calls::request;
use support::leak::LeakCheck;
use support::raw_peer::RawPeer;
use support::reaction::Reaction;
use support::scratch::Scratch;
use support::server::EchoServer;
use support::wait::within;
use tonic::{Code, Request, Status};
use trunkline::{Channel, Connector, Credentials, Error, PinnedChannel, Retry, Token};
use trunkline_proto::echo_client::EchoClient;

const LIMIT: Duration = Duration::from_secs(10);

/// The field `authorization` (entry 23 of the static table) as a literal that is never indexed (RFC 7541, section 6.2.3).
const NEVER_INDEXED: [u8; 2] = [0x1f, 0x08];

fn own_header(id: u64, header: &str) -> Request<trunkline_proto::EchoRequest> {
    let mut request = Request::new(request(id));
    let header = header.parse().unwrap();
    request.metadata_mut().insert("authorization", header);
    request
}

#[tokio::test]
async fn neither_the_channels_token_nor_a_calls_own_is_indexed() {
    let leaks = LeakCheck::start().await;
    let folder = Scratch::new();
    let peer = RawPeer::unix(folder.path("peer.sock"));
    let credentials = Credentials::token("the-token-of-the-channel");
    let connector = Connector::unix(peer.path()).credentials(credentials);
    let (channel, mut conn) = peer.meet(&[], connector.connect()).await;
    let channel = channel.unwrap();
    let pinned = channel.acquire().await.unwrap();
    let mut own = EchoClient::new(channel.clone());
    let mut own_pinned = EchoClient::new(pinned);
    // A field that was indexed would be a single byte from its second time on.
    for id in 0..3 {
        let calling = async {
            unary(&channel, id).await.unwrap_err();
            let headers = ["Basic dXNlcjpwYXNz", "Bearer the-token-of-the-call"];
            for header in headers {
                own.unary(own_header(id, header)).await.unwrap_err();
                own_pinned.unary(own_header(id, header)).await.unwrap_err();
            }
        };
        let serving = async {
            for nth in 0..5 {
                let (stream, block, _) = conn.next_request_headers().await;
                let found = block.windows(2).filter(|it| *it == NEVER_INDEXED).count();
                assert_eq!(found, 1, "request {nth} of round {id}: {block:?}");
                conn.respond_trailers_only(stream, 5, "").await;
            }
        };
        let both = async { tokio::join!(calling, serving) };
        within(LIMIT, "calls", both).await;
    }
    drop((channel, own, own_pinned, conn, peer));
    leaks.finish().await;
}

#[tokio::test]
async fn in_the_open_no_call_of_any_kind_has_the_token() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let exchanged = Credentials::exchange(|| async { Ok(Token::new("secret")) });
    for (round, credentials) in (0..).zip([Credentials::token("secret"), exchanged]) {
        let started = || server.journal().started() - 2 * round;
        let connect = |credentials| {
            Connector::target(server.uri())
                .credentials(credentials)
                .connect()
        };
        let channel = connect(credentials.clone()).await.unwrap();
        let pinned = channel.acquire().await.unwrap();
        let results = [
            unary(&channel, 1).await.map(|_| ()),
            EchoClient::new(pinned).unary(request(2)).await.map(|_| ()),
        ];
        for result in results {
            let status = result.unwrap_err();
            let error = Error::from_status(&status).unwrap();
            assert!(error.is_token() && !error.maybe_processed(), "{error:?}");
            assert_eq!(status.code(), Code::Unauthenticated);
        }
        assert_eq!(started(), 0);
        // What the call brings itself is the caller's business.
        let mut own = EchoClient::new(channel.clone());
        own.unary(own_header(3, "Bearer own")).await.unwrap();
        assert_eq!(started(), 1);
        drop((own, channel));
        let channel = connect(credentials.allow_plaintext(true)).await.unwrap();
        unary(&channel, 4).await.unwrap();
        assert_eq!(started(), 2);
        drop(channel);
    }
    drop(server);
    leaks.finish().await;
}

/// A secret that is found wherever it is.
const CANARY: &str = "c4n4ry";

/// Everything that the crate shows.
#[derive(Default)]
struct Shown(String);

impl Shown {
    fn add(&mut self, value: &dyn Debug) {
        self.0 += &format!("{value:?} {value:#?}\n");
    }

    /// An error with all its causes, in all forms.
    fn error(&mut self, error: &(dyn StdError + 'static)) {
        let mut next = Some(error);
        while let Some(error) = next {
            self.0 += &format!("{error}\n");
            self.add(&error);
            next = error.source();
        }
    }

    fn status(&mut self, status: &Status) {
        self.error(status);
        self.add(&status.metadata());
        if let Some(error) = Error::from_status(status) {
            self.error(error);
            self.add(&error.history());
        }
    }

    fn channel(&mut self, channel: &Channel) {
        self.add(channel);
        self.add(&channel.status());
        self.add(&channel.stats());
    }

    fn pinned(&mut self, pinned: &PinnedChannel) {
        self.add(pinned);
    }
}

/// Sources that have the secret, and such that have it where they should not.
fn sources(folder: &Path) -> Vec<Credentials> {
    let file = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        Credentials::token_file(path)
    };
    let exchange = |text: String| {
        Credentials::exchange(move || {
            let token = Token::new(text.clone()).expires_in(LIMIT);
            async { Ok(token) }
        })
    };
    vec![
        Credentials::token(CANARY),
        file("good", format!(" {CANARY}\n")),
        exchange(CANARY.to_owned()),
        // No tokens.
        file("two", format!("{CANARY} {CANARY}")),
        file("binary", format!("{CANARY}\0")),
        file("long", CANARY.repeat(20_000)),
        exchange(format!("{CANARY}\r\nx: y")),
        // What it says goes to the program's own panic hook, and no further.
        Credentials::exchange(|| async { panic!("{CANARY}") }),
    ]
}

#[tokio::test]
async fn no_output_has_a_token() {
    let log = Log::start();
    let leaks = LeakCheck::start().await;
    let folder = Scratch::new();
    let mut shown = Shown::default();
    // On a thread of its own, whose log is not this one.
    let peer =
        RawPeer::unix(folder.path("peer.sock")).serve(&[], |request| match request.nth % 4 {
            0 => Reaction::Fail(16, "not that one".into()),
            1 => Reaction::Reset(2),
            2 => Reaction::Fail(14, "busy".into()),
            _ => Reaction::Close,
        });
    let mut refusals = 0;
    for credentials in sources(&folder.path("")) {
        let connector = Connector::unix(peer.path())
            .credentials(credentials.clone())
            .retry(Retry::none());
        shown.add(&credentials);
        shown.add(&connector);
        let channel = connector.connect().await.unwrap();
        shown.channel(&channel);
        for id in 0..8 {
            let status = unary(&channel, id).await.unwrap_err();
            refusals += u64::from(status.message() == "not that one");
            shown.status(&status);
            let mut client = EchoClient::new(channel.clone());
            let own = own_header(id, &format!("Bearer {CANARY}"));
            let status = client.unary(own).await.unwrap_err();
            refusals += u64::from(status.message() == "not that one");
            shown.status(&status);
            let Ok(pinned) = channel.acquire().await else {
                continue;
            };
            shown.pinned(&pinned);
            if let Err(status) = EchoClient::new(pinned).unary(request(id)).await {
                shown.status(&status);
            }
        }
        shown.channel(&channel);
    }
    shown.add(&Token::new(CANARY).expires_in(LIMIT));
    // Wrong ones that are known at once.
    for wrong in [
        format!("{CANARY} "),
        format!("{CANARY}\n"),
        format!("{CANARY}é"),
    ] {
        let connector = Connector::tcp("a:1").credentials(Credentials::token(wrong));
        shown.add(&connector);
        shown.error(&connector.connect_lazy().unwrap_err());
    }
    drop(peer);
    leaks.finish().await;
    let logged = log.end();

    assert!(refusals >= 3, "{refusals}");
    let Shown(shown) = shown;
    for part in [
        "the token has a space",
        "more than 65536 bytes",
        "its source panicked",
        "not that one",
    ] {
        assert!(shown.contains(part), "{part}");
    }
    assert!(logged.contains("TRACE") && logged.contains("no token could be got"));
    for text in [&shown, &logged] {
        if let Some(at) = text.find(CANARY) {
            let from = text.floor_char_boundary(at.saturating_sub(300));
            panic!("…{}", &text[from..at + CANARY.len()]);
        }
    }
}
