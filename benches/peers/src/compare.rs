//! `peers table`: all variants in all cells.
//!
//! The rounds are interleaved: in each round every variant gets one fresh client process, in an order drawn anew,
//! so that what the machine does over time falls on all of them. What is printed are medians of the rounds; ratios
//! are medians of the rounds' ratios.

use std::collections::BTreeMap;
use std::path::Path;

use crate::client::Client;
use crate::options::{Kind, Options};
use crate::plan::{Plan, Setting};
use crate::sample::Sample;
use crate::servers::{Placement, ServerOptions, ServerProcess, SocketDirectory};
use crate::table;
use crate::target::{Address, Target};
use crate::tls::ClientTls;
use crate::variants::Variant;
use crate::{Failure, child, environment, process};

/// The samples of one cell, by round. A variant that failed has its reason.
pub type Rounds = BTreeMap<Variant, Result<Vec<Sample>, String>>;

pub fn run(options: &Options) -> Result<(), Failure> {
    let plan = Plan::new(options);
    let placement = Placement::of(options.workers)?;
    environment::print(&placement)?;
    println!(
        "Rounds: {} of {:.2} s.\n",
        plan.rounds,
        plan.window.as_secs_f64()
    );
    let sockets = SocketDirectory::create()?;
    let credentials = match options.tls {
        true => Some(sockets.credentials()?),
        false => None,
    };
    for setting in &plan.settings {
        let variants = plan.variants(setting);
        if variants.is_empty() {
            continue;
        }
        let server = ServerProcess::start(&ServerOptions {
            listen: sockets.addresses(setting.net, setting.endpoints)?,
            cpu: placement.server,
            credentials: credentials.clone(),
            ..ServerOptions::new(setting.server, setting.kind.replies())
        })?;
        let mut cells = Vec::new();
        for &callers in &plan.callers {
            let mut rounds = Rounds::new();
            for round in 1..=plan.rounds {
                eprint!("\r\x1b[K{setting}: {callers} callers, round {round}");
                let mut order = variants.clone();
                fastrand::shuffle(&mut order);
                for variant in order {
                    let job = ClientJob {
                        variant,
                        setting,
                        callers,
                        plan: &plan,
                        placement: &placement,
                        credentials: credentials.as_deref(),
                    };
                    job.add_to(&mut rounds, &server.addresses);
                }
            }
            cells.push((callers, rounds));
        }
        eprint!("\r\x1b[K");
        table::print(setting, &cells);
    }
    Ok(())
}

/// One client process to be.
struct ClientJob<'a> {
    variant: Variant,
    setting: &'a Setting,
    callers: usize,
    plan: &'a Plan,
    placement: &'a Placement,
    credentials: Option<&'a Path>,
}

impl ClientJob<'_> {
    fn add_to(&self, rounds: &mut Rounds, addresses: &[Address]) {
        let entry = rounds.entry(self.variant).or_insert_with(|| Ok(Vec::new()));
        if let Ok(samples) = entry {
            match self.run(addresses) {
                Ok(sample) => samples.push(sample),
                Err(error) => {
                    eprintln!("\n{}: {error}", self.variant);
                    *entry = Err(error.to_string());
                }
            }
        }
    }

    fn run(&self, addresses: &[Address]) -> Result<Sample, Failure> {
        let addresses: Vec<_> = addresses.iter().map(Address::to_string).collect();
        let mut arguments = vec![
            ("client", String::new()),
            ("--variant", self.variant.name().to_owned()),
            ("--at", addresses.join(",")),
            ("--kind", self.setting.kind.name().to_owned()),
            ("--payload", self.setting.payload.to_string()),
            ("--callers", self.callers.to_string()),
            ("--workers", self.placement.workers.to_string()),
            ("--seconds", self.plan.window.as_secs_f64().to_string()),
        ];
        if let Some(cpu) = self.placement.client {
            arguments.push(("--cpu", cpu.to_string()));
        }
        if let Some(credentials) = self.credentials {
            arguments.push(("--credentials", credentials.display().to_string()));
        }
        child::run(&arguments)?.parse()
    }
}

/// The client process's part.
pub fn client(options: &Options) -> Result<(), Failure> {
    process::die_with_parent()?;
    let plan = Plan::new(options);
    let [variant] = options.variants[..] else {
        return Err("one --variant".into());
    };
    let replies = options
        .kinds
        .first()
        .map_or(1, |kind: &Kind| kind.replies());
    let payload = options.payloads.first().copied().unwrap_or(100);
    let tls = ClientTls::of(options.credentials.as_deref())?;
    let client = Client {
        variant,
        target: Target::new(options.at.clone(), payload, replies).with_tls(tls),
        callers: plan.callers[0],
        workers: options.workers,
        cpu: options.cpu,
    };
    println!("{}", client.measure(plan.window)?);
    Ok(())
}
