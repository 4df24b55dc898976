//! A file that does not open, as if it lay on a server that is gone.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Linux lets the holder of a lease on a file be told before others open it. This one is deaf, so they wait until it is
/// gone, or for `/proc/sys/fs/lease-break-time` seconds, usually 45. The standard library has no word for leases, so a
/// Python program holds it.
const HOLD: &str = "
import fcntl, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = open(sys.argv[1], 'r+')
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
sys.stdin.read()
";

/// While it lives, whoever opens the file waits.
#[derive(Debug)]
pub struct Lease(Child);

impl Lease {
    /// `None` where there are none: not on Linux, and not on every kind of disk.
    pub fn on(path: &Path) -> Option<Self> {
        let mut holder = Command::new("python3")
            .args(["-c", HOLD])
            .arg(path)
            // It ends with this process, however that ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let said = holder.stdout.take().unwrap();
        BufReader::new(said).read_line(&mut line).unwrap();
        let lease = Self(holder);
        if line != "held\n" {
            println!("skipped: there is no lease on {}", path.display());
            return None;
        }
        Some(lease)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
