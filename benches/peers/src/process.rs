//! What the kernel knows of this process, and where it may run.

use std::fs;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::Failure;

/// The CPUs this process may use.
pub fn cpus() -> Result<Vec<usize>, Failure> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu).unwrap_or(false))
        .collect())
}

/// Stays on one CPU. Threads inherit it, so it comes before they are made.
pub fn pin(cpu: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Dies with the process that started it, even if that is killed and even while stopped.
pub fn die_with_parent() -> Result<(), Failure> {
    Ok(set_pdeathsig(Signal::SIGKILL)?)
}

/// As many files as the system allows.
pub fn raise_file_limit() -> Result<u64, Failure> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// User and system time so far.
pub fn cpu_time() -> Result<Duration, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(time.tv_sec() as u64) + Duration::from_micros(time.tv_usec() as u64)
    };
    Ok(micros(usage.user_time()) + micros(usage.system_time()))
}

/// `write` and `writev` calls so far, of all threads.
pub fn writes() -> Result<u64, Failure> {
    field("/proc/self/io", "syscw:")
}

/// Memory in use, in KiB.
pub fn rss_kib() -> Result<u64, Failure> {
    field("/proc/self/status", "VmRSS:")
}

fn field(file: &str, name: &str) -> Result<u64, Failure> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    Ok(number.ok_or(format!("{file} has no {name}"))?.parse()?)
}
