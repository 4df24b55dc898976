//! Proves what the tests of Consul stand on: a real agent and its API, without the crate under test. It is built with the
//! feature because JSON comes with it.
#![cfg(feature = "consul")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "here a task belongs to its test, whose leak check sees it"
)]

#[path = "rows/apart.rs"]
#[allow(dead_code, unreachable_pub, reason = "rows use more of it")]
mod apart;
mod consul;
mod support;

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use apart::{Apart, say, told, wait_for_end};
use consul::agent::Agent;
use consul::program;
use consul::registration::{Health, Registration};
use consul::tokens::READ_SERVICES;
use serde_json::json;
use support::leak::{LeakCheck, alone};
use support::scratch::Scratch;
use support::server::EchoServer;
use support::wait::{wait_until, within};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);

const MANAGEMENT: &str = "5ca1ab1e-0000-4000-8000-000000000001";
const UNKNOWN: &str = "5ca1ab1e-0000-4000-8000-000000000002";

/// Where nobody needs to listen.
const ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1001);

#[tokio::test]
async fn a_service_comes_and_goes() {
    let leaks = LeakCheck::start().await;
    let server = EchoServer::start_tcp("a");
    let agent = Agent::start().await;
    let api = agent.api();
    api.shows("echo", &[]).await;

    let registration = Registration::of("echo", &server)
        .tags(&["v1", "blue"])
        .meta(&[("zone", "z1")])
        .weights(10, 3)
        .health(Health::Passing);
    api.register(&registration).await;
    let other = Registration::new("echo", "b", ADDR).health(Health::Warning);
    api.register(&other).await;
    api.shows("echo", &[("a", Health::Passing), ("b", Health::Warning)])
        .await;
    let passing = api.get("/v1/health/service/echo?passing").await.json();
    assert_eq!(passing.as_array().unwrap().len(), 1);
    let service = &passing[0]["Service"];
    assert_eq!(service["Address"], server.addr().ip().to_string());
    assert_eq!(service["Port"], server.addr().port());
    assert_eq!(service["Tags"], json!(["v1", "blue"]));
    assert_eq!(service["Meta"], json!({"zone": "z1"}));
    assert_eq!(service["Weights"], json!({"Passing": 10, "Warning": 3}));
    assert_eq!(passing[0]["Node"]["Node"], agent.node_name());

    api.set_health("a", Health::Critical).await;
    api.shows("echo", &[("a", Health::Critical), ("b", Health::Warning)])
        .await;
    api.set_health("a", Health::Passing).await;
    api.deregister("b").await;
    api.shows("echo", &[("a", Health::Passing)]).await;
    api.maintenance("a", true).await;
    api.shows("echo", &[("a", Health::Critical)]).await;
    api.maintenance("a", false).await;
    api.shows("echo", &[("a", Health::Passing)]).await;

    let index = api.get("/v1/health/service/echo").await.index();
    let path = format!("/v1/health/service/echo?wait=60s&index={index}");
    let query = tokio::spawn(api.get(&path));
    api.deregister("a").await;
    let changed = within(LIMIT, "a blocking query", query).await.unwrap();
    assert!(changed.index() > index);
    assert_eq!(changed.json(), json!([]));

    drop((agent, server));
    leaks.finish().await;
}

#[tokio::test]
async fn acls_deny() {
    let leaks = LeakCheck::start().await;
    let agent = Agent::builder().acls(MANAGEMENT).start().await;
    let api = agent.api();
    api.register(&Registration::new("echo", "a", ADDR)).await;
    api.shows("echo", &[("a", Health::Passing)]).await;

    let path = "/v1/health/service/echo";
    let denied = api.clone().without_token().get(path).await;
    assert_eq!(denied.status, 200);
    assert_eq!(denied.json(), json!([]));
    let refused = api.clone().with_token(UNKNOWN).get(path).await;
    assert_eq!(
        (refused.status, refused.text()),
        (403, "ACL not found".into())
    );

    let token = api.create_token("reader", READ_SERVICES).await;
    let reader = api.clone().with_token(&token.secret);
    reader.shows("echo", &[("a", Health::Passing)]).await;
    let kept_out = reader.put("/v1/agent/service/deregister/a", &json!(null));
    assert_eq!(kept_out.await.status, 403);
    api.delete_token(&token).await;
    assert_eq!(reader.get(path).await.status, 403);

    drop(agent);
    leaks.finish().await;
}

#[tokio::test]
async fn a_unix_socket_answers_too() {
    let leaks = LeakCheck::start().await;
    let mut agent = Agent::builder().unix().start().await;
    let registration = Registration::new("echo", "a", ADDR);
    agent.unix_api().register(&registration).await;
    agent.api().shows("echo", &[("a", Health::Passing)]).await;
    agent.kill();
    let gone = agent.unix_api().ask("GET", "/", "").await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::ConnectionRefused);
    agent.restart().await;
    agent.unix_api().shows("echo", &[]).await;

    drop(agent);
    leaks.finish().await;
}

#[tokio::test]
async fn a_restarted_agent_is_in_its_place_and_empty() {
    let leaks = LeakCheck::start().await;
    let mut agent = Agent::start().await;
    let (addr, api) = (agent.http_addr(), agent.api());
    api.register(&Registration::new("echo", "a", ADDR)).await;
    api.shows("echo", &[("a", Health::Passing)]).await;
    let index = api.get("/v1/health/service/echo").await.index();
    let path = format!("/v1/health/service/echo?wait=60s&index={index}");
    let asking = api.clone();
    let query = tokio::spawn(async move { asking.ask("GET", &path, "").await });
    // By the time this is answered the query has most likely come. It fails in any case.
    api.shows("echo", &[("a", Health::Passing)]).await;

    agent.kill();
    within(LIMIT, "the end of a query", query)
        .await
        .unwrap()
        .unwrap_err();
    let refused = api.ask("GET", "/v1/status/leader", "").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    agent.restart().await;
    assert_eq!(agent.http_addr(), addr);
    api.shows("echo", &[]).await;

    drop(agent);
    leaks.finish().await;
}

