//! Rules of discovery through Consul that only a scripted agent can put to the test.
#![cfg(feature = "consul")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod consul;
mod support;

use std::time::Duration;

use consul::fake::{Answer, Ask, Fake, Reply, entry, knows, listing};
use serde_json::Value;
use support::leak::LeakCheck;
use support::scratch::Scratch;
use support::server::EchoServer;
use support::wait::{wait_equal, wait_until};
use trunkline::{Channel, Connector, Consul, Outage};

const LIMIT: Duration = Duration::from_secs(15);

fn web(fake: &Fake) -> Consul {
    Consul::service("web").agent(fake.agent())
}

fn lazy(service: Consul) -> Channel {
    Connector::consul(service).connect_lazy().unwrap()
}

fn ids(channel: &Channel) -> Vec<String> {
    let mut ids: Vec<_> = channel
        .status()
        .endpoints
        .into_iter()
        .map(|it| it.metadata["consul.id"].clone())
        .collect();
    ids.sort_unstable();
    ids
}

fn sees(channel: &Channel, expected: &[&str]) -> impl Future<Output = ()> + use<> {
    let expected: Vec<_> = expected.iter().map(|it| (*it).to_owned()).collect();
    let channel = channel.clone();
    wait_equal(LIMIT, expected, move || ids(&channel))
}

fn trouble(channel: &Channel) -> String {
    channel.status().discovery_error.unwrap_or_default()
}

/// A body with instances that nobody dials into.
fn instances(names: &[&str]) -> String {
    let place = |nth: usize| std::net::SocketAddr::from(([127, 0, 0, 1], 1001 + nth as u16));
    let entries = names
        .iter()
        .enumerate()
        .map(|(nth, name)| entry(name, place(nth)));
    Value::from_iter(entries).to_string()
}

/// The same, all critical.
fn critical(names: &[&str]) -> String {
    instances(names).replace("passing", "critical")
}

/// What another datacenter's agent does, by the name in the query.
fn by_datacenter(
    first: impl Fn(&Ask) -> Answer + Send + Sync + 'static,
    second: impl Fn(&Ask) -> Answer + Send + Sync + 'static,
) -> impl Fn(&Ask) -> Answer + Send + Sync + 'static {
    move |ask| {
        if ask.path.contains("dc=dc1") {
            first(ask)
        } else {
            second(ask)
        }
    }
}

fn failing(ask: &Ask) -> Answer {
    let _ = ask;
    Answer::Now(Reply {
        status: 500,
        ..Reply::new(1, "No path to datacenter")
    })
}

#[tokio::test]
async fn leaders_that_come_and_go_leave_no_debt() {
    let leaks = LeakCheck::start().await;
    let fake = Fake::start(knows(7, instances(&["a"])));
    let mut channels: Vec<_> = (0..40).map(|_| lazy(web(&fake))).collect();
    for channel in &channels {
        sees(channel, &["a"]).await;
    }
    let last = channels.pop().unwrap();
    for channel in channels {
        // The next one in line has its turn before it goes, too.
        channel.close(Duration::from_secs(1)).await;
    }
    fake.follow(knows(8, instances(&["a", "b"])));
    sees(&last, &["a", "b"]).await;
    drop((last, fake));
    leaks.finish().await;
}

#[tokio::test]
async fn an_agent_that_closes_after_each_answer_is_followed_all_the_same() {
    let leaks = LeakCheck::start().await;
    let closing = |index, body| {
        let knows = knows(index, body);
        move |ask: &Ask| match knows(ask) {
            Answer::Now(reply) => Answer::Now(reply.closing()),
            Answer::Hold(reply) => Answer::Hold(reply.closing()),
            other => other,
        }
    };
    let fake = Fake::start(closing(7, instances(&["a"])));
    let channel = lazy(web(&fake));
    sees(&channel, &["a"]).await;
    wait_equal(LIMIT, 2, || fake.queries()).await;
    for index in 8..11_u64 {
        let names = ["a", "b", "c", "d"];
        fake.follow(closing(index, instances(&names[..index as usize - 6])));
        sees(&channel, &names[..index as usize - 6]).await;
    }
    // The last one is under way once more.
    wait_equal(LIMIT, 5, || fake.queries()).await;
    let asked: Vec<_> = fake.asked().iter().map(Ask::index).collect();
    assert_eq!(asked, [None, Some(7), Some(8), Some(9), Some(10)]);
    assert_eq!(fake.connections(), 5);
    drop((channel, fake));
    leaks.finish().await;
}

