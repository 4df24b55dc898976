//! Where the `consul` program is.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The one on PATH, or else the one that `scripts/consul` fetched. Panics when there is none.
pub fn program() -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    on_path(&path).unwrap_or_else(|| fetched(Path::new(env!("CARGO_TARGET_TMPDIR"))))
}

/// The one in a directory of this PATH.
pub fn on_path(path: &OsStr) -> Option<PathBuf> {
    env::split_paths(path)
        .map(|directory| directory.join("consul"))
        .find(|program| program.is_file())
}

/// Where `scripts/consul` puts it: beside Cargo's directory for the files of tests.
pub fn fetched(files: &Path) -> PathBuf {
    let program = files.with_file_name("consul").join("consul");
    assert!(
        program.is_file(),
        "there is no {}; run scripts/consul",
        program.display()
    );
    program
}

/// Arguments that this program needs and others don't know.
///
/// From 1.14 on, an agent for development has one more port, which is the same for all agents unless it is turned off.
/// What was fetched is 1.8, so this asks only what was on PATH, and that once.
pub fn arguments(program: &Path) -> &'static [&'static str] {
    static HAS_GRPC_TLS: OnceLock<bool> = OnceLock::new();
    let flag = "-grpc-tls-port";
    let has_it = HAS_GRPC_TLS.get_or_init(|| {
        let path = env::var_os("PATH").unwrap_or_default();
        on_path(&path).is_some() && tells_of(program, flag)
    });
    if *has_it { &["-grpc-tls-port=-1"] } else { &[] }
}

/// Whether the help on `consul agent` has this flag.
fn tells_of(program: &Path, flag: &str) -> bool {
    let help = Command::new(program)
        .args(["agent", "-h"])
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    [help.stdout, help.stderr]
        .iter()
        .any(|text| String::from_utf8_lossy(text).contains(flag))
}
