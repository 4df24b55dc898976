//! Score card rows 44, 47, 50 and 51 with a real Consul agent.
#![cfg(feature = "consul")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

mod consul;
mod rows;
mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use consul::agent::Agent;
use consul::api::Api;
use consul::registration::Registration;
use fastrand::Rng;
use rows::calls::{call, call_with, request};
use rows::limit;
use rows::rig::{LIMIT, Rig, SINGLE_IDS, server};
use serde_json::{Value, json};
use support::place::Place;
use support::server::EchoServer;
use support::wait::{Asking, holds_within, wait_equal, wait_until};
use tokio::time::{Instant, interval, timeout};
use tonic::Status;
use trunkline::{Channel, ChannelStatus, Connector, Consul, Error, Outage, State};

const HANDLER: Duration = Duration::from_millis(5);

const SERVICE: &str = "web";

/// A node that no agent looks after, so all that is registered there stays as it is.
const ELSEWHERE: &str = "elsewhere";

/// The longest time between two queries of an agent that can't be reached.
const POLL: Duration = Duration::from_secs(60);

/// Ids of calls beside the load begin here.
const PROBE_IDS: u64 = SINGLE_IDS * 3;

/// A hundred times a second something in the service changes, of which the servers under load are a part that does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_44_consul_churns() {
    let (mut rig, agent) = start(Outage::drain()).await;
    let passing = server("d", HANDLER);
    let dead = [Place::tcp(), Place::tcp()];
    let come_and_go = [passing.addr(), dead[0].addr(), dead[1].addr()];

    let load = rig.load();
    let fault = load.part(1, 12).await;
    let mut rng = Rng::with_seed(44);
    let (mut changes, mut answers, mut revision) = (0, 0, None);
    let churn = async {
        let mut tick = interval(Duration::from_millis(10));
        loop {
            tick.tick().await;
            let nth = rng.usize(..come_and_go.len());
            let id = format!("passing-{nth}");
            if rng.bool() {
                let mut service = service(&id, come_and_go[nth]);
                service["Tags"] = json!([format!("tag-{}", rng.u8(..))]);
                service["Weights"] = json!({"Passing": rng.u32(1..5), "Warning": 1});
                register_elsewhere(&agent.api(), service).await;
            } else {
                deregister_elsewhere(&agent.api(), &id).await;
            }
            changes += 1;
            let now = rig.single.channel.status().resolution_revision;
            answers += u64::from(now != revision);
            revision = now;
        }
    };
    let _ = timeout(rows::duration() * 10 / 12, churn).await;
    for nth in 0..come_and_go.len() {
        deregister_elsewhere(&agent.api(), &format!("passing-{nth}")).await;
    }
    wait_until(LIMIT, || has(&rig, 3)).await;
    let reports = load.finish().await;

    dialled_once(&rig);
    let journal = passing.journal();
    let passing_calls = journal.started();
    assert!(passing_calls > 0, "{} was used", passing.name());
    // Its calls came to their end before it was left.
    assert_eq!(passing_calls, journal.finished());
    wait_equal(LIMIT, 0, || journal.open()).await;
    let figures = [
        ("changes", changes),
        ("answers", answers),
        ("passing_calls", passing_calls),
    ];
    rig.servers.push(passing);
    drop((agent, dead));
    let recovery = reports.recovery(fault);
    rig.score("44b", &reports, Some(recovery), &figures).await;
    reports.none_failed();
    assert!(
        changes * 20 >= rows::duration().as_millis() as u64,
        "{changes} changes"
    );
}

/// The agent is killed, and comes back with nothing of what it knew. The services are registered again, one after the
/// other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_47_agent_killed_and_wiped() {
    let (mut rig, mut agent) = start(Outage::drain()).await;
    let load = rig.load();
    let fault = load.part(1, 6).await;
    agent.kill();
    load.part(1, 2).await;
    let meanwhile = statuses(&rig);
    agent.restart().await;
    let back = Instant::now();
    let says = |it: &ChannelStatus, what: &str| {
        let error = it.discovery_error.as_ref();
        error.is_some_and(|it| it.contains(what))
    };
    let is_found = || {
        let statuses = statuses(&rig);
        statuses.iter().all(|it| says(it, "no usable endpoint"))
    };
    wait_until(POLL + LIMIT, is_found).await;
    let caught_up = back.elapsed();
    for nth in 0..3 {
        register(&agent.api(), &rig.servers[nth]).await;
        let listed = |it: &ChannelStatus| it.endpoints.iter().filter(|it| it.listed).count();
        let are_listed = || statuses(&rig).iter().all(|it| listed(it) == nth + 1);
        wait_until(LIMIT, are_listed).await;
        assert_eq!(statuses(&rig).map(|it| it.endpoints.len()), [3; 2]);
    }
    rig.servers.push(server("d", HANDLER));
    let change = Instant::now();
    register(&agent.api(), &rig.servers[3]).await;
    wait_until(LIMIT, || has(&rig, 4)).await;
    let change = change.elapsed();
    let reports = load.finish().await;

    dialled_once(&rig);
    drop(agent);
    let recovery = reports.recovery(fault);
    let figures = [
        ("caught_up_ms", caught_up.as_millis() as u64),
        ("change_seen_ms", change.as_millis() as u64),
    ];
    rig.score("47a", &reports, Some(recovery), &figures).await;
    reports.none_failed();
    for status in &meanwhile {
        assert_eq!(status.endpoints.len(), 3, "{status:?}");
        assert!(says(status, "the agent can't be reached"), "{status:?}");
    }
    // The agent is asked once a second, and the changes before this one have used up what may be asked at once.
    let most = limit(Duration::from_secs(1)) + Duration::from_millis(100);
    assert!(change <= most, "{change:?}");
}

