use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::instance::{Health, Instance};
use super::{Parsed, parse};

fn entry() -> Value {
    json!({
        "Node": {
            "ID": "", "Node": "n1", "Address": "10.0.0.9", "Datacenter": "dc1",
            "TaggedAddresses": {"lan": "10.0.0.9", "wan": "198.51.100.9"}, "Meta": {"rack": "7"},
            "CreateIndex": 5, "ModifyIndex": 6,
        },
        "Service": {
            "ID": "web-1", "Service": "web", "Tags": ["v2"], "Address": "10.0.0.1", "Port": 8080,
            "TaggedAddresses": {"wan": {"Address": "198.51.100.1", "Port": 80}},
            "Meta": {"zone": "a"}, "Weights": {"Passing": 10, "Warning": 2},
            "EnableTagOverride": false, "Proxy": {"Mode": "", "MeshGateway": {}}, "Connect": {},
        },
        "Checks": [
            {"Node": "n1", "CheckID": "serfHealth", "Status": "passing", "Output": "alive"},
            {"Node": "n1", "CheckID": "service:web-1", "Status": "passing"},
        ],
    })
}

fn parsed(entries: &[Value]) -> Parsed {
    parse(Value::from(entries.to_vec()).to_string().as_bytes()).unwrap()
}

fn one(entry: Value) -> Instance {
    let mut parsed = parsed(&[entry]);
    assert_eq!(parsed.rejected.count(), 0);
    parsed.instances.remove(0)
}

/// Why the entry is refused, though its neighbours are not.
fn refused(entry: Value) -> String {
    let parsed = parsed(&[self::entry(), entry, self::entry()]);
    assert_eq!(parsed.instances.len(), 2);
    assert_eq!(parsed.rejected.count(), 1);
    parsed.rejected.to_string()
}

#[test]
fn a_whole_entry_is_read() {
    let instance = one(entry());
    assert_eq!(
        (instance.id.as_str(), instance.node.as_str()),
        ("web-1", "n1")
    );
    assert_eq!(instance.datacenter.as_deref(), Some("dc1"));
    assert_eq!(
        (instance.address.as_str(), instance.port),
        ("10.0.0.1", 8080)
    );
    assert_eq!((instance.weight_passing, instance.weight_warning), (10, 2));
    assert_eq!(instance.tags, ["v2"]);
    assert_eq!(instance.metadata["zone"], "a");
    assert_eq!(
        instance.tagged_addresses["wan"],
        ("198.51.100.1".to_owned(), 80)
    );
    assert_eq!(
        instance.tagged_addresses["lan"],
        ("10.0.0.9".to_owned(), 8080)
    );
    assert_eq!(instance.health, Health::Passing);
}

#[test]
fn what_may_be_missing_has_a_default() {
    let instance = one(
        json!({"Node": {"Address": "10.0.0.9"}, "Service": {"Port": 80, "Tags": null, "Meta": null,
        "Weights": null, "TaggedAddresses": null, "Address": ""}, "Checks": null}),
    );
    assert_eq!((instance.address.as_str(), instance.port), ("10.0.0.9", 80));
    assert_eq!((instance.weight_passing, instance.weight_warning), (1, 1));
    assert_eq!(instance.health, Health::Passing);
    assert_eq!(parse(b"[]").unwrap(), Parsed::default());
}

#[test]
fn the_worst_check_counts() {
    let with = |checks: Value| {
        let mut entry = entry();
        entry["Checks"] = checks;
        one(entry).health
    };
    let check = |id: &str, status: &str| json!({"CheckID": id, "Status": status});
    let (good, bad) = (check("a", "passing"), check("b", "critical"));
    assert_eq!(with(json!([])), Health::Passing);
    assert_eq!(with(json!([good])), Health::Passing);
    assert_eq!(with(json!([check("b", "warning"), good])), Health::Warning);
    assert_eq!(
        with(json!([good, bad, check("c", "warning")])),
        Health::Critical
    );
    assert_eq!(with(json!([check("a", "on fire")])), Health::Critical);
    let maintenance = |id: &str| with(json!([bad, check(id, "critical")]));
    assert_eq!(maintenance("_node_maintenance"), Health::Maintenance);
    assert_eq!(
        maintenance("_service_maintenance:web-1"),
        Health::Maintenance
    );
    assert_eq!(maintenance("service_maintenance"), Health::Critical);
}