#[tokio::test]
async fn the_age_is_that_of_the_answer_for_whoever_comes_late() {
    let leaks = LeakCheck::start().await;
    let fake = Fake::start(knows(7, instances(&["a"])));
    let first = lazy(web(&fake));
    sees(&first, &["a"]).await;
    fake.follow(|_: &Ask| Answer::Close);
    wait_until(LIMIT, || !trouble(&first).is_empty()).await;
    let age = |channel: &Channel| channel.status().resolution_age.unwrap_or_default();
    wait_until(LIMIT, || age(&first) > Duration::from_secs(1)).await;
    let second = lazy(web(&fake));
    sees(&second, &["a"]).await;
    assert!(age(&second) > Duration::from_secs(1), "{:?}", age(&second));
    drop((first, second, fake));
    leaks.finish().await;
}

#[tokio::test]
async fn with_nothing_to_serve_from_the_agent_is_asked_each_second() {
    let leaks = LeakCheck::start().await;
    let fake = Fake::start(knows(7, "[]".to_owned()));
    let channel = lazy(web(&fake));
    wait_until(LIMIT, || channel.status().resolution_age.is_some()).await;
    fake.follow(failing);
    let before = fake.queries();
    // With the backoff of a channel that serves, eight failures take a minute and more.
    wait_until(LIMIT, || fake.queries() >= before + 8).await;
    fake.follow(knows(9, instances(&["a"])));
    sees(&channel, &["a"]).await;
    drop((channel, fake));
    leaks.finish().await;
}

#[tokio::test]
async fn a_doubt_is_told_for_as_long_as_it_lasts() {
    let leaks = LeakCheck::start().await;
    let servers = ["a", "b", "c", "d"].map(EchoServer::start_tcp);
    let fake = Fake::start(knows(7, listing(&servers)));
    let outage = Outage::drain().grace(Duration::from_secs(3600));
    let channel = Connector::consul(web(&fake).outage(outage))
        .connect()
        .await
        .unwrap();
    let connected = || {
        channel
            .status()
            .endpoints
            .iter()
            .filter(|it| it.connections > 0)
            .count()
    };
    wait_equal(LIMIT, 4, connected).await;
    let before = fake.queries();
    fake.follow(knows(8, listing(&servers[..1])));
    let doubt = "3 of 4 endpoints were gone at once; those that still work stay in use for 3600s";
    wait_equal(LIMIT, doubt.to_owned(), || trouble(&channel)).await;
    assert!(fake.queries() > before, "it was asked for a second time");
    // The same again, and a change elsewhere.
    fake.follow(knows(9, listing(&servers[..1])));
    wait_equal(LIMIT, Some("9".to_owned()), || {
        channel.status().resolution_revision
    })
    .await;
    assert_eq!(trouble(&channel), doubt);
    assert_eq!(ids(&channel), ["a", "b", "c", "d"]);
    fake.follow(knows(10, listing(&servers)));
    wait_equal(LIMIT, String::new(), || trouble(&channel)).await;
    drop((channel, fake, servers));
    leaks.finish().await;
}

#[tokio::test]
async fn a_lost_answer_is_not_believed_before_it_was_given_twice() {
    let leaks = LeakCheck::start().await;
    let fake = Fake::start(knows(7, instances(&["a", "b", "c"])));
    let channel = lazy(web(&fake));
    sees(&channel, &["a", "b", "c"]).await;
    // A server that is behind answers the blocking query, the leader the second one.
    let whole = instances(&["a", "b", "c", "d"]);
    fake.follow(move |ask: &Ask| match ask.index() {
        Some(7) => Answer::Now(Reply::new(8, "[]")),
        Some(_) => Answer::Hold(Reply::new(9, whole.clone())),
        None => Answer::Now(Reply::new(9, whole.clone())),
    });
    sees(&channel, &["a", "b", "c", "d"]).await;
    assert_eq!(trouble(&channel), "");
    drop((channel, fake));
    leaks.finish().await;
}