/// Who waits for a connection is told in time that there is no agent; who does not is served as soon as there is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_50_agent_down_at_first() {
    let ready_timeout = Duration::from_secs(1);
    let publish = async |_: &[EchoServer]| {
        let mut agent = Agent::start().await;
        agent.kill();
        let addr = agent.http_addr();
        (move || Connector::consul(ask(addr)), agent)
    };
    let (rig, mut agent) = Rig::start_lazy(HANDLER, publish).await;
    let began = Instant::now();
    let connector = Connector::consul(ask(agent.http_addr())).ready_timeout(ready_timeout);
    let error = connector.connect().await.unwrap_err();
    let took = began.elapsed();

    let load = rig.load();
    load.part(1, 6).await;
    agent.restart().await;
    for server in &rig.servers {
        register(&agent.api(), server).await;
    }
    let (up, registered) = (load.elapsed(), Instant::now());
    for (nth, side) in (0..).zip([&rig.retrying, &rig.single]) {
        let asking = Asking::for_at_most(LIMIT * 2);
        let mut ids = PROBE_IDS + nth * SINGLE_IDS..;
        while let Err(status) = call(side.channel.clone(), ids.next().unwrap()).await {
            assert!(asking.again().await, "{status}");
        }
    }
    let served = registered.elapsed();
    let reports = load.finish().await;
    holds_within(LIMIT, || has(&rig, 3)).await;
    assert!(has(&rig, 3), "{:?}", statuses(&rig));

    let text = error.to_string();
    let addr = agent.http_addr().to_string();
    drop(agent);
    let recovery = reports.recovery(up);
    let figures = [
        ("connect_ms", took.as_millis() as u64),
        ("served_ms", served.as_millis() as u64),
    ];
    rig.score("50", &reports, Some(recovery), &figures).await;
    assert!(text.contains(&addr), "{text}");
    assert!(took >= ready_timeout, "{took:?}");
    let late = took - ready_timeout;
    assert!(late <= limit(Duration::from_millis(50)), "{late:?}");
    let two_seconds = limit(Duration::from_secs(2));
    assert!(served <= two_seconds, "{served:?}");
    assert!(recovery <= two_seconds, "{recovery:?}");
    for failure in reports.retrying.failed.iter().chain(&reports.single.failed) {
        // They say why there was nobody to call.
        let error = Error::from_status(&failure.status).unwrap().to_string();
        assert!(error.contains(&addr), "{error}");
    }
}

/// All instances are replaced in one transaction. The old ones stay in use, for as long as they work: they are shut down a
/// while later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_51_all_replaced() {
    let doubted = replace_all("51a", Outage::drain(), async |rig| {
        for server in &mut rig.servers[..3] {
            server.shutdown().await;
        }
    });
    assert!(doubted.await);
}

/// The same where every answer is believed at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_51_all_replaced_and_believed() {
    let doubted = replace_all("51b", Outage::drain().guard(1.0), async |rig| {
        for server in &rig.servers[..3] {
            let journal = server.journal();
            assert_eq!(journal.started(), journal.finished(), "{}", server.name());
        }
    });
    assert!(!doubted.await);
}

