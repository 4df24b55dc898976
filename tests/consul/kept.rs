//! A process that can't outlive the test, although it knows nothing of it.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use crate::support::wait::wait_until;

/// How long the kernel may take to stop a process.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A shell between the test and the program, whose input is a pipe from the test. When that ends, however the test
/// ended, the program is killed. It ends itself when the program does.
///
/// It is the program's parent, and nobody else waits for the program: so the number it kills is always the program's.
/// Signals that a terminal sends to the whole group must not end it first.
const KEEPER: &str = r#"
trap '' HUP INT TERM
exec 3<&0
"$@" </dev/null >&2 3<&- &
program=$!
echo $program
exec >&2
{ read -r _ <&3; kill -KILL $program; } &
wait $program
ended=$?
kill -KILL $!
exit $ended
"#;

/// The process. Dropping it kills it and waits for its end.
#[derive(Debug)]
pub struct Kept {
    keeper: Child,
    life: Option<ChildStdin>,
    pid: u32,
}

impl Kept {
    /// Starts it. What it says is added to the log.
    pub fn start(program: &Path, args: &[String], log: &Path) -> Self {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("the log's directory is writable");
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "sh"])
            .arg(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("there is a shell");
        let life = keeper.stdin.take();
        let mut line = String::new();
        // The shell says it before it does anything that takes time.
        BufReader::new(keeper.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let pid = line.trim().parse().expect("the shell tells the number");
        Self { keeper, life, pid }
    }

    /// The program's process, not the shell's.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.keeper.try_wait().unwrap().is_some()
    }

    /// Stops it where it is (SIGSTOP), and waits until all its threads stand still.
    pub async fn freeze(&self) {
        self.signal("STOP");
        wait_until(STOP_LIMIT, || self.is_frozen()).await;
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn is_frozen(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap();
        // One may end meanwhile.
        let mut stats = threads
            .filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("stat")).ok());
        stats.all(|stat| {
            // After the name, which is in parentheses and may hold anything.
            stat.rsplit(')').next().unwrap().trim().starts_with('T')
        })
    }

    fn signal(&self, signal: &str) {
        let command = format!("kill -{signal} {}", self.pid);
        let sent = Command::new("sh").args(["-c", &command]).status().unwrap();
        assert!(sent.success(), "{command}: {sent}");
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.life.take());
        // It answers at once: nothing can hold up SIGKILL.
        let _ = self.keeper.wait();
    }
}
