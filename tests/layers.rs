//! House rules that no compiler checks: which part of the crate may use which, what pure parts may
//! not touch, and how long a file may grow. CONTRIBUTING.md says why.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and exports nothing"
)]

#[path = "layers/source.rs"]
mod source;
#[path = "layers/the_checker.rs"]
mod the_checker;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use source::Names;

/// The layer of each top-level module: `name.rs`, and everything in the folder `name/`.
///
/// A module uses itself and lower layers. The modules of layer 0 may use each other.
const LAYERS: &[(&str, u8)] = &[
    ("lib", 9),
    ("connector", 9),
    ("bench", 9),
    ("plugin", 9),
    ("channel", 8),
    ("probe", 8),
    ("directory", 7),
    ("discover", 6),
    ("token", 6),
    ("endpoint", 5),
    ("pool", 4),
    ("transport", 3),
    ("balance", 2),
    ("health", 2),
    ("retry", 2),
    ("address", 1),
    ("bucket", 1),
    ("classify", 1),
    ("deadline", 1),
    ("protobuf", 1),
    ("error", 0),
    ("history", 0),
    ("task", 0),
    ("time", 0),
    ("lock", 0),
    ("secret", 0),
    ("file_thread", 0),
    ("small_file", 0),
];

/// Layers that get time and randomness as arguments, and do no IO.
const PURE: std::ops::RangeInclusive<u8> = 1..=2;

/// Files of higher layers that are as pure: what they make of bytes and answers is tested without a socket.
const PURE_FILES: &[&str] = &[
    "src/directory/belief.rs",
    "src/directory/selection.rs",
    "src/discover/consul/guard.rs",
    "src/discover/consul/index.rs",
    "src/discover/consul/instance.rs",
    "src/discover/consul/query.rs",
    "src/discover/consul/wire.rs",
    "src/plugin/handshake.rs",
    "src/plugin/parts.rs",
    "src/plugin/reattach.rs",
];

/// What pure layers may not name.
const IMPURE: &[&str] = &[
    "crate::task",
    "std::env",
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::os::unix::net",
    "std::thread::sleep",
    "std::thread::spawn",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio",
];

/// A file with more lines than this has more than one role, unless it is in [`LONG`].
const MAX_LINES: usize = 400;

/// Longer files, each with its reason.
const LONG: &[(&str, &str)] = &[
    (
        "src/error.rs",
        "one type; every question it answers has its documentation, and no code to move",
    ),
    (
        "src/retry/replay/tests.rs",
        "tests of one type, which share their bodies",
    ),
];

