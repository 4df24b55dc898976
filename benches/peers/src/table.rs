//! The figures as Markdown.

use crate::compare::Rounds;
use crate::plan::Setting;
use crate::sample::{Figure, Sample, median};
use crate::variants::Variant;

/// The variants that are compared with all the others.
const OURS: [Variant; 2] = [Variant::Trunkline, Variant::TrunklineRaw];

/// What was measured in a setting, and what it means beside the peers.
pub fn print(setting: &Setting, cells: &[(usize, Rounds)]) {
    println!("### {setting}\n");
    println!(
        "| callers | client | calls/s (k) | spread | CPU µs/call | allocations/call | bytes allocated/call | writes/call | RSS MiB | p50 µs | p99 µs | p99.9 µs |"
    );
    println!("|{}", "---:|---|".to_owned() + &"---:|".repeat(10));
    for (callers, rounds) in cells {
        for (variant, samples) in rounds {
            match samples {
                Ok(samples) => println!("| {callers} | {variant} | {} |", figures(samples)),
                Err(error) => println!("| {callers} | {variant} | failed: {error} |"),
            }
        }
    }
    println!();
    ratios(cells);
}

fn figures(samples: &[Sample]) -> String {
    let of = |figure| median(samples.iter().map(|sample| sample.of(figure)));
    let rate = |sample: &Sample| sample.of(Figure::Rate);
    let slowest = samples.iter().map(rate).fold(f64::INFINITY, f64::min);
    let fastest = samples.iter().map(rate).fold(0.0, f64::max);
    [
        format!("{:.1}", of(Figure::Rate) / 1e3),
        format!("{:.0} %", (fastest - slowest) / of(Figure::Rate) * 100.0),
        format!("{:.2}", of(Figure::Cpu)),
        format!("{:.1}", of(Figure::Allocations)),
        format!("{:.0}", of(Figure::AllocatedBytes)),
        format!("{:.3}", of(Figure::Writes)),
        format!("{:.1}", of(Figure::Rss) / 1024.0),
        format!("{:.0}", of(Figure::P50)),
        format!("{:.0}", of(Figure::P99)),
        format!("{:.0}", of(Figure::P999)),
    ]
    .join(" | ")
}

/// Each of ours beside each peer: calls per second, and CPU per call.
fn ratios(cells: &[(usize, Rounds)]) {
    let Some((_, first)) = cells.first() else {
        return;
    };
    let peers: Vec<_> = first.keys().filter(|it| !OURS.contains(it)).collect();
    let ours: Vec<_> = first.keys().filter(|it| OURS.contains(it)).collect();
    if peers.is_empty() || ours.is_empty() {
        return;
    }
    println!("As a multiple of the peer's: calls/s · CPU per call\n");
    let heads: String = peers.iter().map(|peer| format!(" {peer} |")).collect();
    println!("| callers | client |{heads}");
    println!("|---:|---|{}", "---:|".repeat(peers.len()));
    for (callers, rounds) in cells {
        for &our in &ours {
            let cell = |&peer: &&Variant| {
                let ratio = |figure| ratio(rounds, *our, *peer, figure);
                match (ratio(Figure::Rate), ratio(Figure::Cpu)) {
                    (Some(rate), Some(cpu)) => format!(" {rate:.2} · {cpu:.2} |"),
                    _ => " failed |".to_owned(),
                }
            };
            let row: String = peers.iter().map(cell).collect();
            println!("| {callers} | {our} |{row}");
        }
    }
    println!();
}

/// The median of the rounds' ratios. Both were measured within a round, a moment apart.
fn ratio(rounds: &Rounds, our: Variant, peer: Variant, figure: Figure) -> Option<f64> {
    let of = |variant| rounds.get(&variant)?.as_ref().ok();
    let pairs = of(our)?.iter().zip(of(peer)?);
    Some(median(
        pairs.map(|(our, peer)| our.of(figure) / peer.of(figure)),
    ))
}
