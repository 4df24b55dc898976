//! Measures Trunkline beside raw h2, raw hyper, tonic's channels and ginepro. README.md says how to run it and
//! what the columns mean.
//!
//! This program is also its own children: servers and clients are processes of their own, started with other
//! commands, so that CPU time, memory and allocations are those of one client and nothing else.

mod alloc;
mod child;
mod client;
mod compare;
mod echo;
mod environment;
mod failure;
mod handshake;
mod histogram;
mod many;
mod one;
mod options;
mod plan;
mod process;
mod sample;
mod serve;
mod servers;
mod sink;
mod table;
mod tails;
mod target;
mod tls;
mod variants;

use std::process::ExitCode;

use options::Options;

/// What goes wrong here is told to a person and ends the run.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

const HELP: &str = include_str!("help.txt");

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let (command, options) = Options::parse()?;
    match command.as_str() {
        "all" => all(&options),
        "table" => compare::run(&options),
        "client" => compare::client(&options),
        "failures" => failure::run(&options),
        "failure-client" => failure::client(&options),
        "ejection" => failure::ejection::run(&options),
        "ejection-client" => failure::ejection::client(&options),
        "handshake" => handshake::run(&options),
        "handshake-client" => handshake::client(&options),
        "many" => many::run(&options),
        "many-client" => many::client(&options),
        "one" => one::run(&options),
        "serve" => serve::run(options.serve),
        "tails" => tails::run(&options),
        "tails-client" => tails::client(&options),
        "help" => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(format!("there is no command {other}; see --help").into()),
    }
}

fn all(options: &Options) -> Result<(), Failure> {
    println!("## Calls\n");
    compare::run(options)?;
    println!("## Failures\n");
    failure::run(options)?;
    println!("## Tails\n");
    tails::run(options)?;
    println!("## Many endpoints\n");
    // The choice of endpoints belongs to the calls.
    let endpoints = Vec::new();
    many::run(&Options {
        endpoints,
        ..options.clone()
    })
}
