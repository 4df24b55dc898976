//! The memory of this process.

use std::{env, fs};

/// Whether this process's memory shows what it uses. With glibc's defaults it does not:
///
/// - With more than one arena its heap creeps on for hundreds of thousands of calls while threads free what others
///   allocated. `MALLOC_ARENA_MAX=1` in the environment gives it one.
/// - Large blocks, as the loads' own lists of latencies, go back to the system when they are freed, until the first time:
///   then blocks of that size move to the heap, which keeps them (a step of 0.6 MiB after six minutes of a soak).
///   `MALLOC_MMAP_THRESHOLD_` in the environment fixes the limit.
pub fn is_steady() -> bool {
    let one_arena = env::var("MALLOC_ARENA_MAX").is_ok_and(|arenas| arenas == "1");
    one_arena && env::var("MALLOC_MMAP_THRESHOLD_").is_ok()
}

/// How much of it is in RAM, in KiB.
pub fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
