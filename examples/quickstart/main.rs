//! Three servers under one channel, and what may happen to them: `cargo run --example quickstart`.
//!
//! Calls go out at a steady rate, and are shared by weight over two TCP servers and one on a Unix socket,
//! each a process of its own. One server is killed and comes back; another one drains (HTTP/2 GOAWAY) and
//! comes back. The screen shows live who serves what. It takes about 13 seconds, needs nothing but this
//! machine, and fails if a single call was lost or failed.
//!
//! | file | role |
//! |---|---|
//! | `main` | the plot |
//! | `load` | calls at a steady rate, and what became of them |
//! | `show` | follows channel and calls, and tells what happens |
//! | `table` | numbers as lines of text |
//! | `screen` | a table in place on a terminal, lines elsewhere |
//! | `server` | a server process, as this one sees it: start, kill, drain |
//! | `serve` | the server process itself |

#![allow(
    clippy::disallowed_methods,
    reason = "the ban on bare spawns is for the crate; the one task here is awaited"
)]

#[path = "../echo/mod.rs"]
mod echo;
mod load;
mod screen;
mod serve;
mod server;
mod show;
mod table;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs, process};

use tokio::time::{sleep, timeout};
use trunkline::{Balance, Channel, Connector, EndpointStatus, Retry, State};
use trunkline_proto::echo_client::EchoClient;

use load::Load;
use server::Server;
use show::Show;

const CALLS_PER_SECOND: u32 = 200;
/// Nothing here takes this long, on the busiest machine.
const LIMIT: Duration = Duration::from_secs(20);

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => tour().await,
        // This program started itself anew.
        [word, name, address] if word == "serve" => {
            serve::run(name, address).await?;
            Ok(ExitCode::SUCCESS)
        }
        _ => Err("it takes no arguments".into()),
    }
}

/// Runs the plot, and leaves nothing behind: no process, no file.
async fn tour() -> Result<ExitCode> {
    let folder = env::temp_dir().join(format!("trunkline-quickstart-{}", process::id()));
    fs::create_dir(&folder)?;
    let mut servers = [
        Server::tcp("red", 3)?,
        Server::unix("green", 2, &folder.join("green.sock")),
        Server::tcp("blue", 1)?,
    ];
    let told = tokio::select! {
        told = plot(&mut servers) => told,
        Ok(()) = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    for server in &mut servers {
        server.kill().await?;
    }
    fs::remove_dir_all(&folder)?;
    told
}

/// The exit code says whether every call was answered.
async fn plot(servers: &mut [Server; 3]) -> Result<ExitCode> {
    for server in servers.iter_mut() {
        server.start().await?;
    }

    let channel = Connector::endpoints(servers.iter().map(Server::endpoint))
        .balance(Balance::weighted())
        // An echo does no harm when it is repeated, so a call that a dying server may have had goes elsewhere.
        // An echo may be made twice, so a call whose server dies is repeated.
        .retry(Retry::exponential().attempts(3).idempotent(true))
        .timeout(Duration::from_secs(5))
        .connect()
        .await?;
    // One endpoint is ready, which is enough for calls. The plot begins with all three.
    ready(&channel).await?;
    let load = Load::start(EchoClient::new(channel.clone()), CALLS_PER_SECOND);
    let mut show = Show::new(&channel, load.counts());

    show.say(format!(
        "three servers, weights 3:2:1, {CALLS_PER_SECOND} calls/s"
    ))?;
    show.during(sleep(Duration::from_millis(2500))).await?;

    let [red, green, _] = servers;
    show.say("red is killed (SIGKILL)")?;
    red.kill().await?;
    show.during(sleep(Duration::from_secs(2))).await?;
    show.say("red starts again at the same address")?;
    red.start().await?;
    show.during(ready(&channel)).await??;
    show.during(sleep(Duration::from_secs(1))).await?;

    show.say("green is told to drain (GOAWAY): it finishes its calls and takes no more")?;
    show.during(green.drain()).await??;
    show.say("green has ended, with no call on it")?;
    show.during(sleep(Duration::from_millis(1500))).await?;
    show.say("green starts again at the same address")?;
    green.start().await?;
    show.during(ready(&channel)).await??;
    show.during(sleep(Duration::from_secs(1))).await?;

    show.say("all is quiet: from here on it is counted who serves what share")?;
    let before = load.counts().borrow().clone();
    show.during(sleep(Duration::from_secs(4))).await?;
    let quiet = load.counts().borrow().since(&before);

    let all = show.during(load.finish(LIMIT)).await?;
    show.finish(&all, &quiet)?;
    channel.close(Duration::from_secs(1)).await;
    Ok(if all.ok == all.sent {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Waits until every endpoint takes calls.
async fn ready(channel: &Channel) -> Result<()> {
    let not_ready = |endpoint: &EndpointStatus| endpoint.state != State::Ready;
    let all_ready = async {
        while channel.status().endpoints.iter().any(not_ready) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, all_ready)
        .await
        .map_err(|_| format!("not all servers became ready within {LIMIT:?}").into())
}