#[test]
fn every_file_keeps_to_its_layer() {
    let files = sources(&["src"]);
    let breaches = breaches(&files);
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn files_are_short() {
    let breaches = too_long(&sources(&["src", "benches", "examples"]));
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

/// Guards the two tests above against passing because nothing was read.
#[test]
fn the_real_sources_are_read() {
    let files = sources(&["src"]);
    assert!(files.len() > 50, "{} files", files.len());
    let lease = Names::read(&files["src/pool/lease.rs"]);
    let import = "crate::transport::connection::Connection";
    assert!(
        lease
            .paths
            .iter()
            .any(|it| it.segments.join("::") == import)
    );
    assert!(lease.paths.len() > 100, "{} paths", lease.paths.len());
}

/// Sources by their path from the crate's root.
type Files = BTreeMap<String, String>;

fn sources(folders: &[&str]) -> Files {
    fn add(folder: &Path, root: &Path, files: &mut Files) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // `benches/peers` and `tests/loom` are built in folders of their own.
                if !path.ends_with("target") {
                    add(&path, root, files);
                }
            } else if path.extension().is_some_and(|it| it == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                let text = fs::read_to_string(&path).unwrap();
                files.insert(name.replace('\\', "/"), text);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Files::new();
    for folder in folders.iter().map(|folder| root.join(folder)) {
        if folder.is_dir() {
            add(&folder, root, &mut files);
        }
    }
    files
}

/// One line for each breach, with file and line.
fn breaches(files: &Files) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut found = Vec::new();
    let read: Vec<_> = files
        .iter()
        .map(|(file, text)| (file, module(file), Names::read(text)))
        .collect();
    let test_files: Vec<_> = read
        .iter()
        .flat_map(|(_, module, names)| {
            let tests = names.test_modules.iter();
            tests.map(|test| [module.as_slice(), &[*test]].concat())
        })
        .collect();
    for (file, module, names) in &read {
        let top = module.first().copied().unwrap_or("lib");
        found.push(top);
        let Some(layer) = layer(top) else {
            breaches.push(format!(
                "{file}: module `{top}` has no layer; add it to LAYERS in tests/layers.rs"
            ));
            continue;
        };
        if test_files.iter().any(|test| module.starts_with(test)) {
            continue;
        }
        for path in &names.paths {
            let problem = upward(module, top, layer, &path.segments).or_else(|| {
                let pure = PURE.contains(&layer) || PURE_FILES.contains(&file.as_str());
                pure.then(|| impure(file, &path.segments)).flatten()
            });
            if let Some(problem) = problem {
                let name = path.segments.join("::");
                breaches.push(format!("{file}:{}: `{name}`: {problem}", path.line));
            }
        }
    }
    let gone = LAYERS.iter().filter(|(name, _)| !found.contains(name));
    breaches.extend(gone.map(|(name, _)| {
        format!("src: there is no module `{name}`; take it out of LAYERS in tests/layers.rs")
    }));
    breaches
}

/// The module that a file is: `["pool", "lease"]`. The crate's root is empty.
fn module(file: &str) -> Vec<&str> {
    let file = file.strip_prefix("src/").unwrap_or(file);
    let file = file.strip_suffix(".rs").unwrap_or(file);
    let mut module: Vec<_> = file.split('/').collect();
    module.pop_if(|last| *last == "mod" || *last == "lib");
    module
}

fn layer(module: &str) -> Option<u8> {
    let entry = LAYERS.iter().find(|(name, _)| *name == module);
    entry.map(|(_, layer)| *layer)
}

fn upward(module: &[&str], top: &str, layer: u8, path: &[&str]) -> Option<String> {
    let target = match from_the_root(module, path)?.first()? {
        name if self::layer(name).is_some() => *name,
        // An item that the root re-exports.
        _ => "lib",
    };
    let above = self::layer(target)?;
    let allowed = target == top || above < layer || (above == 0 && layer == 0);
    (!allowed).then(|| {
        format!(
            "`{top}` (layer {layer}) may use itself and lower layers, not `{target}` (layer {above})"
        )
    })
}

/// The rest of a path that leads to the crate's root, by name or by `super`.
fn from_the_root<'a, 'b>(module: &[&str], path: &'b [&'a str]) -> Option<&'b [&'a str]> {
    if let ["crate", rest @ ..] = path {
        return Some(rest);
    }
    let up = path.iter().take_while(|it| **it == "super").count();
    (up > 0 && up >= module.len()).then(|| &path[up..])
}

fn impure(file: &str, path: &[&str]) -> Option<String> {
    let clock = path.ends_with(&["Instant", "now"]);
    let named = || {
        IMPURE
            .iter()
            .any(|it| path.starts_with(&it.split("::").collect::<Vec<_>>()))
    };
    (clock || named())
        .then(|| format!("{file} is pure: no IO, no tasks, and time and randomness are arguments"))
}

fn too_long(files: &Files) -> Vec<String> {
    let mut breaches = Vec::new();
    for (file, text) in files {
        let lines = text.lines().count();
        let excused = LONG.iter().any(|(long, _)| long == file);
        if lines > MAX_LINES && !excused {
            breaches.push(format!(
                "{file}: {lines} lines; split it, or add it to LONG in tests/layers.rs with a reason"
            ));
        }
        if lines <= MAX_LINES && excused {
            breaches.push(format!(
                "{file}: {lines} lines; take it out of LONG in tests/layers.rs"
            ));
        }
    }
    let gone = LONG.iter().filter(|(file, _)| !files.contains_key(*file));
    breaches.extend(
        gone.map(|(file, _)| format!("{file}: is gone; take it out of LONG in tests/layers.rs")),
    );
    breaches
}
