//! `peers tails`: the slowest calls when one of ten servers is ten times slower, by policy.
//!
//! Nine servers of 5 ms and one of 50 ms, two processes on the second CPU; 3,000 calls per second at random times (an open
//! loop, so that a call that waits for others is charged for it). Each run has a fresh client and fresh servers. The
//! servers say how many calls came to each.

mod clients;
mod load;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::options::{Options, ServerKind, or, words};
use crate::servers::{Placement, ServerOptions, ServerProcess};
use crate::target::{Address, Target};
use crate::{Failure, child, environment, process};

pub use clients::TailClient;
use load::{Load, Tail};

words!(
    TailCase {
        /// All ten take 5 ms: what the others are compared with.
        Healthy = "healthy",
        /// One takes 50 ms, for as many calls as come.
        Slow = "slow",
        /// Each works on 8 calls at a time, so that the slow one does 160 per second: half of a tenth.
        Overloaded = "overloaded",
    }
);

const SERVERS: usize = 10;
const FAST: Duration = Duration::from_millis(5);
const SLOW: Duration = Duration::from_millis(50);
const CONCURRENCY: usize = 8;
/// Whose calls to healthy servers are the measure for all.
const REFERENCE: (TailCase, TailClient) = (TailCase::Healthy, TailClient::RoundRobin);

/// A run, and the part of its calls that the last server saw.
struct Run {
    tail: Tail,
    share: f64,
}

/// By round. A client that failed has its reason.
type Runs = BTreeMap<(TailCase, TailClient), Result<Vec<Run>, String>>;

pub fn run(options: &Options) -> Result<(), Failure> {
    let placement = Placement::of(1)?;
    environment::print(&placement)?;
    let (rounds, seconds) = if options.quick { (1, 0.5) } else { (3, 8.0) };
    let rounds = options.rounds.unwrap_or(rounds);
    let seconds = options.seconds.unwrap_or(seconds);
    println!("Rounds: {rounds} of {seconds:.1} s.\n");
    let clients = or(&options.tail_clients, TailClient::ALL);
    let mut cells = BTreeSet::from([REFERENCE]);
    for case in or(&options.tail_cases, TailCase::ALL) {
        cells.extend(clients.iter().map(|&client| (case, client)));
    }
    let mut cells: Vec<_> = cells.into_iter().collect();
    let mut runs = Runs::new();
    for round in 1..=rounds {
        // Within a round all of them, in an order drawn anew, so that what the machine does falls on all.
        fastrand::shuffle(&mut cells);
        for &(case, client) in &cells {
            eprint!("\r\x1b[Kround {round}: {case} {client}");
            let entry = runs.entry((case, client)).or_insert_with(|| Ok(Vec::new()));
            if let Ok(runs) = entry {
                match measure(case, client, seconds, &placement) {
                    Ok(run) => runs.push(run),
                    Err(error) => *entry = Err(error.to_string()),
                }
            }
        }
    }
    eprint!("\r\x1b[K");
    table::print(&runs);
    Ok(())
}

fn measure(
    case: TailCase,
    client: TailClient,
    seconds: f64,
    placement: &Placement,
) -> Result<Run, Failure> {
    let server = |count: usize, delay| {
        ServerProcess::start(&ServerOptions {
            listen: vec!["127.0.0.1:0".parse()?; count],
            delay,
            concurrency: (case == TailCase::Overloaded).then_some(CONCURRENCY),
            cpu: placement.server,
            ..ServerOptions::new(ServerKind::Tonic, 1)
        })
    };
    let fast = server(SERVERS - 1, FAST)?;
    let last = server(
        1,
        if case == TailCase::Healthy {
            FAST
        } else {
            SLOW
        },
    )?;
    let at = fast.addresses.iter().chain(&last.addresses);
    let at: Vec<_> = at.map(Address::to_string).collect();
    let mut arguments = vec![
        ("tails-client", String::new()),
        ("--tails", client.name().to_owned()),
        ("--at", at.join(",")),
        ("--seconds", seconds.to_string()),
    ];
    if let Some(cpu) = placement.client {
        arguments.push(("--cpu", cpu.to_string()));
    }
    let tail = child::run(&arguments)?.parse()?;
    let [fast, last] = [fast, last].map(calls);
    let (fast, last) = (fast?, last?);
    Ok(Run {
        tail,
        share: last / (fast + last),
    })
}

/// Ends servers. Gives the calls that came to them.
fn calls(server: ServerProcess) -> Result<f64, Failure> {
    let words = server.finish()?;
    let counts: Result<Vec<f64>, _> = words.split_whitespace().map(str::parse).collect();
    Ok(counts?.iter().sum())
}

/// The client process's part.
pub fn client(options: &Options) -> Result<(), Failure> {
    process::die_with_parent()?;
    let ([client], Some(seconds)) = (&options.tail_clients[..], options.seconds) else {
        return Err("one --tails, --seconds".into());
    };
    if let Some(cpu) = options.cpu {
        process::pin(cpu)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let (client, target) = (*client, Target::new(options.at.clone(), 100, 1));
    let load = Load(Duration::from_secs_f64(seconds));
    // On the worker, where users make their clients.
    let tail = runtime.block_on(async move {
        tokio::spawn(async move { client.connect(&target, load).await }).await?
    })??;
    println!("{tail}");
    runtime.shutdown_background();
    Ok(())
}
