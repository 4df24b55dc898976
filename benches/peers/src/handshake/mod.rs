//! `peers handshake`: what a new connection costs, with one call on it, and what it saves to resume a TLS session.
//!
//! The sink ends each connection in good order with its first answer, so that a client that goes on calling needs a new
//! one for each call, as it does when a server retires connections. Each run has a fresh client and a fresh server, and
//! the server says how many sessions were really resumed.

mod client;
mod table;

use std::collections::BTreeMap;
use std::path::Path;

use crate::options::{Options, ServerKind, or, words};
use crate::servers::{Placement, ServerOptions, ServerProcess, SocketDirectory};
use crate::target::Address;
use crate::variants::Variant;
use crate::{Failure, child, environment};

use client::Figures;
pub use client::run as client;

words!(
    /// Which sessions there are.
    Sessions {
        /// No TLS at all.
        Plaintext = "plaintext",
        /// The server gives tickets, but each call has a client of its own, which knows none.
        NewClient = "new-client",
        /// The server gives no tickets: full handshakes.
        NoTickets = "no-tickets",
        /// It does, and the client is told not to use them.
        Off = "off",
        /// It does.
        Tickets = "tickets",
    }
);

/// A reference, the peer, and Trunkline.
const VARIANTS: [Variant; 3] = [Variant::Hyper, Variant::Channel, Variant::Trunkline];

/// A run, and the full handshakes and resumed sessions that its server saw.
#[derive(Clone, Copy)]
struct Run {
    figures: Figures,
    full: u64,
    resumed: u64,
}

type Runs = BTreeMap<(Sessions, Variant), Vec<Run>>;

pub fn run(options: &Options) -> Result<(), Failure> {
    let placement = Placement::of(1)?;
    environment::print(&placement)?;
    let (rounds, seconds) = match options.quick {
        true => (1, 0.15),
        false => (5, 0.6),
    };
    let rounds = options.rounds.unwrap_or(rounds);
    let seconds = options.seconds.unwrap_or(seconds);
    println!("Rounds: {rounds} of {seconds:.2} s.\n");
    let variants = or(&options.variants, &VARIANTS);
    let mut cells = Vec::new();
    for sessions in or(&options.sessions, Sessions::ALL) {
        let able = variants.iter().filter(|it| sessions.are_for(**it));
        cells.extend(able.map(|&variant| (sessions, variant)));
    }
    let directory = SocketDirectory::create()?;
    let credentials = directory.credentials()?;
    let mut runs = Runs::new();
    for round in 1..=rounds {
        // Within a round all of them, in an order drawn anew, so that what the machine does falls on all.
        fastrand::shuffle(&mut cells);
        for &(sessions, variant) in &cells {
            eprint!("\r\x1b[Kround {round}: {sessions} {variant}");
            let run = measure(sessions, variant, seconds, &placement, &credentials);
            let run = run.map_err(|error| format!("{sessions} {variant}: {error}"))?;
            runs.entry((sessions, variant)).or_default().push(run);
        }
    }
    eprint!("\r\x1b[K");
    table::print(&runs);
    Ok(())
}

fn measure(
    sessions: Sessions,
    variant: Variant,
    seconds: f64,
    placement: &Placement,
    credentials: &Path,
) -> Result<Run, Failure> {
    let credentials = (sessions != Sessions::Plaintext).then(|| credentials.to_owned());
    let server = ServerProcess::start(&ServerOptions {
        listen: vec!["127.0.0.1:0".parse::<Address>()?],
        cpu: placement.server,
        credentials: credentials.clone(),
        tickets: sessions != Sessions::NoTickets,
        one_call: true,
        ..ServerOptions::new(ServerKind::Sink, 1)
    })?;
    let mut arguments = vec![
        ("handshake-client", String::new()),
        ("--variant", variant.name().to_owned()),
        ("--sessions", sessions.name().to_owned()),
        ("--at", server.addresses[0].to_string()),
        ("--seconds", seconds.to_string()),
    ];
    if let Some(credentials) = credentials {
        arguments.push(("--credentials", credentials.display().to_string()));
    }
    if let Some(cpu) = placement.client {
        arguments.push(("--cpu", cpu.to_string()));
    }
    let figures = child::run(&arguments)?.parse()?;
    let words = server.finish()?;
    let mut counts = words.split_whitespace().map(str::parse);
    let mut count = || counts.next().transpose().map(Option::unwrap_or_default);
    Ok(Run {
        figures,
        full: count()?,
        resumed: count()?,
    })
}

impl Sessions {
    fn are_for(self, variant: Variant) -> bool {
        match self {
            // No other has the switch.
            Self::Off => variant == Variant::Trunkline,
            // Bare connections have no client.
            Self::NewClient => variant != Variant::Hyper,
            _ => VARIANTS.contains(&variant),
        }
    }
}
