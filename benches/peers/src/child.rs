//! Client processes, as children of this one.

use std::env;
use std::process::{Command, Stdio};

use crate::Failure;

/// Runs this program with another command, and returns what it printed. If it fails, the error is what it said last.
pub fn run(arguments: &[(&str, String)]) -> Result<String, Failure> {
    let mut command = Command::new(env::current_exe()?);
    for (name, value) in arguments {
        command.arg(name);
        if !value.is_empty() {
            command.arg(value);
        }
    }
    let output = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(reason(&said).into())
}

/// What a panic says, or the last line.
fn reason(said: &str) -> String {
    let mut lines = said.lines().filter(|line| !line.is_empty());
    match lines.find(|line| line.contains("panicked at")) {
        Some(_) => format!("panics: {}", lines.next().unwrap_or_default()),
        None => said.lines().last().unwrap_or("it says nothing").to_owned(),
    }
}