#[test]
fn a_bad_entry_drops_only_itself() {
    let with = |path: &str, value: Value| {
        let mut entry = entry();
        *entry.pointer_mut(path).unwrap() = value;
        refused(entry)
    };
    assert!(
        with("/Service/Weights/Passing", json!(-1)).contains(r#""web-1" on node "n1": weight -1"#)
    );
    assert!(with("/Service/Weights/Warning", json!(1_u64 << 40)).contains("weight 1099511627776"));
    assert!(with("/Service/Weights/Warning", json!(1_u64 << 63)).starts_with("entry 1: "));
    assert!(with("/Service/Port", json!("80")).starts_with("entry 1: "));
    assert!(with("/Service/Address", json!(null)).starts_with("entry 1: "));
    assert!(with("/Service", json!(null)).starts_with("entry 1: "));
    assert!(refused(json!(7)).starts_with("entry 1: "));
    assert!(refused(json!({})).starts_with("entry 1: "));
}

#[test]
fn what_is_no_list_is_an_error() {
    let deep = "[".repeat(10_000);
    for body in [
        "",
        "{}",
        "null",
        "[",
        "[{}",
        r#""x""#,
        "<html>",
        "[1,]",
        "\u{feff}[]",
        deep.as_str(),
    ] {
        assert!(
            parse(body.as_bytes()).is_err(),
            "{}",
            &body[..body.len().min(9)]
        );
    }
    assert!(parse(b"[\"\xff\"]").is_err());
    // An entry of any depth is just one that can't be read.
    let deep = format!("[{}1{}]", "[".repeat(100), "]".repeat(100));
    assert_eq!(parse(deep.as_bytes()).unwrap().rejected.count(), 1);
}

#[test]
fn an_answer_without_end_is_refused() {
    let many = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
    let parsed = parse(many(super::MAX_ENTRIES).as_bytes()).unwrap();
    assert_eq!(parsed.rejected.count(), super::MAX_ENTRIES);
    assert!(parsed.rejected.to_string().ends_with("; and 65528 more"));
    let error = parse(many(super::MAX_ENTRIES + 1).as_bytes()).unwrap_err();
    assert!(
        error.to_string().contains("more than 65536 entries"),
        "{error}"
    );
}

/// Any JSON, shallow.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[A-Za-z]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// The good entry with something else at one place.
fn mutated() -> impl Strategy<Value = Value> {
    let places = [
        "/Node",
        "/Node/Node",
        "/Node/Address",
        "/Node/Datacenter",
        "/Node/TaggedAddresses",
        "/Service",
        "/Service/ID",
        "/Service/Tags",
        "/Service/Address",
        "/Service/Port",
        "/Service/TaggedAddresses",
        "/Service/TaggedAddresses/wan",
        "/Service/Meta",
        "/Service/Weights",
        "/Service/Weights/Passing",
        "/Checks",
        "/Checks/0",
        "/Checks/0/Status",
    ];
    (proptest::sample::select(places.to_vec()), any_json()).prop_map(|(place, value)| {
        let mut entry = entry();
        *entry.pointer_mut(place).unwrap() = value;
        entry
    })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&body);
    }

    #[test]
    fn every_entry_is_an_instance_or_is_reported(entries in proptest::collection::vec(
        prop_oneof![Just(entry()), mutated(), any_json()], 0..6,
    )) {
        let parsed = parsed(&entries);
        prop_assert_eq!(parsed.instances.len() + parsed.rejected.count(), entries.len());
        let good = entries.iter().filter(|it| **it == entry()).count();
        prop_assert!(parsed.instances.len() >= good);
    }

    /// What is read is used or counted, whatever it holds.
    #[test]
    fn every_instance_is_an_endpoint_or_is_counted(entries in proptest::collection::vec(mutated(), 0..6)) {
        let parsed = parsed(&entries);
        let found = super::super::instance::Reading::default().read(&parsed.instances, &parsed.rejected);
        let counts = found.counts;
        prop_assert_eq!(counts.instances, entries.len());
        let left_out = counts.critical + counts.warning + counts.unusable + counts.doubled;
        prop_assert_eq!(found.endpoints.len() + left_out, entries.len());
    }
}

/// What an answer is made of, for mutations that a JSON reader does not stop at once.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "null",
    "true",
    "-1",
    "0",
    "1e999",
    "18446744073709551616",
    "\"Port\"",
    "\"Weights\"",
    "\"Passing\"",
    "\"Address\"",
    "\"critical\"",
    "\"_node_maintenance\"",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
];

/// An answer after some edits of its bytes: cut, doubled, overwritten, with words in odd places.
fn edited(body: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut body = body.to_vec();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(0..=body.len());
        let to = random.usize(at..=body.len().min(at + 40));
        match random.u8(0..5) {
            0 => body.truncate(at),
            1 => drop(body.drain(at..to)),
            2 => {
                let again = body[at..to].to_vec();
                body.splice(at..at, again).for_each(drop);
            }
            3 => body[at..to]
                .iter_mut()
                .for_each(|byte| *byte = random.u8(..)),
            _ => {
                let word = WORDS[random.usize(0..WORDS.len())].bytes();
                body.splice(at..to.min(at + 4), word).for_each(drop);
            }
        }
    }
    body
}

/// A fuzz of the whole way from bytes to endpoints. `TRUNKLINE_FUZZ_ROUNDS` makes it longer, with other seeds.
#[test]
fn edited_answers_are_endpoints_or_are_counted() {
    let rounds: u64 = match std::env::var("TRUNKLINE_FUZZ_ROUNDS") {
        Ok(rounds) => rounds.parse().unwrap(),
        Err(_) => 20_000,
    };
    let body = Value::from(vec![entry(), entry(), entry()])
        .to_string()
        .into_bytes();
    let mut read = 0;
    for seed in 0..rounds {
        let body = edited(&body, &mut fastrand::Rng::with_seed(seed));
        let Ok(parsed) = parse(&body) else {
            continue;
        };
        read += 1;
        let reading = super::super::instance::Reading::default();
        let found = reading.read(&parsed.instances, &parsed.rejected);
        let counts = found.counts;
        let left_out = counts.critical + counts.warning + counts.unusable + counts.doubled;
        assert_eq!(
            found.endpoints.len() + left_out,
            counts.instances,
            "seed {seed}"
        );
        assert!(
            found.endpoints.iter().all(|it| it.address().is_ok()),
            "seed {seed}"
        );
    }
    assert!(
        read > rounds / 50,
        "only {read} of {rounds} got past the JSON reader"
    );
}
