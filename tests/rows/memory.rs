//! The memory of this process.

use std::{env, fs};

/// Whether this process's memory shows what it uses. With more than one arena it does not: glibc's heap creeps on for
/// hundreds of thousands of calls while threads free what others allocated. `MALLOC_ARENA_MAX=1` in the environment
/// gives it one.
pub fn is_steady() -> bool {
    env::var("MALLOC_ARENA_MAX").is_ok_and(|arenas| arenas == "1")
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
