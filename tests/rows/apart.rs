//! A part of a test in a process of its own: the same program, asked for another of its tests, which is ignored
//! otherwise.

use std::env;
use std::io::{BufRead, BufReader, Read, stdin};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Set in the other process.
const VARIABLE: &str = "TRUNKLINE_APART";

/// The other process. Dropping it ends its input, and with that the process.
#[derive(Debug)]
pub struct Apart {
    process: Child,
    words: BufReader<ChildStdout>,
}

impl Apart {
    /// Starts this test there.
    pub fn start(test: &str) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(VARIABLE, "1")
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
    pub fn end(mut self, about: &str) -> String {
        drop(self.process.stdin.take());
        let words = self.said(about);
        assert!(self.process.wait().unwrap().success());
        words
    }
}

/// Whether this is the other process. A test for that has nothing to do elsewhere.
pub fn is_apart() -> bool {
    env::var_os(VARIABLE).is_some()
}

/// Tells the first process something.
pub fn say(about: &str, words: &str) {
    println!("\n{about}: {words}");
}

/// Blocks until the first process wants the end, or is gone.
pub fn wait_for_end() {
    let _ = stdin().read_to_end(&mut Vec::new());
}
