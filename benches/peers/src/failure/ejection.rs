//! `peers ejection`: how soon no call goes to a server whose connections have ended.
//!
//! Three tonic servers, one caller that makes one call after the other: some ten thousand a second, so that tenths of a
//! millisecond are seen, which the open loop of `failures` does not. One server is killed. Its kernel then ends its
//! connections, with FIN or, where the server set SO_LINGER to 0, with RST. When that was a bystander says: a connection
//! to the same server that nobody writes on, with a thread of its own that waits for its end.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{FailureClient, SERVERS, TIMEOUT};
use crate::options::{Options, ServerKind, or, words};
use crate::servers::{Placement, ServerOptions, ServerProcess};
use crate::target::{Address, Target};
use crate::variants::{Calls, Job};
use crate::{Failure, child, environment, process};

words!(
    Ending {
        Fin = "fin",
        Rst = "rst",
    }
);

/// Calls before the fault: all connections are made and used.
const BEFORE: Duration = Duration::from_millis(200);
/// Calls after it.
const AFTER: Duration = Duration::from_millis(1500);
/// A client whose calls still fail in this last part has not got over it.
const END: Duration = Duration::from_millis(200);
const ROUNDS: usize = 20;

pub fn run(options: &Options) -> Result<(), Failure> {
    environment::print(&Placement::of(1)?)?;
    let rounds = options
        .rounds
        .unwrap_or(if options.quick { 1 } else { ROUNDS });
    for &ending in Ending::ALL {
        println!(
            "#### connections end with {}\n",
            ending.name().to_uppercase()
        );
        println!(
            "| client | runs | µs from call to call | calls failed, median | runs without | time to eject, median | worst |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|");
        for client in or(&options.clients, FailureClient::ALL) {
            let mut runs = Vec::new();
            for round in 0..rounds {
                eprint!("\r\x1b[K{ending}: {client}, {round}");
                let arguments = [
                    ("ejection-client", String::new()),
                    ("--client", client.name().to_owned()),
                    ("--ending", ending.name().to_owned()),
                ];
                runs.push(Run::parse(&child::run(&arguments)?)?);
            }
            eprint!("\r\x1b[K");
            println!("| {client} | {} |", row(runs));
        }
        println!();
    }
    Ok(())
}

/// What came of one run.
#[derive(Clone, Copy)]
struct Run {
    /// From one call to the next, while nothing failed: what the time to eject is seen by.
    pace: Duration,
    failed: usize,
    /// From the fault to the beginning of the last call that failed; 0 if none did. `None` if that never ends.
    ejected: Option<Duration>,
}

impl Run {
    fn parse(text: &str) -> Result<Self, Failure> {
        let figures: Result<Vec<i64>, _> = text.split(' ').map(str::parse).collect();
        let &[pace, failed, micros] = &*figures? else {
            return Err(format!("no figures: {text}").into());
        };
        Ok(Self {
            pace: Duration::from_micros(u64::try_from(pace)?),
            failed: usize::try_from(failed)?,
            ejected: u64::try_from(micros).ok().map(Duration::from_micros),
        })
    }
}

fn row(mut runs: Vec<Run>) -> String {
    runs.sort_by_key(|run| run.pace);
    let pace = runs[runs.len() / 2].pace.as_micros();
    let without = runs.iter().filter(|run| run.failed == 0).count();
    runs.sort_by_key(|run| run.failed);
    let failed = runs[runs.len() / 2].failed;
    // What never ends comes last.
    runs.sort_by_key(|run| run.ejected.unwrap_or(Duration::MAX));
    let words = |run: &Run| match run.ejected {
        None => "never".to_owned(),
        Some(time) => format!("{:.2} ms", time.as_secs_f64() * 1e3),
    };
    let (median, worst) = (words(&runs[runs.len() / 2]), words(&runs[runs.len() - 1]));
    format!(
        "{} | {pace} | {failed} | {without} | {median} | {worst}",
        runs.len()
    )
}

/// The client process's part.
pub fn client(options: &Options) -> Result<(), Failure> {
    process::die_with_parent()?;
    let placement = Placement::of(1)?;
    let ([client], [ending]) = (
        &or(&options.clients, FailureClient::ALL)[..],
        &or(&options.endings, Ending::ALL)[..],
    ) else {
        return Err("one --client, one --ending".into());
    };
    let mut servers = Vec::new();
    for _ in 0..SERVERS {
        servers.push(ServerProcess::start(&ServerOptions {
            listen: vec!["127.0.0.1:0".parse()?],
            reset: *ending == Ending::Rst,
            cpu: placement.server,
            ..ServerOptions::new(ServerKind::Tonic, 1)
        })?);
    }
    let addresses = servers.iter().flat_map(|it| it.addresses.clone());
    let mut target = Target::new(addresses.collect(), 100, 1);
    target.timeout = Some(TIMEOUT);
    let Some(&Address::Tcp(address)) = target.addresses.first() else {
        return Err("the servers listen on TCP".into());
    };
    // Before this thread is pinned, so that it need not wait for the client.
    let bystander = bystander(address)?;
    if let Some(cpu) = placement.client {
        process::pin(cpu)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let run = runtime.block_on(client.connect(&target, Ejection { servers, bystander }))??;
    let micros = run.ejected.map_or(-1, |it| it.as_micros() as i64);
    println!("{} {} {micros}", run.pace.as_micros(), run.failed);
    runtime.shutdown_background();
    Ok(())
}

/// Gives when the server's connections ended.
fn bystander(address: SocketAddr) -> Result<JoinHandle<Instant>, Failure> {
    let mut connection = TcpStream::connect(address)?;
    Ok(std::thread::spawn(move || {
        // The server's SETTINGS may come before.
        while matches!(connection.read(&mut [0; 1024]), Ok(1..)) {}
        Instant::now()
    }))
}

struct Ejection {
    servers: Vec<ServerProcess>,
    bystander: JoinHandle<Instant>,
}

impl Job for Ejection {
    type Output = Result<Run, Failure>;

    async fn run(self, mut client: impl Calls) -> Self::Output {
        let (mut before, mut failed) = (0, Vec::new());
        let start = Instant::now();
        let calls = tokio::spawn(async move {
            while start.elapsed() < BEFORE + AFTER {
                let began = Instant::now();
                if client.call().await.is_err() {
                    failed.push(began);
                }
                if start.elapsed() < BEFORE {
                    before += 1;
                }
            }
            (before, failed)
        });
        tokio::time::sleep(BEFORE).await;
        self.servers[0].signal(Signal::SIGKILL)?;
        let (before, failed) = calls.await?;
        let end = Instant::now();
        let fault = self
            .bystander
            .join()
            .map_err(|_| "the bystander panicked")?;
        if failed.first().is_some_and(|began| *began + TIMEOUT < fault) {
            return Err("a call failed before the fault".into());
        }
        let ejected = match failed.last() {
            Some(last) if *last + END >= end => None,
            // One that began before the fault was under way.
            last => Some(last.map_or(Duration::ZERO, |it| it.saturating_duration_since(fault))),
        };
        Ok(Run {
            pace: BEFORE / before.max(1),
            failed: failed.len(),
            ejected,
        })
    }
}