#[tokio::test]
async fn a_silent_agent_keeps_nobody_from_serving() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let folder = Scratch::new();
    let path = folder.path("web.json");
    let fake = Fake::start(knows(7, listing([&server])));
    let service = || web(&fake).cache(&path);
    let first = Connector::consul(service()).connect().await.unwrap();
    wait_until(LIMIT, || path.exists()).await;
    drop(first);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    fake.follow(|_: &Ask| Answer::Never);
    // Within the default limit of 5 s, though the agent has 10 s to answer.
    let cached = Connector::consul(service()).connect().await.unwrap();
    assert_eq!(ids(&cached), ["a"]);
    let body = listing([&server]);
    fake.follow(by_datacenter(|_| Answer::Never, knows(7, body)));
    let service = web(&fake).datacenter("dc1").datacenter("dc2");
    let second = Connector::consul(service).connect().await.unwrap();
    assert_eq!(ids(&second), ["a"]);
    let away = "dc1: it has not answered; dc2 is in use meanwhile";
    wait_equal(LIMIT, away.to_owned(), || trouble(&second)).await;
    drop((cached, second, fake, server, folder));
    leaks.finish().await;
}

#[tokio::test]
async fn of_several_datacenters_each_says_why_it_has_none() {
    let leaks = LeakCheck::start().await;
    let fake = Fake::start(by_datacenter(failing, knows(7, critical(&["x"]))));
    let both = || web(&fake).datacenter("dc1").datacenter("dc2");
    let connector = Connector::consul(both()).ready_timeout(Duration::from_secs(2));
    let error = connector.connect().await.unwrap_err().to_string();
    for part in [
        "dc1: the agent answered 500",
        "No path to datacenter",
        "dc2: Consul knows 1 instance: 1 critical",
    ] {
        assert!(error.contains(part), "{error}");
    }

    // What the second one says holds although the first never said anything.
    fake.follow(by_datacenter(failing, knows(8, instances(&["x"]))));
    let channel = lazy(both().outage(Outage::fail()));
    sees(&channel, &["x"]).await;
    fake.follow(by_datacenter(failing, knows(9, "[]".to_owned())));
    sees(&channel, &[]).await;
    drop((channel, fake));
    leaks.finish().await;
}

#[tokio::test]
async fn a_datacenter_that_lost_its_instances_is_not_left_in_a_hurry() {
    let leaks = LeakCheck::start().await;
    let servers = ["a", "b", "c", "far"].map(EchoServer::start_tcp);
    let (near, far) = (listing(&servers[..3]), listing(&servers[3..]));
    let fake = Fake::start(by_datacenter(knows(7, near.clone()), knows(7, far.clone())));
    let outage = Outage::drain().grace(Duration::from_secs(3600));
    let service = web(&fake)
        .datacenter("dc1")
        .datacenter("dc2")
        .outage(outage);
    let channel = Connector::consul(service).connect().await.unwrap();
    let connected = || {
        channel
            .status()
            .endpoints
            .iter()
            .filter(|it| it.connections > 0)
            .count()
    };
    wait_equal(LIMIT, 3, connected).await;

    // Wiped: they may be as well as ever, and stay while they work, beside the others.
    fake.follow(by_datacenter(
        knows(8, "[]".to_owned()),
        knows(7, far.clone()),
    ));
    sees(&channel, &["a", "b", "c", "far"]).await;
    fake.follow(by_datacenter(knows(9, near.clone()), knows(7, far.clone())));
    sees(&channel, &["a", "b", "c"]).await;

    // Critical: that is known of them, and calls go to the other datacenter at once.
    let sick = near.replace("passing", "critical");
    fake.follow(by_datacenter(knows(10, sick), knows(7, far)));
    sees(&channel, &["far"]).await;
    let away = "dc1: Consul knows 3 instances: 3 critical; dc2 is in use meanwhile";
    wait_equal(LIMIT, away.to_owned(), || trouble(&channel)).await;
    drop((channel, fake, servers));
    leaks.finish().await;
}

#[tokio::test]
async fn a_pipe_for_a_token_file_hangs_nothing() {
    let leaks = LeakCheck::start().await;
    let folder = Scratch::new();
    let path = folder.path("token");
    let made = std::process::Command::new("mkfifo")
        .arg(&path)
        .status()
        .unwrap();
    assert!(made.success());
    let fake = Fake::start(knows(7, instances(&["a"])));
    let channel = lazy(web(&fake).token_file(&path));
    wait_until(LIMIT, || {
        trouble(&channel).contains("it is no regular file")
    })
    .await;
    drop((channel, fake));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
    let fake = Fake::start(knows(7, instances(&["a"])));
    let channel = lazy(web(&fake).token_file(&path));
    wait_until(LIMIT, || trouble(&channel).contains("more than 8192 bytes")).await;
    assert_eq!(fake.queries(), 0);
    drop((channel, fake, folder));
    leaks.finish().await;
}
