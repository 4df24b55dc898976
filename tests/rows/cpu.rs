//! The processor time of this process.

use std::fs;
use std::time::Duration;

/// Linux counts it in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// What all its threads have used so far.
pub fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // After the name, which is in parentheses and may hold anything, come 11 other fields: then user and system time.
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    let ticks = fields.skip(11).take(2);
    TICK * ticks.map(|it| it.parse::<u32>().unwrap()).sum::<u32>()
}
