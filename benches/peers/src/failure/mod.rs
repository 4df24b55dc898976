//! `peers failures`: what users see when servers fail.
//!
//! Three tonic servers, each a process of its own; one client process that starts 500 calls per second, whether or
//! not earlier ones have ended (an open loop, so that a client that stalls is charged for it); a fault one second
//! after the start. Every call is told a deadline of 1 s. Each run has a fresh client and fresh servers.

mod clients;
pub mod ejection;
mod load;
mod outcome;
mod scenario;

use std::time::Duration;

use crate::options::{Options, ServerKind, or};
use crate::servers::{Placement, ServerOptions, ServerProcess};
use crate::target::Target;
use crate::{Failure, child, environment, process};

pub use clients::FailureClient;
use load::Load;
use outcome::Outcome;
pub use scenario::Scenario;

/// How long the servers take to answer: with 1 ms most moments find no call in flight on a server, with 20 ms three
/// or four.
const DELAYS: [u64; 2] = [1, 20];
const SERVERS: usize = 3;
const TIMEOUT: Duration = Duration::from_secs(1);

pub fn run(options: &Options) -> Result<(), Failure> {
    environment::print(&Placement::of(1)?)?;
    let delays = match options.serve.delay.as_millis() as u64 {
        0 if options.quick => &DELAYS[..1],
        0 => &DELAYS,
        chosen => &[chosen],
    };
    let clients = or(&options.clients, FailureClient::ALL);
    for scenario in or(&options.scenarios, Scenario::ALL) {
        for delay in delays {
            println!("### {scenario}, servers that take {delay} ms\n");
            Outcome::print_head();
            for _ in 0..options.rounds.unwrap_or(1) {
                for &client in &clients {
                    eprint!("\r\x1b[K{scenario}, {delay} ms: {client}");
                    let outcome = start(client, scenario, *delay, options.quick);
                    eprint!("\r\x1b[K");
                    match outcome {
                        Ok(outcome) => println!("| {client} | {outcome} |"),
                        Err(error) => println!("| {client} | did not run: {error} |"),
                    }
                }
            }
            println!();
        }
    }
    Ok(())
}

/// Runs one client process.
fn start(
    client: FailureClient,
    scenario: Scenario,
    delay: u64,
    quick: bool,
) -> Result<String, Failure> {
    let mut arguments = vec![
        ("failure-client", String::new()),
        ("--client", client.name().to_owned()),
        ("--scenario", scenario.name().to_owned()),
        ("--delay-ms", delay.to_string()),
    ];
    if quick {
        arguments.push(("--quick", String::new()));
    }
    child::run(&arguments)
}

/// The client process's part: calls, and the fault.
pub fn client(options: &Options) -> Result<(), Failure> {
    process::die_with_parent()?;
    let placement = Placement::of(1)?;
    let ([client], [scenario]) = (
        &or(&options.clients, FailureClient::ALL)[..],
        &or(&options.scenarios, Scenario::ALL)[..],
    ) else {
        return Err("one --client, one --scenario".into());
    };
    let mut servers = Vec::new();
    for _ in 0..SERVERS {
        servers.push(ServerProcess::start(&ServerOptions {
            listen: vec!["127.0.0.1:0".parse()?],
            delay: options.serve.delay,
            cpu: placement.server,
            ..ServerOptions::new(ServerKind::Tonic, 1)
        })?);
    }
    let addresses = servers.iter().flat_map(|it| it.addresses.clone());
    let mut target = Target::new(addresses.collect(), 100, 1);
    target.timeout = Some(TIMEOUT);
    if let Some(cpu) = placement.client {
        process::pin(cpu)?;
    }
    // One worker for the calls; the fault comes from this thread.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let load = Load {
        scenario: *scenario,
        servers,
        delay: options.serve.delay,
        quick: options.quick,
    };
    let outcome = runtime.block_on(client.connect(&target, load))??;
    println!("{outcome}");
    runtime.shutdown_background();
    Ok(())
}
