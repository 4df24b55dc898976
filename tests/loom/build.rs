//! Copies the files that are modelled, with their atomics replaced by loom's and without their unit tests.
//!
//! What is replaced must be there: a change of a file that the models don't see stops the build.

use std::path::Path;
use std::{env, fs};

/// File, and what is replaced in it.
const FILES: [(&str, &[(&str, &str)]); 5] = [
    (
        "transport/connection/slots.rs",
        &[("use std::sync::atomic", "use loom::sync::atomic")],
    ),
    (
        "pool/room.rs",
        &[
            ("use std::sync::atomic", "use loom::sync::atomic"),
            ("use std::sync::Mutex", "use loom::sync::Mutex"),
            (
                "use tokio::sync::Semaphore",
                "use crate::semaphore::Semaphore",
            ),
        ],
    ),
    (
        "retry/ring.rs",
        &[
            ("use std::sync::atomic", "use loom::sync::atomic"),
            // Fewer cells: a sum reads them all, and every read is a place to switch threads at.
            ("SLOTS: u32 = 32;", "SLOTS: u32 = 4;"),
        ],
    ),
    ("retry/budget.rs", &[]),
    (
        "balance/sequence.rs",
        &[
            ("use std::sync::atomic", "use loom::sync::atomic"),
            ("OWNED: usize = 32;", "OWNED: usize = 1;"),
            ("SHARED: usize = 16;", "SHARED: usize = 1;"),
            ("use super::thread_number::thread_number;\n", ""),
        ],
    ),
];

fn main() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src");
    let copies = env::var_os("OUT_DIR").expect("cargo sets it");
    println!("cargo::rerun-if-changed=build.rs");
    for (file, replaced) in FILES {
        let path = sources.join(file);
        println!("cargo::rerun-if-changed={}", path.display());
        let mut text = fs::read_to_string(&path).expect(file);
        if let Some(tests) = text.find("#[cfg(test)]\nmod tests") {
            text.truncate(tests);
        }
        for (from, to) in replaced {
            assert!(text.contains(from), "{file} has no {from:?} any more");
            text = text.replace(from, to);
        }
        assert!(
            ["std::sync::atomic", "std::sync::Mutex", "tokio::"]
                .iter()
                .all(|unseen| !text.contains(unseen)),
            "{file} uses what loom does not see"
        );
        // An included file has no documentation of its own.
        let text = text.replace("//! ", "// ").replace("//!\n", "//\n");
        let name = path.file_name().expect("a file");
        fs::write(Path::new(&copies).join(name), text).expect("a copy can be written");
    }
}