/// Says whether the old ones were still used once the new ones were.
async fn replace_all(row: &str, outage: Outage, later: impl AsyncFnOnce(&mut Rig)) -> bool {
    let (mut rig, agent) = start_with(outage, async |api, servers| {
        for server in servers {
            register_elsewhere(api, service(server.name(), server.addr())).await;
        }
    })
    .await;
    let answered = Answered::default();
    let answers = answered.clone();
    let load = rig.load_with(move |channel, id| answers.clone().call(channel, id));
    let fault = load.part(1, 3).await;
    rig.servers
        .extend(["d", "e", "f"].map(|name| server(name, HANDLER)));
    replace_elsewhere(&agent.api(), &rig.servers[..3], &rig.servers[3..]).await;
    let new = &rig.servers[3..];
    wait_until(LIMIT, || new.iter().all(|it| it.journal().started() > 0)).await;
    let doubted = rig.single.channel.status().endpoints.len() > 3;
    load.part(2, 3).await;
    later(&mut rig).await;
    wait_until(LIMIT, || has(&rig, 3)).await;
    let reports = load.finish().await;

    let last_old = answered.times(&rig.servers[..3]).max().unwrap();
    let first_new = answered.times(&rig.servers[3..]).min().unwrap();
    let gap = first_new.saturating_duration_since(last_old);
    drop(agent);
    let recovery = reports.recovery(fault);
    let figures = [
        ("gap_ms", gap.as_millis() as u64),
        ("doubted", doubted.into()),
    ];
    rig.score(row, &reports, Some(recovery), &figures).await;
    reports.no_idempotent_failed();
    assert!(gap <= limit(Duration::from_millis(50)), "{gap:?}");
    doubted
}

/// When calls were answered, and by whom. Clones share it.
#[derive(Clone, Debug, Default)]
struct Answered(Arc<Mutex<Vec<(String, Instant)>>>);

impl Answered {
    async fn call(self, channel: Channel, id: u64) -> Result<(), Status> {
        let reply = call_with(channel, request(id)).await?;
        let mut answered = self.0.lock().unwrap();
        answered.push((reply.server, Instant::now()));
        Ok(())
    }

    fn times(&self, servers: &[EchoServer]) -> impl Iterator<Item = Instant> {
        let answered = self.0.lock().unwrap().clone();
        let names: Vec<_> = servers.iter().map(|it| it.name().to_owned()).collect();
        answered
            .into_iter()
            .filter_map(move |(name, at)| names.contains(&name).then_some(at))
    }
}

/// A rig whose channels ask an agent with which the three servers are registered.
async fn start(outage: Outage) -> (Rig, Agent) {
    start_with(outage, async |api, servers| {
        for server in servers {
            register(api, server).await;
        }
    })
    .await
}

async fn start_with(
    outage: Outage,
    register: impl AsyncFnOnce(&Api, &[EchoServer]),
) -> (Rig, Agent) {
    let publish = async |servers: &[EchoServer]| {
        let agent = Agent::start().await;
        register(&agent.api(), servers).await;
        let asking = Asking::for_at_most(LIMIT);
        while agent.api().health(SERVICE).await.len() < servers.len() {
            assert!(asking.again().await, "the catalogue lacks servers");
        }
        let consul = ask(agent.http_addr()).outage(outage);
        (move || Connector::consul(consul.clone()), agent)
    };
    Rig::start_published(HANDLER, publish).await
}

/// With the longest wait there is: a query that waits for nothing shows.
fn ask(agent: SocketAddr) -> Consul {
    Consul::service(SERVICE)
        .agent(agent.to_string())
        .wait(Duration::from_secs(600))
}

async fn register(api: &Api, server: &EchoServer) {
    api.register(&Registration::of(SERVICE, server)).await;
}

fn service(id: &str, addr: SocketAddr) -> Value {
    json!({
        "ID": id,
        "Service": SERVICE,
        "Address": addr.ip().to_string(),
        "Port": addr.port(),
    })
}

async fn register_elsewhere(api: &Api, service: Value) {
    let node = json!({"Node": ELSEWHERE, "Address": "127.0.0.1", "Service": service});
    put(api, "/v1/catalog/register", &node).await;
}

async fn deregister_elsewhere(api: &Api, id: &str) {
    let service = json!({"Node": ELSEWHERE, "ServiceID": id});
    put(api, "/v1/catalog/deregister", &service).await;
}

/// In one transaction: no answer has some of both.
async fn replace_elsewhere(api: &Api, old: &[EchoServer], new: &[EchoServer]) {
    let step = |verb: &str, server: &EchoServer| {
        let service = service(server.name(), server.addr());
        json!({"Service": {"Verb": verb, "Node": ELSEWHERE, "Service": service}})
    };
    let deleted = old.iter().map(|it| step("delete", it));
    let steps: Value = deleted
        .chain(new.iter().map(|it| step("set", it)))
        .collect();
    put(api, "/v1/txn", &steps).await;
}

async fn put(api: &Api, path: &str, body: &Value) {
    let answer = api.put(path, body).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
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

/// The rig's own servers still have the connections that they had at first.
fn dialled_once(rig: &Rig) {
    for server in &rig.servers[..3] {
        let accepted = server.journal().accepted();
        assert_eq!(accepted, 2, "{}: one for each channel", server.name());
    }
}
