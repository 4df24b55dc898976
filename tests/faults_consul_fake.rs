//! Score card rows 46 to 49, as far as they take an agent that does what no real one does on demand.
#![cfg(feature = "consul")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod consul;
mod rows;
mod support;

use std::iter::empty;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use consul::fake::{Answer, Ask, Body, Fake, Reply, entry, knows, listing};
use rows::memory::{self, resident_kib};
use rows::rig::{LIMIT, Rig, server};
use rows::{is_strict, limit};
use serde_json::Value;
use support::leak::LeakCheck;
use support::report::Report;
use support::wait::wait_until;
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt;
use trunkline::{Backoff, ChannelStatus, Connector, Consul, Discover, State};

const HANDLER: Duration = Duration::from_millis(5);

/// How long a query waits for a change.
const WAIT: Duration = Duration::from_secs(1);

/// The index of the first answer, and one that is higher than all others.
const FIRST: u64 = 1000;
const LAST: u64 = 1_000_000;

/// From an answer's head to its end.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// For an answer without a wait, and on top of a wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest time between two queries of an agent that can't be reached.
const POLL: Duration = Duration::from_secs(60);

/// Consul says for a while that there is no instance. What it said before stays in use, and the channels say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_46_empty_answer() {
    let (rig, fake) = start(WAIT).await;
    let load = rig.load();
    let fault = load.part(1, 4).await;
    let before = oldest(&rig);
    fake.follow(knows(FIRST + 1, listing(empty())));
    let told = Instant::now();
    load.part(3, 4).await;
    let lasted = told.elapsed();
    let meanwhile = statuses(&rig);
    fake.follow(knows(FIRST + 2, listing(&rig.servers)));
    let healed = |it: &ChannelStatus| {
        let confirmed = it.resolution_age.is_some_and(|age| age < WAIT);
        confirmed && it.discovery_error.is_none() && it.endpoints.iter().all(|it| it.listed)
    };
    wait_until(LIMIT, || statuses(&rig).iter().all(healed)).await;
    let reports = load.finish().await;

    for status in &meanwhile {
        let age = status.resolution_age.unwrap();
        assert!(
            age >= lasted - limit(Duration::from_millis(50)).min(WAIT),
            "{age:?}"
        );
        let error = status.discovery_error.as_ref().unwrap();
        assert!(error.contains("no usable endpoint"), "{error}");
        assert_eq!(status.endpoints.len(), 3);
        for endpoint in &status.endpoints {
            assert!(
                !endpoint.listed && endpoint.leaves_in.is_some(),
                "{endpoint:?}"
            );
        }
    }
    let after = oldest(&rig);
    assert!(before < LIMIT && after < LIMIT, "{before:?} {after:?}");
    dialled_once(&rig);
    let figures = [
        ("age_before_ms", before.as_millis() as u64),
        ("age_meanwhile_ms", oldest_of(&meanwhile).as_millis() as u64),
        ("age_after_ms", after.as_millis() as u64),
        ("queries", fake.queries()),
        ("agent_connections", fake.connections()),
    ];
    drop(fake);
    let recovery = reports.recovery(fault);
    rig.score("46", &reports, Some(recovery), &figures).await;
    reports.none_failed();
}

/// An agent that closes each connection is asked no more often than the backoff allows, and found again once it answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_47_agent_closes_every_connection() {
    let (mut rig, fake) = start(WAIT).await;
    let load = rig.load();
    let fault = load.part(1, 6).await;
    let (before, from) = (fake.queries(), Instant::now());
    fake.follow(|_: &Ask| Answer::Close);
    load.part(1, 2).await;
    let (queries, span) = (fake.queries() - before, from.elapsed());
    let error = rig.single.channel.status().discovery_error;

    rig.servers.push(server("d", HANDLER));
    fake.follow(knows(FIRST + 1, listing(&rig.servers)));
    let back = Instant::now();
    wait_until(POLL + LIMIT, || has(&rig, 4)).await;
    let caught_up = back.elapsed();
    let reports = load.finish().await;

    dialled_once(&rig);
    let figures = [
        ("queries", queries),
        ("queries_allowed", most_queries(span)),
        ("caught_up_ms", caught_up.as_millis() as u64),
    ];
    drop(fake);
    let recovery = reports.recovery(fault);
    rig.score("47b", &reports, Some(recovery), &figures).await;
    reports.none_failed();
    let error = error.expect("the channel says what is wrong");
    assert!(error.contains("connection to the agent failed"), "{error}");
    assert!(queries <= most_queries(span), "{queries} in {span:?}");
}

