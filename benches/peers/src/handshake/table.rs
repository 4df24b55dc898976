//! The figures as Markdown.

use super::{Run, Runs, Sessions};
use crate::sample::median;
use crate::variants::Variant;

pub fn print(runs: &Runs) {
    println!(
        "| sessions | client | connections/s | spread | CPU µs/connection | p50 µs | p99 µs | failed calls | resumed |"
    );
    println!("|---|---|{}", "---:|".repeat(7));
    for ((sessions, variant), runs) in runs {
        println!("| {sessions} | {variant} | {} |", row(*sessions, runs));
    }
    println!("\nAs a multiple of the peer's: connections/s · CPU per connection\n");
    println!("| sessions | hyper | channel |\n|---|---:|---:|");
    for &sessions in Sessions::ALL {
        let ours = (sessions, Variant::Trunkline);
        // Those that are told not to resume make a full handshake, as the others do without tickets.
        let theirs = match sessions {
            Sessions::Off => Sessions::NoTickets,
            _ => sessions,
        };
        let cells = [Variant::Hyper, Variant::Channel].map(|it| ratio(runs, ours, (theirs, it)));
        println!("| {sessions} | {} |", cells.join(" | "));
    }
    println!("\nWith tickets, as a multiple of what the same client has without\n");
    println!("| client | connections/s · CPU per connection |\n|---|---:|");
    for variant in super::VARIANTS {
        let (with, without) = ((Sessions::Tickets, variant), (Sessions::NoTickets, variant));
        println!("| {variant} | {} |", ratio(runs, with, without));
    }
    println!();
}

fn row(sessions: Sessions, runs: &[Run]) -> String {
    let of = |figure: fn(&Run) -> f64| median(runs.iter().map(figure));
    let rate = |run: &Run| run.figures.rate;
    let slowest = runs.iter().map(rate).fold(f64::INFINITY, f64::min);
    let fastest = runs.iter().map(rate).fold(0.0, f64::max);
    let resumed: u64 = runs.iter().map(|it| it.resumed).sum();
    let all = resumed + runs.iter().map(|it| it.full).sum::<u64>();
    let resumed = match sessions {
        Sessions::Plaintext => "–".to_owned(),
        _ => format!("{resumed} of {all}"),
    };
    [
        format!("{:.0}", of(|it| it.figures.rate)),
        format!(
            "{:.0} %",
            (fastest - slowest) / of(|it| it.figures.rate) * 100.0
        ),
        format!("{:.0}", of(|it| it.figures.cpu)),
        format!("{:.0}", of(|it| it.figures.p50)),
        format!("{:.0}", of(|it| it.figures.p99)),
        format!("{:.1} %", of(|it| it.figures.failed) * 100.0),
        resumed,
    ]
    .join(" | ")
}

/// The medians of the rounds' ratios.
fn ratio(runs: &Runs, our: (Sessions, Variant), peer: (Sessions, Variant)) -> String {
    let (Some(ours), Some(theirs)) = (runs.get(&our), runs.get(&peer)) else {
        return "–".to_owned();
    };
    let of = |figure: fn(&Run) -> f64| {
        let pairs = ours.iter().zip(theirs);
        median(pairs.map(|(our, their)| figure(our) / figure(their)))
    };
    let (rate, cpu) = (of(|it| it.figures.rate), of(|it| it.figures.cpu));
    format!("{rate:.2} · {cpu:.2}")
}
