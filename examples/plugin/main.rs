//! A pool of plugins of go-plugin's kind: `cargo run --example plugin --features plugin`.
//!
//! It starts itself three times as a plugin, each with automatic mutual TLS on a Unix socket of its own, reads where they
//! listen, and puts one channel over them. While idempotent calls run, one plugin is killed. No call is lost, and all
//! processes are gone in the end.
#![allow(clippy::disallowed_methods)] // Tasks end with the process.

#[path = "../echo/mod.rs"]
mod echo;
mod only;
mod process;
mod serve;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use std::{env, fs};

use process::Plugin;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use trunkline::{Channel, Connector, HealthCheck, Retry, plugin::MAX_MESSAGE_SIZE};
use trunkline_proto::{EchoRequest, echo_client::EchoClient};

/// A variable in the environment that tells a plugin that a host has started it, and not a person.
const MAGIC_COOKIE: (&str, &str) = ("TRUNKLINE_EXAMPLE_PLUGIN", "echo");

const CALLERS: u64 = 8;
const CALLS: u64 = 100;

/// It takes less than two seconds.
const LIMIT: Duration = Duration::from_secs(15);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if env::var(MAGIC_COOKIE.0).is_ok_and(|it| it == MAGIC_COOKIE.1) {
        return serve::run().await;
    }
    let folder = env::temp_dir().join(format!("trunkline-plugins-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let result = timeout(LIMIT, host(&folder)).await;
    let removed = fs::remove_dir_all(&folder);
    result??;
    Ok(removed?)
}

async fn host(folder: &Path) -> Result<(), Box<dyn Error>> {
    let mut plugins = Vec::new();
    for name in ["one", "two", "three"] {
        plugins.push(Plugin::start(name, folder).await?);
    }
    let channel = Connector::endpoints(plugins.iter().map(|it| it.endpoint.clone()))
        // Each is asked for its service `plugin`.
        .health_check(HealthCheck::grpc())
        // What may have been processed when a plugin dies is made again by another one.
        .retry(Retry::exponential().idempotent(true))
        .connect()
        .await?;

    let (done, mut callers) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
    for caller in 0..CALLERS {
        callers.spawn(call(channel.clone(), caller, Arc::clone(&done)));
    }
    let calls = async {
        let mut served = BTreeMap::new();
        while let Some(calls) = callers.join_next().await {
            // One call that failed ends the example with its error.
            for server in calls?? {
                *served.entry(server).or_insert(0_u64) += 1;
            }
        }
        Ok::<_, Box<dyn Error>>(served)
    };
    let kill = async {
        // In the midst of the calls.
        while done.load(SeqCst) < CALLERS * CALLS / 3 {
            sleep(Duration::from_millis(1)).await;
        }
        println!("{} is killed", plugins[1].name);
        Ok::<_, Box<dyn Error>>(plugins[1].kill().await?)
    };
    let (served, ()) = tokio::try_join!(calls, kill)?;
    for endpoint in &channel.status().endpoints {
        println!("{}: {:?}", endpoint.address, endpoint.state);
    }
    let stats = channel.stats();
    println!(
        "{} calls, {} failed, {} made again; served by {served:?}",
        stats.calls,
        stats.failed,
        stats.retries + stats.resends
    );
    channel.close(Duration::from_secs(1)).await;
    for plugin in plugins {
        plugin.end().await?;
    }
    Ok(())
}

/// Who served each of the calls. Ends with the first failure.
async fn call(
    channel: Channel,
    caller: u64,
    done: Arc<AtomicU64>,
) -> Result<Vec<String>, tonic::Status> {
    // As large as go-plugin's own hosts take them; tonic's limit would be 4 MiB.
    let mut client = EchoClient::new(channel).max_decoding_message_size(MAX_MESSAGE_SIZE);
    let mut served = Vec::new();
    for call in 0..CALLS {
        let request = EchoRequest {
            id: caller * CALLS + call,
            delay_ms: 5,
            ..EchoRequest::default()
        };
        served.push(client.unary(request).await?.into_inner().server);
        done.fetch_add(1, SeqCst);
    }
    Ok(served)
}