#[tokio::test]
async fn a_frozen_agent_is_silent_and_goes_on() {
    let leaks = LeakCheck::start().await;
    let agent = Agent::start().await;
    let api = agent.api();
    api.register(&Registration::new("echo", "a", ADDR)).await;
    api.shows("echo", &[("a", Health::Passing)]).await;
    agent.freeze().await;
    let mut query = Box::pin(api.ask("GET", "/v1/health/service/echo", ""));
    // It can't answer, however long this is.
    let silence = timeout(Duration::from_millis(200), &mut query).await;
    assert!(silence.is_err(), "{silence:?}");
    agent.thaw();
    within(LIMIT, "an answer", query).await.unwrap();
    agent.freeze().await;
    // Frozen it can be killed, too.
    drop(agent);
    leaks.finish().await;
}

#[tokio::test]
async fn two_datacenters_answer_for_each_other() {
    let leaks = LeakCheck::start().await;
    let mut first = Agent::start().await;
    let second = Agent::builder()
        .datacenter("dc2")
        .joined_to(&first)
        .start()
        .await;
    let registration = Registration::new("echo", "a", ADDR);
    second.api().register(&registration).await;
    second.api().shows("echo", &[("a", Health::Passing)]).await;
    let query = |dc| format!("/v1/health/service/echo?dc={dc}");
    let there = first.api().get(&query("dc2")).await.json();
    assert_eq!(there[0]["Node"]["Datacenter"], "dc2");
    assert_eq!(second.api().get(&query("dc1")).await.json(), json!([]));
    let nowhere = first.api().get(&query("dc3")).await;
    assert_eq!(nowhere.status, 500);
    assert!(nowhere.text().contains("No path to datacenter"));
    first.kill();
    second.api().shows("echo", &[("a", Health::Passing)]).await;

    drop((first, second));
    leaks.finish().await;
}

#[tokio::test]
async fn an_agent_without_a_leader_says_so() {
    let leaks = LeakCheck::start().await;
    let agent = Agent::builder().without_leader().start().await;
    let answer = agent.api().get("/v1/health/service/echo").await;
    assert_eq!(answer.status, 500);
    assert_eq!(answer.text(), "No cluster leader");
    assert_eq!(answer.header("x-consul-knownleader"), Some("false"));

    drop(agent);
    leaks.finish().await;
}

#[tokio::test]
async fn several_run_at_once_and_end_with_their_owner() {
    let leaks = LeakCheck::start().await;
    let (first, second, third) = tokio::join!(Agent::start(), Agent::start(), Agent::start());
    let agents = [first, second, third];
    for agent in &agents {
        let registration = Registration::new("echo", agent.node_name(), ADDR);
        agent.api().register(&registration).await;
    }
    for agent in &agents {
        let only = (agent.node_name(), Health::Passing);
        agent.api().shows("echo", &[only]).await;
    }
    let pids = agents.each_ref().map(Agent::pid);
    let files = agents.each_ref().map(Agent::files);
    drop(agents);
    assert!(!pids.into_iter().any(is_alive));
    assert!(!files.iter().any(|it| it.exists()));
    leaks.finish().await;
}

#[tokio::test]
async fn an_agent_ends_when_its_test_is_killed() {
    let leaks = LeakCheck::start().await;
    let mut apart = Apart::start("agent_of_a_killed_test", "start an agent");
    let pid = apart.said("pid").parse().unwrap();
    let files = PathBuf::from(apart.said("files"));
    let addr: SocketAddr = apart.said("addr").parse().unwrap();
    assert!(is_alive(pid));
    TcpStream::connect(addr).unwrap();
    // By SIGKILL.
    drop(apart);
    wait_until(LIMIT, || !is_alive(pid)).await;
    // Its first thread is gone before its last is.
    wait_until(LIMIT, || TcpStream::connect(addr).is_err()).await;
    // Nobody else can tidy up.
    fs::remove_dir_all(files).unwrap();
    leaks.finish().await;
}

#[tokio::test]
#[ignore = "the process of the test above"]
async fn agent_of_a_killed_test() {
    if told().is_none() {
        return;
    }
    let agent = Agent::start().await;
    say("pid", &agent.pid().to_string());
    say("files", agent.files().to_str().unwrap());
    say("addr", &agent.http_addr().to_string());
    wait_for_end();
}

#[tokio::test]
#[should_panic(expected = "invalid config key nonsense")]
async fn an_agent_that_does_not_start_says_why() {
    let _alone = alone().await;
    let odd = Agent::builder().setting("nonsense", json!(1));
    odd.start().await;
}

#[test]
fn the_program_on_path_goes_first() {
    let scratch = Scratch::new();
    let path = format!("/nowhere:{}", scratch.path("").display());
    assert_eq!(program::on_path(path.as_ref()), None);
    let program = scratch.path("consul");
    fs::write(&program, "").unwrap();
    assert_eq!(program::on_path(path.as_ref()), Some(program));
}

#[test]
#[should_panic(expected = "run scripts/consul")]
fn a_missing_program_is_told() {
    program::fetched(Path::new("/nowhere/tmp"));
}

/// Whether there is such a process, and it is not only waited for.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|it| !it.rsplit(')').next().unwrap().trim().starts_with('Z'))
}
