//! The figures as Markdown.

use super::{REFERENCE, Run, Runs};
use crate::sample::median;

/// Where the 99th percentile stands among the quantiles.
const P99: usize = 2;

pub fn print(runs: &Runs) {
    println!(
        "| servers | client | p50 ms | p90 ms | p99 ms | p99.9 ms | p99, of healthy | lowest–highest | to the last server | failed |"
    );
    println!("|---|---|{}", "---:|".repeat(8));
    let reference = runs.get(&REFERENCE).and_then(|it| it.as_ref().ok());
    for ((case, client), runs) in runs {
        match (runs, reference) {
            (Ok(runs), Some(reference)) => {
                println!("| {case} | {client} | {} |", row(runs, reference));
            }
            (Err(error), _) => println!("| {case} | {client} | failed: {error} |"),
            (Ok(_), None) => println!("| {case} | {client} | nothing to compare with |"),
        }
    }
    println!();
}

/// Medians of the rounds, and of the rounds' ratios.
fn row(runs: &[Run], reference: &[Run]) -> String {
    let p99 = |run: &Run| run.tail.quantiles[P99];
    let pairs = runs.iter().zip(reference);
    let mut ratios: Vec<_> = pairs
        .map(|(run, healthy)| p99(run) / p99(healthy))
        .collect();
    ratios.sort_by(f64::total_cmp);
    let mut cells: Vec<_> = (0..4)
        .map(|nth| median(runs.iter().map(|run| run.tail.quantiles[nth])) / 1e3)
        .map(|millis| format!("{millis:.1}"))
        .collect();
    let (lowest, highest) = (ratios.first(), ratios.last());
    let calls: u64 = runs.iter().map(|run| run.tail.calls).sum();
    let failed: u64 = runs.iter().map(|run| run.tail.failed).sum();
    cells.extend([
        format!("{:.2}", median(ratios.iter().copied())),
        format!(
            "{:.2}–{:.2}",
            lowest.unwrap_or(&f64::NAN),
            highest.unwrap_or(&f64::NAN)
        ),
        format!("{:.1} %", median(runs.iter().map(|run| run.share)) * 100.0),
        format!("{failed} of {calls}"),
    ]);
    cells.join(" | ")
}
