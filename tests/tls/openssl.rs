//! The `openssl` program: servers that speak other versions and suites than rustls does, and keys that it made.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

/// How long it may take to start.
const LIMIT: Duration = Duration::from_secs(20);

/// Whether it is there. If not, says that the test is skipped.
pub fn is_there() -> bool {
    let there = Command::new("openssl").arg("version").output().is_ok();
    if !there {
        println!("skipped: there is no openssl on this machine");
    }
    there
}

/// Runs it, and gives what it writes.
#[track_caller]
pub fn run(arguments: &[&str]) -> String {
    let ran = Command::new("openssl").args(arguments).output().unwrap();
    let problem = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "openssl {arguments:?}: {problem}");
    String::from_utf8(ran.stdout).unwrap()
}

/// `openssl s_server` on a free loopback port. It speaks no HTTP/2. Dropping it kills it.
#[derive(Debug)]
pub struct OpensslServer {
    process: Child,
    address: String,
}

impl OpensslServer {
    pub fn start(chain: &Path, key: &Path, arguments: &[&str]) -> Self {
        let mut process = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "1000"])
            .arg("-cert")
            .arg(chain)
            .arg("-key")
            .arg(key)
            .args(arguments)
            // A pipe that stays open: it ends with its input.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let (send, lines) = sync_channel(16);
        // A thread reads, so that the wait has a limit. It ends with the process.
        thread::spawn(move || {
            let mut line = String::new();
            while matches!(output.read_line(&mut line), Ok(1..)) {
                let _ = send.try_send(std::mem::take(&mut line));
            }
        });
        let mut server = Self {
            process,
            address: String::new(),
        };
        while server.address.is_empty() {
            let line = lines.recv_timeout(LIMIT).expect("the server starts");
            if let Some(address) = line.trim().strip_prefix("ACCEPT ") {
                server.address = address.to_owned();
            }
        }
        server
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for OpensslServer {
    fn drop(&mut self) {
        // Fails when it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
