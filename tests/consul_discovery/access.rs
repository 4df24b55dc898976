//! ACL tokens: needed, wrong, taken away, replaced, and never shown.

use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;
use trunkline::{Connector, Consul};

use crate::client::calls::unary;
use crate::consul::agent::Agent;
use crate::consul::registration::Registration;
use crate::consul::tokens::READ_SERVICES;
use crate::support::leak::LeakCheck;
use crate::support::scratch::Scratch;
use crate::support::server::EchoServer;
use crate::support::wait::wait_until;

use super::seen::{LIMIT, echo, lazy, sees, trouble};

const MANAGEMENT: &str = "5ca1ab1e-0000-4000-8000-00000000000a";
const UNKNOWN: &str = "5ca1ab1e-0000-4000-8000-00000000000b";

/// An agent that gives nothing to those without a token, and one instance.
async fn guarded() -> (Agent, EchoServer) {
    let server = EchoServer::start_tcp("a");
    let agent = Agent::builder().acls(MANAGEMENT).start().await;
    agent
        .api()
        .register(&Registration::of("echo", &server))
        .await;
    (agent, server)
}

#[tokio::test]
async fn tokens_open_and_close() {
    let leaks = LeakCheck::start().await;
    let (agent, server) = guarded().await;
    let api = agent.api();
    let token = api.create_token("read", READ_SERVICES).await;

    // Consul hides everything and says nothing.
    let none = lazy(echo(&agent));
    wait_until(LIMIT, || none.status().resolution_age.is_some()).await;
    let error = Connector::consul(echo(&agent))
        .ready_timeout(Duration::from_secs(1))
        .connect()
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the token may lack service:read"),
        "{error}"
    );

    let unknown = lazy(echo(&agent).token(UNKNOWN));
    wait_until(LIMIT, || trouble(&unknown).contains("403")).await;
    assert!(
        trouble(&unknown).contains("the ACL token is unknown"),
        "{}",
        trouble(&unknown)
    );

    let service = echo(&agent)
        .token(token.secret.as_str())
        .wait(Duration::from_secs(1));
    let open = Connector::consul(service).connect().await.unwrap();
    assert_eq!(unary(&open, 1).await.unwrap().server, "a");

    // Deleted under the watch: the query that runs ends with its wait, the next one is refused. What was found stays.
    api.delete_token(&token).await;
    wait_until(LIMIT, || trouble(&open).contains("403")).await;
    sees(&open, &[("a", 1)]).await;
    assert_eq!(unary(&open, 2).await.unwrap().server, "a");
    drop((none, unknown, open, agent, server));
    leaks.finish().await;
}

#[tokio::test]
async fn a_token_file_is_read_again() {
    let leaks = LeakCheck::start().await;
    let (agent, server) = guarded().await;
    let token = agent.api().create_token("read", READ_SERVICES).await;
    let folder = Scratch::new();
    let path = folder.path("token");

    let channel = lazy(echo(&agent).token_file(&path));
    wait_until(LIMIT, || {
        trouble(&channel).contains("the ACL token can't be used")
    })
    .await;
    assert!(trouble(&channel).contains(&path.display().to_string()));
    fs::write(&path, "\n").unwrap();
    wait_until(LIMIT, || trouble(&channel).contains("the token is empty")).await;
    fs::write(&path, format!("{}\n", token.secret)).unwrap();
    sees(&channel, &[("a", 1)]).await;
    drop((channel, agent, server, folder));
    leaks.finish().await;
}

/// Everything that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn no_output_has_the_token() {
    const CANARY: &str = "canary-5e4e7-token";
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_writer(log.clone())
        .finish();
    // For this thread, on which the runtime of this test runs everything.
    let guard = tracing::subscriber::set_default(subscriber);
    // While there is one subscriber only, tracing asks the thread that comes to an event first whether anybody listens,
    // and remembers that for all. With two it asks them.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let leaks = LeakCheck::start().await;
    let (agent, server) = guarded().await;
    let folder = Scratch::new();
    let path = folder.path("token");
    fs::write(&path, CANARY).unwrap();

    let mut shown = String::new();
    let at = agent.http_addr();
    let services = [
        echo(&agent).token(CANARY),
        echo(&agent).token_file(&path),
        Consul::target(format!("consul://{CANARY}@{at}/echo")),
        Consul::target(format!("consul://{CANARY}@{at}/echo?colour=red")),
        Consul::target(format!("consul://{CANARY}:pw@{at}/echo")),
        Consul::target(format!("consul://{at}/echo?token={CANARY}")),
        Consul::service("echo").agent(format!("http://{CANARY}@{at}")),
        echo(&agent).token(format!("{CANARY}\n")),
        echo(&agent).token(CANARY).agent("10.0.0.1:8500"),
        echo(&agent).token(CANARY).filter("no filter"),
    ];
    for service in services {
        shown += &format!("{service:?} {:?}", Connector::consul(service.clone()));
        match Connector::consul(service).connect_lazy() {
            Err(error) => shown += &chain(&error),
            Ok(channel) => {
                wait_until(LIMIT, || channel.status().discovery_error.is_some()).await;
                shown += &format!("{channel:?} {:?}", channel.status());
                shown += &chain(&unary(&channel, 1).await.unwrap_err());
            }
        }
    }
    drop((agent, server, folder));
    leaks.finish().await;
    drop(guard);
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        shown.contains("403") && logged.contains("Consul denies access"),
        "{logged}"
    );
    for text in [shown, logged] {
        assert!(!text.contains("canary"), "{text}");
    }
}

/// An error with all its causes, in both forms.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        text += &format!("{error} {error:?}\n");
        next = error.source();
    }
    text
}