/// The same for ten minutes of a clock that is moved by hand.
#[tokio::test(start_paused = true)]
async fn row_47_ten_minutes_without_an_agent() {
    let leaks = LeakCheck::start().await;
    let addr = |port: u16| ([127, 0, 0, 1], port).into();
    let listing = |ports: &[u16]| {
        let entries = ports
            .iter()
            .map(|&port| entry(&port.to_string(), addr(port)));
        Value::from_iter(entries).to_string()
    };
    let fake = Fake::start(knows(FIRST, listing(&[1])));
    let mut answers = Box::new(Consul::service("web").agent(fake.agent())).resolutions();
    let first = answers.next().await.unwrap().unwrap();
    assert_eq!(first.endpoints.len(), 1);

    let (before, from) = (fake.queries(), Instant::now());
    fake.follow(|_: &Ask| Answer::Close);
    let mut troubles = 0;
    let down = async {
        while let Some(Err(_)) = answers.next().await {
            troubles += 1;
        }
        panic!("an answer, or the end");
    };
    let _ = timeout(Duration::from_secs(600), down).await;
    let (queries, span) = (fake.queries() - before, from.elapsed());

    fake.follow(knows(FIRST + 1, listing(&[1, 2])));
    let back = Instant::now();
    let found = async {
        loop {
            if let Ok(answer) = answers.next().await.unwrap() {
                return answer;
            }
        }
    };
    let found = timeout(POLL + LIMIT, found).await.unwrap();
    let caught_up = back.elapsed();
    assert_eq!(found.endpoints.len(), 2);
    assert_eq!(found.revision, Some((FIRST + 1).to_string()));

    drop((answers, fake));
    let figures = [
        ("queries", queries),
        ("queries_allowed", most_queries(span)),
        ("caught_up_ms", caught_up.as_millis() as u64),
        ("troubles", troubles),
    ];
    let leak = leaks.leaked().await;
    Report::default().score_with("47c", &[], leak, None, &figures);
    assert!(troubles > 0);
    assert!(queries <= most_queries(span), "{queries} in {span:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_48_index_goes_back() {
    nonsense_index("48a", |nth| Some((FIRST - 1 - nth).to_string())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_48_index_goes_back_and_forth() {
    nonsense_index("48b", |nth| {
        Some(if nth % 2 == 0 { "3" } else { "1000" }.to_owned())
    })
    .await;
}

/// The servers lost their state: the index is low once, and what comes next are the answers of a real agent, which are
/// held. Who went on with the index of before would wait for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_48_index_starts_again() {
    let told = Arc::new(AtomicBool::new(false));
    changes_are_seen("48f", POLL, |nth, listing| {
        let (told, reply) = (told.clone(), Reply::new(nth + 2, listing));
        let as_usual = knows(nth + 2, listing.to_owned());
        move |ask| match ask.index() {
            Some(FIRST) if !told.swap(true, SeqCst) => Answer::Now(reply.clone()),
            _ => as_usual(ask),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_48_index_is_0() {
    nonsense_index("48c", |_| Some("0".to_owned())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_48_index_is_missing() {
    nonsense_index("48d", |_| None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_48_index_is_garbage() {
    let garbage = [
        "abc",
        "-4",
        "1e9",
        "18446744073709551616",
        "0x10",
        "7 8",
        "",
    ];
    nonsense_index("48e", move |nth| {
        Some(garbage[nth as usize % garbage.len()].to_owned())
    })
    .await;
}

/// The agent stops in the middle of its work, and takes a new connection all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_49_silence() {
    let expected = |ask: &Ask| match ask.index() {
        // The server may add a sixteenth to the wait.
        Some(_) => WAIT + WAIT / 16 + PATIENCE,
        None => PATIENCE,
    };
    slow_answers("49a", |_| Answer::Never, expected).await;
}

/// The head of an answer comes at once, and a byte of its body each second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_49_drip() {
    let drip = |listing: String| Answer::Now(Reply::new(FIRST + 1, "").body(Body::Drip(listing)));
    slow_answers("49b", drip, |_| BODY_LIMIT).await;
}

/// An answer says of itself that it has 64 MiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_49_flood_announced() {
    flood("49c", false).await;
}

/// An answer has 64 MiB and does not say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_49_flood_in_chunks() {
    flood("49d", true).await;
}

/// Every answer comes at once, with an index like this for answer number so and so.
async fn nonsense_index(row: &str, index: impl Fn(u64) -> Option<String> + Send + Sync + 'static) {
    let index = Arc::new(index);
    let answers = Arc::new(AtomicU64::new(0));
    changes_are_seen(row, WAIT, |_, listing| {
        let (listing, index, answers) = (listing.to_owned(), index.clone(), answers.clone());
        move |_| {
            let index = index(answers.fetch_add(1, SeqCst));
            Answer::Now(Reply::new(0, &*listing).index(index))
        }
    })
    .await;
}

/// The set changes again and again under a script like this, which is told the number of the change and what the service
/// is from then on. The agent is asked no more than twice a second, and what it says is heard.
async fn changes_are_seen<S>(row: &str, wait: Duration, script: impl Fn(u64, &str) -> S)
where
    S: Fn(&Ask) -> Answer + Send + Sync + 'static,
{
    let (mut rig, fake) = start(wait).await;
    rig.servers.push(server("d", HANDLER));
    let (without, with) = (listing(&rig.servers[..3]), listing(&rig.servers));
    let load = rig.load();
    let fault = load.part(1, 3).await;
    let (before, from) = (fake.queries(), Instant::now());
    fake.follow(script(0, &without));
    let end = rows::duration() * 2 / 3;
    let (mut changes, mut slowest) = (0, Duration::ZERO);
    while load.elapsed() < end {
        changes += 1;
        let (listing, count) = if changes % 2 == 1 {
            (&with, 4)
        } else {
            (&without, 3)
        };
        fake.follow(script(changes, listing));
        let changed = Instant::now();
        wait_until(LIMIT, || has(&rig, count)).await;
        slowest = slowest.max(changed.elapsed());
    }
    let (queries, span) = (fake.queries() - before, from.elapsed());
    let seconds = span.as_secs_f64();
    // And all is as before.
    fake.follow(knows(LAST, with));
    wait_until(LIMIT, || {
        has(&rig, 4) && revision(&rig) == Some(LAST.to_string())
    })
    .await;
    let reports = load.finish().await;

    assert!(rig.servers[3].journal().started() > 0);
    let agent_connections = fake.connections();
    dialled_once(&rig);
    let figures = [
        ("queries", queries),
        ("seconds", seconds as u64),
        ("changes", changes),
        ("slowest_ms", slowest.as_millis() as u64),
        ("agent_connections", agent_connections),
    ];
    drop(fake);
    let recovery = reports.recovery(fault);
    rig.score(row, &reports, Some(recovery), &figures).await;
    reports.none_failed();
    // A burst of 5 may come on top.
    assert!(
        queries as f64 <= 5.0 + 2.0 * seconds,
        "{queries} in {seconds} s"
    );
    // With a query each second, and the time that one takes.
    let most = limit(Duration::from_secs(1)) + Duration::from_millis(100);
    assert!(slowest <= most, "{slowest:?}");
    assert_eq!(agent_connections, 1, "no answer was at fault");
}

/// Every answer is like this for a third of the time. In a long run the queries are given up when `expected` is over.
async fn slow_answers(
    row: &str,
    answer: impl Fn(String) -> Answer,
    expected: impl Fn(&Ask) -> Duration,
) {
    let (mut rig, fake) = start(WAIT).await;
    let load = rig.load();
    let fault = load.part(1, 3).await;
    let answer = answer(listing(&rig.servers));
    fake.follow(move |_: &Ask| answer.clone());
    load.part(2, 3).await;
    let meanwhile = statuses(&rig);
    rig.servers.push(server("d", HANDLER));
    fake.follow(knows(FIRST + 1, listing(&rig.servers)));
    if is_strict() {
        // What goes on is given up, and the next one is after the backoff.
        wait_until(PATIENCE * 2, || has(&rig, 4)).await;
    }
    let reports = load.finish().await;

    let given_up = fake.given_up();
    let longest = given_up.iter().map(|it| it.after).max();
    dialled_once(&rig);
    let figures = [
        ("given_up", given_up.len() as u64),
        ("longest_ms", longest.unwrap_or_default().as_millis() as u64),
        ("agent_connections", fake.connections()),
    ];
    drop(fake);
    let recovery = reports.recovery(fault);
    rig.score(row, &reports, Some(recovery), &figures).await;
    reports.none_failed();
    for status in &meanwhile {
        assert_eq!(status.endpoints.len(), 3, "{status:?}");
    }
    if is_strict() {
        assert!(!given_up.is_empty());
        let error = meanwhile[0].discovery_error.as_ref().unwrap();
        assert!(error.contains("took longer than"), "{error}");
    }
    for it in &given_up {
        let expected = expected(&it.ask);
        let leeway = Duration::from_millis(50);
        assert!(it.after + leeway >= expected, "{it:?}");
        assert!(
            it.after <= expected + limit(Duration::from_millis(500)),
            "{it:?}"
        );
    }
}

/// Every answer has 64 MiB for a third of the time.
async fn flood(row: &str, chunked: bool) {
    const FLOOD: u64 = 64 * 1024 * 1024;
    /// An answer may have 12 MiB. The others are for buffers, and for what the load keeps of its calls.
    const MOST_KIB: u64 = 16 * 1024;

    let (mut rig, fake) = start(WAIT).await;
    let load = rig.load();
    let fault = load.part(1, 3).await;
    let before = resident_kib();
    let mut peak = before;
    let body = Body::Spaces {
        bytes: FLOOD,
        chunked,
    };
    fake.follow(move |_: &Ask| Answer::Now(Reply::new(FIRST + 1, "").body(body.clone())));
    load.watch(2, 3, || peak = peak.max(resident_kib())).await;
    let meanwhile = statuses(&rig);
    rig.servers.push(server("d", HANDLER));
    fake.follow(knows(FIRST + 1, listing(&rig.servers)));
    wait_until(POLL + LIMIT, || has(&rig, 4)).await;
    let reports = load.finish().await;

    dialled_once(&rig);
    let given_up = fake.given_up().len() as u64;
    let grown = peak - before;
    let figures = [
        ("given_up", given_up),
        ("rss_kib_before", before),
        ("rss_kib_grown", grown),
    ];
    drop(fake);
    let recovery = reports.recovery(fault);
    rig.score(row, &reports, Some(recovery), &figures).await;
    reports.none_failed();
    assert!(given_up > 0);
    for status in &meanwhile {
        assert_eq!(status.endpoints.len(), 3, "{status:?}");
        let error = status.discovery_error.as_ref().unwrap();
        assert!(error.contains("max_answer_bytes"), "{error}");
    }
    if memory::is_steady() {
        assert!(grown <= MOST_KIB, "{grown} KiB");
    }
}

/// A rig whose channels ask a fake agent, which knows the three servers.
async fn start(wait: Duration) -> (Rig, Fake) {
    Rig::start_published(HANDLER, async |servers| {
        let fake = Fake::start(knows(FIRST, listing(servers)));
        let consul = Consul::service("web").agent(fake.agent()).wait(wait);
        (move || Connector::consul(consul.clone()), fake)
    })
    .await
}

fn statuses(rig: &Rig) -> [ChannelStatus; 2] {
    [&rig.retrying, &rig.single].map(|side| side.channel.status())
}

/// Whether both channels have so many endpoints, all of them connected.
fn has(rig: &Rig, count: usize) -> bool {
    statuses(rig).iter().all(|it| {
        it.endpoints.len() == count && it.endpoints.iter().all(|it| it.state == State::Ready)
    })
}

fn revision(rig: &Rig) -> Option<String> {
    rig.single.channel.status().resolution_revision
}

/// How old the channels' endpoints are, by what they say.
fn oldest(rig: &Rig) -> Duration {
    oldest_of(&statuses(rig))
}

fn oldest_of(statuses: &[ChannelStatus]) -> Duration {
    let ages = statuses.iter().filter_map(|it| it.resolution_age);
    ages.max().unwrap()
}

/// The rig's own servers still have the connections that they had at first.
fn dialled_once(rig: &Rig) {
    for server in &rig.servers[..3] {
        let accepted = server.journal().accepted();
        assert_eq!(accepted, 2, "{}: one for each channel", server.name());
    }
}

/// The most queries that fail in this time, but for a chance of less than one in a million.
///
/// Each of the documented delays is anything from nothing to twice its mean. The chance that `n` of them together are no
/// longer than `span` is at most `spanⁿ / n!` over the product of the longest ones: the volume of a simplex over that of
/// the box that it lies in.
fn most_queries(span: Duration) -> u64 {
    let backoff = Backoff::calls()
        .initial(Duration::from_millis(500))
        .max(Duration::from_secs(30))
        .jitter(1.0);
    let (mut chance, mut delays) = (1.0, 0);
    while chance > 1e-6 {
        delays += 1;
        let longest = backoff.delay(delays, 1.0);
        chance *= span.as_secs_f64() / f64::from(delays) / longest.as_secs_f64();
    }
    // One before the first delay, and none after the last.
    delays.into()
}
