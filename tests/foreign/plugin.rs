//! A plugin in a process of its own.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;

use super::server::{END_LIMIT, START_LIMIT, python};
use crate::support::wait::wait_until;

/// A running plugin. Dropping it kills the process; should the test itself be killed, the plugin ends because its input
/// does.
#[derive(Debug)]
pub struct Plugin {
    process: Child,
    input: Option<ChildStdin>,
    line: String,
}

impl Plugin {
    /// Starts one on this network (`unix`, `tcp`), with its files in this directory, and these variables in its
    /// environment.
    pub fn start(network: &str, directory: &Path, environment: &[(&str, &str)]) -> Self {
        let python = python();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/plugin.py");
        let mut command = Command::new(&python);
        // No compiled files beside the sources.
        command.arg("-B").arg(script).arg(network);
        Self::run(command, directory, environment).unwrap_or_else(|error| {
            panic!("{}: {error}; run scripts/foreign-python", python.display())
        })
    }

    /// Starts the one that is written in Go, with its files in this directory, and these variables in its environment.
    /// `None` if it was not built.
    pub fn go(directory: &Path, environment: &[(&str, &str)]) -> Option<Self> {
        // As `scripts/go-plugin` has it.
        let files = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let program = files.with_file_name("go-plugin").join("echo");
        match Self::run(Command::new(&program), directory, environment) {
            Ok(plugin) => Some(plugin),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => panic!("{}: {error}", program.display()),
        }
    }

    fn run(
        mut command: Command,
        directory: &Path,
        environment: &[(&str, &str)],
    ) -> io::Result<Self> {
        let mut process = command
            .env("TMPDIR", directory)
            .env("TRUNKLINE_PLUGIN", "echo")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut plugin = Self {
            process,
            input,
            line: String::new(),
        };
        // A thread reads, so that the wait has a limit. It goes on until the process ends, which must not find its
        // output closed.
        let (send, line) = sync_channel(1);
        thread::spawn(move || {
            let mut line = String::new();
            while matches!(output.read_line(&mut line), Ok(1..)) {
                let _ = send.try_send(std::mem::take(&mut line));
            }
        });
        plugin.line = line.recv_timeout(START_LIMIT).expect("the plugin starts");
        Ok(plugin)
    }

    /// The first line of its output, with its end.
    pub fn line(&self) -> &str {
        &self.line
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Tells it to end, and waits until it has.
    pub async fn stop(mut self) -> ExitStatus {
        self.input = None;
        let mut status = None;
        let ended = || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        };
        wait_until(END_LIMIT, ended).await;
        status.unwrap()
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
