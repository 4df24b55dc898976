//! A part of a test in a process of its own: the same program, asked for another of its tests, which is ignored
//! otherwise.

use std::env;
use std::io::{BufRead, BufReader, Read, stdin};
use std::process::{Child, ChildStdout, Command, Stdio};

/// What the other process is told.
const TOLD: &str = "TRUNKLINE_APART";

/// The other process. Dropping it kills it.
///
/// It ends with this one, however this one ends: its input is a pipe from here.
#[derive(Debug)]
pub struct Apart {
    process: Child,
    words: BufReader<ChildStdout>,
}

impl Apart {
    /// Starts this test there, which is [told](told) this.
    pub fn start(test: &str, told: &str) -> Self {
        Self::start_by(Command::new(env::current_exe().unwrap()), test, told)
    }

    /// The same in a network namespace.
    pub fn start_in(namespace: &str, test: &str, told: &str) -> Self {
        // It becomes the program that it starts, so the process is the same.
        let mut ip = Command::new("ip");
        ip.args(["netns", "exec", namespace])
            .arg(env::current_exe().unwrap());
        Self::start_by(ip, test, told)
    }

    fn start_by(mut program: Command, test: &str, told: &str) -> Self {
        let mut process = program
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(TOLD, told)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let words = BufReader::new(process.stdout.take().unwrap());
        Self { process, words }
    }

    /// Waits until it has [said](say) something about this. Gives what.
    pub fn said(&mut self, about: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.words.read_line(&mut line).unwrap();
            assert!(read > 0, "the process ended without a word about {about}");
            // The test program says other things too.
            if let Some(words) = line.strip_prefix(about).and_then(|it| it.strip_prefix(':')) {
                return words.trim().to_owned();
            }
        }
    }

    /// Ends it, and gives its last words about this.
    pub fn end(&mut self, about: &str) -> String {
        drop(self.process.stdin.take());
        let words = self.said(about);
        let ended = self.process.wait().unwrap();
        assert!(ended.success(), "the process: {ended}");
        words
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // Fails when it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the other process was told; `None` if this is not it, and its tests have nothing to do.
pub fn told() -> Option<String> {
    env::var(TOLD).ok()
}

/// Tells the first process something.
pub fn say(about: &str, words: &str) {
    // The test runner's own line has no end yet.
    println!("\n{about}: {words}");
}

/// Blocks until the first process wants the end, or is gone.
pub fn wait_for_end() {
    let _ = stdin().read_to_end(&mut Vec::new());
}
