//! An agent's answer, from bytes to instances. Pure: no clock, no IO.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde::Deserialize;
use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::instance::{Health, Instance};
use super::problems::Problems;

/// The instances of an answer, in its order, and what is wrong with the entries that are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) instances: Vec<Instance>,
    pub(super) rejected: Problems,
}

/// More entries than this in one answer is a mistake, or an attack.
const MAX_ENTRIES: usize = 65_536;

/// Reads the body of `/v1/health/service/…`.
///
/// # Errors
///
/// If it is no JSON list. An entry of the list that can't be read drops only itself.
pub(super) fn parse(body: &[u8]) -> Result<Parsed, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let parsed = reader.deserialize_seq(Entries)?;
    reader.end()?;
    Ok(parsed)
}

/// Reads each entry by itself, so that a bad one says nothing about the others, and keeps none.
struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of instances")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Parsed, A::Error> {
        let mut parsed = Parsed::default();
        let mut number = 0;
        while let Some(entry) = entries.next_element::<&RawValue>()? {
            if number == MAX_ENTRIES {
                let problem = format_args!("it has more than {MAX_ENTRIES} entries");
                return Err(serde::de::Error::custom(problem));
            }
            match serde_json::from_str(entry.get()) {
                Ok(entry) => match instance(entry) {
                    Ok(instance) => parsed.instances.push(instance),
                    Err(problem) => parsed.rejected.add(|| problem),
                },
                Err(error) => parsed.rejected.add(|| format!("entry {number}: {error}")),
            }
            number += 1;
        }
        Ok(parsed)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
    #[serde(default)]
    checks: Option<Vec<Check>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    node: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    datacenter: Option<String>,
    #[serde(default)]
    tagged_addresses: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: i64,
    #[serde(default)]
    socket_path: Option<String>,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
    #[serde(default)]
    weights: Option<Weights>,
    #[serde(default)]
    tagged_addresses: Option<BTreeMap<String, ServiceAddress>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceAddress {
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    #[serde(default = "one")]
    passing: i64,
    #[serde(default = "one")]
    warning: i64,
}

fn one() -> i64 {
    1
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(rename = "CheckID", default)]
    id: String,
    #[serde(default)]
    status: String,
}

/// # Errors
///
/// One sentence that names the instance.
fn instance(entry: Entry) -> Result<Instance, String> {
    let Entry {
        node,
        service,
        checks,
    } = entry;
    let named =
        |problem: &dyn Display| format!("{:?} on node {:?}: {problem}", service.id, node.node);
    let (passing, warning) = service
        .weights
        .as_ref()
        .map_or((1, 1), |weights| (weights.passing, weights.warning));
    let weight = |value: i64| {
        let problem = format!("weight {value} is not from 0 to {}", u32::MAX);
        u32::try_from(value).map_err(|_| named(&problem))
    };
    let tagged = service.tagged_addresses.unwrap_or_default().into_iter();
    let nodes = node.tagged_addresses.unwrap_or_default().into_iter();
    // A tagged address of the node has no port of its own.
    let nodes = nodes.map(|(tag, address)| (tag, (address, service.port)));
    let mut tagged_addresses: BTreeMap<_, _> = nodes.collect();
    tagged_addresses.extend(tagged.map(|(tag, it)| {
        let port = if it.port == 0 { service.port } else { it.port };
        (tag, (it.address, port))
    }));
    tagged_addresses.retain(|_, (address, _)| !address.is_empty());
    Ok(Instance {
        weight_passing: weight(passing)?,
        weight_warning: weight(warning)?,
        health: health(&checks.unwrap_or_default()),
        id: service.id,
        node: node.node,
        datacenter: node.datacenter,
        // The service's own, else its node's: the rule of Consul's own DNS interface.
        address: if service.address.is_empty() {
            node.address
        } else {
            service.address
        },
        port: service.port,
        socket_path: service.socket_path.filter(|path| !path.is_empty()),
        tagged_addresses,
        tags: service.tags.unwrap_or_default(),
        metadata: service.meta.unwrap_or_default(),
    })
}

/// The worst of the checks, those of the node included. A status that is not known counts as critical.
fn health(checks: &[Check]) -> Health {
    let one = |check: &Check| {
        let maintenance =
            check.id == "_node_maintenance" || check.id.starts_with("_service_maintenance:");
        match check.status.as_str() {
            "passing" => Health::Passing,
            "warning" => Health::Warning,
            _ if maintenance => Health::Maintenance,
            _ => Health::Critical,
        }
    };
    checks.iter().map(one).max().unwrap_or(Health::Passing)
}

#[cfg(test)]
mod tests;
