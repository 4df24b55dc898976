//! That the checker finds what it should, and nothing else.

use super::*;

/// The breaches of one file, without their explanations and without the modules that are missing.
fn found(file: &str, text: &str) -> Vec<String> {
    found_in(&[(file, text)])
}

fn found_in(files: &[(&str, &str)]) -> Vec<String> {
    let files = files
        .iter()
        .map(|(file, text)| (file.to_string(), text.to_string()));
    let breaches = breaches(&files.collect());
    let real = breaches.into_iter().filter(|it| !it.starts_with("src: "));
    real.map(|it| it.split("`: ").next().unwrap().to_owned())
        .collect()
}

#[test]
fn names_file_line_and_rule() {
    let files = [(
        "src/pool/lease.rs".to_owned(),
        "\nuse crate::endpoint::Key;".to_owned(),
    )];
    let expected = "src/pool/lease.rs:2: `crate::endpoint::Key`: \
        `pool` (layer 4) may use itself and lower layers, not `endpoint` (layer 5)";
    assert_eq!(breaches(&Files::from(files))[0], expected);
}

#[test]
fn lower_layers_and_ones_own_are_allowed() {
    let text =
        "use crate::{retry::Backoff, error::Error};\nuse super::State;\nuse crate::pool::Lease;";
    assert_eq!(found("src/pool/lease.rs", text), [""; 0]);
    assert_eq!(found("src/task.rs", "use crate::error::Error;"), [""; 0]);
}

#[test]
fn neighbours_in_a_layer_are_not() {
    assert_eq!(
        found("src/retry/policy.rs", "use crate::balance::Pick;"),
        ["src/retry/policy.rs:1: `crate::balance::Pick"]
    );
    assert_eq!(
        found("src/address.rs", "use crate::deadline::Deadline;").len(),
        1
    );
}

#[test]
fn trees_are_followed_to_each_leaf() {
    let text = "use std::sync::Arc;\nuse crate::{\n    error::{self, Error},\n    pool::{\n        Lease, state::*,\n    },\n};";
    assert_eq!(
        found("src/transport/mod.rs", text),
        [
            "src/transport/mod.rs:5: `crate::pool::Lease",
            "src/transport/mod.rs:5: `crate::pool::state",
        ]
    );
}

#[test]
fn paths_in_expressions_and_types_count() {
    let text = "fn f(x: &crate::channel::Channel<'_>) -> u8 {\n    <u8>::max(1, crate::directory::news::<u8>())\n}";
    assert_eq!(
        found("src/endpoint/set.rs", text),
        [
            "src/endpoint/set.rs:1: `crate::channel::Channel",
            "src/endpoint/set.rs:2: `crate::directory::news",
        ]
    );
}

#[test]
fn supers_that_reach_the_root_count() {
    let text = "use super::super::pool::Lease;\nuse super::slots;";
    assert_eq!(
        found("src/transport/mod.rs", text),
        [
            "src/transport/mod.rs:1: `super::super::pool::Lease",
            "src/transport/mod.rs:2: `super::slots"
        ]
    );
    assert_eq!(found("src/transport/connection/wire.rs", text), [""; 0]);
    assert_eq!(found("src/error.rs", "use super::pool;").len(), 1);
}

#[test]
fn what_the_root_exports_is_taken_from_its_own_module() {
    assert_eq!(
        found("src/pool/lease.rs", "use crate::Backoff;"),
        ["src/pool/lease.rs:1: `crate::Backoff"]
    );
}

#[test]
fn comments_strings_and_visibilities_are_no_imports() {
    let text = r####"
        //! [`Channel`](crate::Channel)
        /* use crate::pool; /* use crate::pool; */ use crate::pool; */
        pub(crate) const A: &str = "use crate::pool; \" crate::pool";
        const B: &str = r#"crate::pool " crate::pool"#;
        const C: (char, char, char, u8) = ('"', '\'', '\u{27}', b'"');
        pub(in crate::lock) struct D<'a>(&'a str);
    "####;
    assert_eq!(found("src/lock.rs", text), [""; 0]);
    let after = format!("{text}\nuse crate::pool;");
    assert_eq!(
        found("src/lock.rs", &after),
        ["src/lock.rs:9: `crate::pool"]
    );
}

#[test]
fn tests_may_use_anything_and_what_follows_them_may_not() {
    let text = "#[cfg(test)]\n#[allow(dead_code)]\nmod tests {\n    use crate::channel::Channel;\n    fn f() {}\n}\n\
        #[cfg(all(test, unix))]\nuse crate::channel::Channel;\n#[cfg(not(test))]\nuse crate::channel::Channel;";
    assert_eq!(
        found("src/pool/lease.rs", text),
        ["src/pool/lease.rs:10: `crate::channel::Channel"]
    );
}

#[test]
fn files_of_tests_are_known_by_their_declaration() {
    let import = "use crate::channel::Channel;";
    let declared = |declaration| {
        found_in(&[
            ("src/lock.rs", declaration),
            ("src/lock/tests.rs", import),
            ("src/lock/tests/more.rs", import),
        ])
    };
    assert_eq!(declared("#[cfg(test)]\n#[cfg(unix)]\nmod tests;"), [""; 0]);
    assert_eq!(declared("mod tests;").len(), 2);
    let earlier = [
        ("src/pool/a_test.rs", import),
        ("src/pool/mod.rs", "#[cfg(test)]\nmod a_test;"),
    ];
    assert_eq!(found_in(&earlier), [""; 0]);
}

#[test]
fn pure_layers_touch_nothing() {
    for impure in [
        "use tokio::net::TcpStream;",
        "fn f() { tokio::spawn(g()); }",
        "use std::{io, time::{Duration, Instant}};",
        "fn f() -> Instant { Instant::now() }",
        "fn f() -> Instant { crate::time::Instant::now() }",
        "use crate::task::Tasks;",
        "use std::net::TcpStream;",
    ] {
        assert_eq!(found("src/retry/budget.rs", impure).len(), 1, "{impure}");
        assert_eq!(found("src/deadline.rs", impure).len(), 1, "{impure}");
        let wire = "src/discover/consul/wire.rs";
        assert_eq!(found(wire, impure).len(), 1, "{impure}");
        assert_eq!(found("src/transport/mod.rs", impure), [""; 0], "{impure}");
    }
    let pure = "use std::net::IpAddr;\nuse std::time::Duration;\nuse crate::time::Instant;";
    assert_eq!(found("src/deadline.rs", pure), [""; 0]);
}

#[test]
fn the_table_and_the_files_agree() {
    assert_eq!(found("src/novel/mod.rs", "").len(), 1);
    let nothing_there = breaches(&Files::new());
    assert_eq!(nothing_there.len(), LAYERS.len(), "{nothing_there:?}");
}

#[test]
fn long_files_need_a_reason_and_reasons_a_long_file() {
    let file = |name: &str, lines| (name.to_owned(), "\n".repeat(lines));
    let known = |lines| LONG.iter().map(move |(name, _)| file(name, lines));
    let with = |lines, other| too_long(&known(lines).chain([other]).collect()).len();
    assert_eq!(with(MAX_LINES + 1, file("src/a.rs", MAX_LINES)), 0);
    assert_eq!(with(MAX_LINES + 1, file("src/a.rs", MAX_LINES + 1)), 1);
    assert_eq!(with(MAX_LINES, file("src/a.rs", 1)), LONG.len());
    assert_eq!(too_long(&Files::new()).len(), LONG.len());
}
