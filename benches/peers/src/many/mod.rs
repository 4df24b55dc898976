//! `peers many`: one client and thousands of endpoints.
//!
//! The endpoints are as many addresses of the loopback network (127.0.0.0/8), on a few wildcard sockets of one sink
//! process; for the client each is an endpoint of its own. What the kernel keeps for a socket is not counted.

mod clients;
mod crowd;

use std::net::{Ipv4Addr, SocketAddr};

use crate::options::{Options, ServerKind, or};
use crate::servers::{Placement, ServerOptions, ServerProcess};
use crate::target::{Address, Target};
use crate::{Failure, child, environment, process};

pub use clients::ManyClient;
use crowd::{Crowd, Figures};

/// Each has a backlog of its own, so that thousands of connections at once find room.
const LISTENERS: usize = 16;
/// Files that a process needs besides its sockets.
const OTHER_FILES: u64 = 100;

pub fn run(options: &Options) -> Result<(), Failure> {
    let placement = Placement::of(options.workers)?;
    environment::print(&placement)?;
    let quick: &[usize] = &[200];
    let counts = or(
        &options.endpoints,
        if options.quick {
            quick
        } else {
            &[1_000, 10_000]
        },
    );
    let clients = or(&options.many_clients, ManyClient::ALL);
    for count in counts {
        println!("### {count} endpoints\n");
        Figures::print_head();
        for _ in 0..options.rounds.unwrap_or(1) {
            for &client in &clients {
                eprint!("\r\x1b[K{count} endpoints: {client}");
                let figures = measure(client, count, &placement);
                eprint!("\r\x1b[K");
                match figures {
                    Ok(figures) => println!("| {client} | {figures} |"),
                    Err(error) => println!("| {client} | {error} |"),
                }
            }
        }
        println!();
    }
    Ok(())
}

/// A fresh client and a fresh server.
fn measure(client: ManyClient, count: usize, placement: &Placement) -> Result<String, Failure> {
    let allowed = process::raise_file_limit()?;
    if allowed < count as u64 + OTHER_FILES {
        return Err(format!("not run: the limit of open files is {allowed}").into());
    }
    let server = ServerProcess::start(&ServerOptions {
        listen: vec!["0.0.0.0:0".parse()?; LISTENERS],
        cpu: placement.server,
        ..ServerOptions::new(ServerKind::Sink, 1)
    })?;
    let at: Vec<_> = server.addresses.iter().map(Address::to_string).collect();
    child::run(&[
        ("many-client", String::new()),
        ("--many", client.name().to_owned()),
        ("--endpoints", count.to_string()),
        ("--at", at.join(",")),
        ("--workers", placement.workers.to_string()),
    ])
}

/// The client process's part.
pub fn client(options: &Options) -> Result<(), Failure> {
    process::die_with_parent()?;
    process::raise_file_limit()?;
    let placement = Placement::of(options.workers)?;
    let ([client], [count]) = (&options.many_clients[..], &options.endpoints[..]) else {
        return Err("one --many, one --endpoints".into());
    };
    if let Some(cpu) = placement.client {
        process::pin(cpu)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.workers)
        .enable_all()
        .build()?;
    let target = Target::new(addresses(&options.at, *count)?, 100, 1);
    let figures = runtime.block_on(async {
        let crowd = Crowd::new(*count, client.connects_to(*count))?;
        // On a worker, where users make their clients.
        tokio::spawn(client.connect(target, crowd)).await?
    })??;
    println!("{figures}");
    runtime.shutdown_background();
    Ok(())
}

/// As many addresses, spread over the listeners.
fn addresses(listeners: &[Address], count: usize) -> Result<Vec<Address>, Failure> {
    let ports: Result<Vec<_>, _> = listeners
        .iter()
        .map(|it| Ok::<_, Failure>(it.tcp()?.port()))
        .collect();
    let ports = ports?;
    Ok((0..count)
        .map(|number| {
            let [_, _, high, low] = (number as u32).to_be_bytes();
            let address = Ipv4Addr::new(127, 1, high, low);
            Address::Tcp(SocketAddr::from((address, ports[number % ports.len()])))
        })
        .collect())
}
