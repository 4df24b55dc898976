//! A start without an agent, from what the last run found.

use std::fs;
use std::time::Duration;

use trunkline::{Connector, Consul};

use crate::client::calls::unary;
use crate::consul::agent::Agent;
use crate::consul::registration::Registration;
use crate::support::leak::LeakCheck;
use crate::support::scratch::Scratch;
use crate::support::server::EchoServer;
use crate::support::wait::wait_until;

use super::seen::{LIMIT, echo, lazy, sees, trouble};

#[tokio::test]
async fn what_the_last_run_found_serves_until_the_agent_is_there() {
    let leaks = LeakCheck::start().await;
    let folder = Scratch::new();
    let path = folder.path("echo.json");
    let server = EchoServer::start_tcp("a");
    let mut agent = Agent::start().await;
    let service = || echo(&agent).cache(&path);
    agent
        .api()
        .register(&Registration::of("echo", &server))
        .await;
    let channel = Connector::consul(service()).connect().await.unwrap();
    wait_until(LIMIT, || path.exists()).await;
    drop(channel);
    let (stored, other) = (
        service(),
        Consul::service("other")
            .agent(agent.http_addr().to_string())
            .cache(&path),
    );
    let none = echo(&agent).cache(folder.path("none.json"));
    agent.kill();

    // As after a restart of the program: nobody follows the watch any more.
    let channel = Connector::consul(stored.clone()).connect().await.unwrap();
    assert_eq!(unary(&channel, 1).await.unwrap().server, "a");
    wait_until(LIMIT, || {
        trouble(&channel).contains("the agent can't be reached")
    })
    .await;
    assert!(channel.status().resolution_age.is_some());
    agent.restart().await;
    // It knows nothing any more, which is doubted, also when the instance is back.
    wait_until(LIMIT, || {
        trouble(&channel).contains("the answer had no usable endpoint")
    })
    .await;
    let moved = Registration::of("echo", &server).weights(4, 1);
    agent.api().register(&moved).await;
    sees(&channel, &[("a", 4)]).await;
    drop(channel);
    agent.kill();

    // What is no use is not used: another service's file, one that is too old, one that is broken, one that is missing.
    let content = fs::read_to_string(&path).unwrap();
    let ancient = content.replacen("\"saved_at_unix\":", "\"saved_at_unix\":1,\"was\":", 1);
    let future = content.replacen("\"version\":1", "\"version\":99", 1);
    let cases: [(&str, &str, Consul); 5] = [
        ("another service's", &content, other),
        ("too old", &ancient, stored.clone()),
        ("from the future", &future, stored.clone()),
        ("broken", &content[..content.len() / 2], stored.clone()),
        ("missing", &content, none),
    ];
    for (what, content, service) in cases {
        fs::write(&path, content).unwrap();
        let channel = lazy(service);
        wait_until(LIMIT, || !trouble(&channel).is_empty()).await;
        assert!(channel.status().endpoints.is_empty(), "{what}");
    }
    // The clock was set back.
    let text = content.replacen(
        "\"saved_at_unix\":",
        "\"saved_at_unix\":9999999999,\"was\":",
        1,
    );
    fs::write(&path, text).unwrap();
    let channel = lazy(stored.cache_max_age(Duration::from_secs(1)));
    // The file is that of the first run: the wiped agent's answers were doubted, and kept out of it.
    sees(&channel, &[("a", 1)]).await;
    let left: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|it| it.unwrap().file_name())
        .collect();
    assert_eq!(left, ["echo.json"]);
    drop((channel, agent, server, folder));
    leaks.finish().await;
}
