//! Where and with what the figures were taken.

use std::fs;

use crate::Failure;
use crate::process;
use crate::servers::Placement;

const LOCK: &str = include_str!("../Cargo.lock");

const NAMED: [&str; 9] = [
    "trunkline",
    "h2",
    "hyper",
    "tonic",
    "ginepro",
    "rustls",
    "ring",
    "tokio",
    "tower",
];

pub fn print(placement: &Placement) -> Result<(), Failure> {
    println!("| | |\n|---|---|");
    println!("| versions | {} |", versions().join(", "));
    println!("| CPUs | {} of {} |", process::cpus()?.len(), cpu_model());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("| kernel | Linux {} |", kernel.trim());
    println!("| places | {} |\n", placement.describe());
    Ok(())
}

/// As the lock file names them; where there are two, both.
fn versions() -> Vec<String> {
    let quoted = |line: &str, key: &str| {
        let value = line.strip_prefix(key)?.strip_prefix(" = \"")?;
        value.strip_suffix('"').map(str::to_owned)
    };
    let mut name = String::new();
    let mut versions = Vec::new();
    for line in LOCK.lines() {
        if let Some(found) = quoted(line, "name") {
            name = found;
        } else if let Some(version) = quoted(line, "version")
            && NAMED.contains(&name.as_str())
        {
            versions.push(format!("{name} {version}"));
        }
    }
    versions
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let model = line.and_then(|line| line.split(": ").nth(1));
    model.unwrap_or("an unknown model").to_owned()
}
