//! An instance of a service, as Consul knows it, and the endpoint that it is to a channel.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address::{Address, Host};
use crate::endpoint::Endpoint;

use super::problems::Problems;

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Instance {
    pub(super) id: String,
    pub(super) node: String,
    pub(super) datacenter: Option<String>,
    pub(super) address: String,
    pub(super) port: i64,
    /// Where a local instance listens instead, since Consul 1.11.
    pub(super) socket_path: Option<String>,
    /// Other addresses, by name: `lan`, `wan`, ….
    pub(super) tagged_addresses: BTreeMap<String, (String, i64)>,
    pub(super) tags: Vec<String>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) weight_passing: u32,
    pub(super) weight_warning: u32,
    pub(super) health: Health,
}

/// What an instance's checks say, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Health {
    Passing,
    Warning,
    Critical,
    /// An operator took it out of service.
    Maintenance,
}

/// How a channel reads instances.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// Leave out instances with a warning.
    pub(super) passing_only: bool,
    /// The name of the address to use, where an instance has one of that name.
    pub(super) tagged_address: Option<String>,
    /// Use the Unix socket that an instance names.
    pub(super) socket_paths: bool,
}

/// What an answer has for a channel.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) endpoints: Vec<Endpoint>,
    /// What was left out.
    pub(super) counts: Counts,
    /// Why some can't be used.
    pub(super) problems: Problems,
}

/// How many instances there are, and why some get no calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) instances: usize,
    pub(super) critical: usize,
    pub(super) warning: usize,
    pub(super) maintenance: usize,
    pub(super) unusable: usize,
    pub(super) doubled: usize,
}

impl Reading {
    /// The endpoints among these instances, in their order. Instances in maintenance are there with weight 0: an
    /// operator drains them, which is no outage. Of several with one address, the one with the highest weight counts.
    pub(super) fn read(&self, instances: &[Instance], rejected: &Problems) -> Found {
        let mut places: HashMap<Address, usize> = HashMap::with_capacity(instances.len());
        let mut found = Found {
            endpoints: Vec::with_capacity(instances.len()),
            problems: rejected.clone(),
            counts: Counts {
                instances: instances.len() + rejected.count(),
                unusable: rejected.count(),
                ..Counts::default()
            },
        };
        let counts = &mut found.counts;
        for instance in instances {
            let weight = match instance.health {
                Health::Passing => instance.weight_passing,
                Health::Warning if self.passing_only => {
                    counts.warning += 1;
                    continue;
                }
                Health::Warning => instance.weight_warning,
                Health::Critical => {
                    counts.critical += 1;
                    continue;
                }
                Health::Maintenance => {
                    counts.maintenance += 1;
                    0
                }
            };
            match self.address(instance) {
                Ok(address) => {
                    let endpoint = instance.endpoint(address.clone(), weight);
                    match places.entry(address) {
                        Entry::Vacant(place) => {
                            place.insert(found.endpoints.len());
                            found.endpoints.push(endpoint);
                        }
                        Entry::Occupied(place) => {
                            counts.doubled += 1;
                            let other = &mut found.endpoints[*place.get()];
                            if weight > other.weight_or_default() {
                                *other = endpoint;
                            }
                        }
                    }
                }
                Err(problem) => {
                    let Instance { id, node, .. } = instance;
                    let named = || format!("{id:?} on node {node:?}: {problem}");
                    found.problems.add(named);
                    counts.unusable += 1;
                }
            }
        }
        found
    }

    fn address(&self, instance: &Instance) -> Result<Address, String> {
        let tagged = self.tagged_address.as_ref();
        let tagged = tagged.and_then(|name| instance.tagged_addresses.get(name));
        let socket = instance.socket_path.as_ref().filter(|_| self.socket_paths);
        let (host, port) = match (tagged, socket) {
            (Some((host, port)), _) => (host, *port),
            (None, Some(path)) => return Address::unix(path).map_err(|error| error.to_string()),
            (None, None) => (&instance.address, instance.port),
        };
        if !(1..=65535).contains(&port) {
            return Err(format!("port {port} is not from 1 to 65535"));
        }
        if host.is_empty() {
            return Err("neither the service nor its node has an address".to_owned());
        }
        let is_bare_v6 = host.contains(':') && !host.starts_with('[');
        let text = if is_bare_v6 {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let address = Address::tcp(&text).map_err(|error| error.to_string())?;
        match address.as_tcp().map(|tcp| tcp.host()) {
            Some(Host::Ip(ip)) if is_nobody(ip) => {
                Err(format!("{ip} is not the address of one machine"))
            }
            _ => Ok(address),
        }
    }
}

impl Instance {
    fn endpoint(&self, address: Address, weight: u32) -> Endpoint {
        let own = [
            ("consul.id", Some(self.id.clone())),
            ("consul.node", Some(self.node.clone())),
            ("consul.datacenter", self.datacenter.clone()),
            (
                "consul.tags",
                (!self.tags.is_empty()).then(|| self.tags.join(",")),
            ),
        ];
        let own = own
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let all = self.metadata.clone().into_iter().chain(own);
        all.fold(
            Endpoint::from(address).weight(weight),
            |endpoint, (name, value)| endpoint.metadata(name, value),
        )
    }

    /// Whether calls may go to it.
    pub(super) fn is_usable(&self) -> bool {
        matches!(self.health, Health::Passing | Health::Warning)
    }
}

/// An address that dials would misunderstand: 0.0.0.0 is this machine to most kernels.
fn is_nobody(ip: IpAddr) -> bool {
    // An IPv4 address may be written as an IPv6 one.
    let ip = ip.to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    ip.is_unspecified() || ip.is_multicast() || broadcast
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.instances {
            0 => return f.write_str("Consul knows no instance of the service"),
            1 => f.write_str("Consul knows 1 instance")?,
            many => write!(f, "Consul knows {many} instances")?,
        }
        let parts = [
            (self.critical, "critical"),
            (self.warning, "with a warning"),
            (self.maintenance, "in maintenance"),
            (self.unusable, "without a usable address or weight"),
            (self.doubled, "with the address of another one"),
        ];
        let mut separator = ": ";
        for (count, what) in parts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{separator}{count} {what}")?;
            separator = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, health: Health) -> Instance {
        Instance {
            id: id.to_owned(),
            node: "n1".to_owned(),
            datacenter: Some("dc1".to_owned()),
            address: "10.0.0.1".to_owned(),
            port: 8080 + health as i64 * i64::from(id == "x"),
            socket_path: None,
            tagged_addresses: BTreeMap::from([(
                "wan".to_owned(),
                ("198.51.100.7".to_owned(), 9090),
            )]),
            tags: vec!["v2".to_owned(), "blue".to_owned()],
            metadata: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
            weight_passing: 10,
            weight_warning: 2,
            health,
        }
    }

    fn read(reading: &Reading, instance: Instance) -> Option<(String, u32)> {
        let found = reading.read(&[instance], &Problems::default());
        let endpoint = found.endpoints.first()?;
        Some((endpoint.to_string(), endpoint.weight_or_default()))
    }

    #[test]
    fn health_decides_about_calls() {
        let all = [
            Health::Passing,
            Health::Warning,
            Health::Critical,
            Health::Maintenance,
        ]
        .map(|health| instance("x", health));
        let mut one = Problems::default();
        one.add(|| "unreadable".to_owned());
        let found = Reading::default().read(&all, &one);
        let weights: Vec<_> = found
            .endpoints
            .iter()
            .map(Endpoint::weight_or_default)
            .collect();
        assert_eq!(weights, [10, 2, 0]);
        assert_eq!(
            found.counts.to_string(),
            "Consul knows 5 instances: 1 critical, 1 in maintenance, 1 without a usable address or weight"
        );
        let passing = Reading {
            passing_only: true,
            ..Reading::default()
        };
        let found = passing.read(&all, &Problems::default());
        assert_eq!(found.endpoints.len(), 2);
        assert_eq!((found.counts.warning, found.counts.critical), (1, 1));
    }

    #[test]
    fn of_several_at_one_address_the_heaviest_counts() {
        let both = [
            instance("old", Health::Maintenance),
            instance("new", Health::Passing),
        ];
        let found = Reading::default().read(&both, &Problems::default());
        assert_eq!(found.endpoints.len(), 1);
        assert_eq!(found.endpoints[0].facts()["consul.id"], "new");
        assert_eq!(found.counts.doubled, 1);
    }

    #[test]
    fn counts_are_sentences() {
        assert_eq!(
            Counts::default().to_string(),
            "Consul knows no instance of the service"
        );
        let one = Counts {
            instances: 1,
            ..Counts::default()
        };
        assert_eq!(one.to_string(), "Consul knows 1 instance");
    }

    #[test]
    fn metadata_is_the_services_own_and_consuls() {
        let found =
            Reading::default().read(&[instance("x", Health::Passing)], &Problems::default());
        let facts: Vec<_> = found.endpoints[0].facts().iter().collect();
        let expected = [
            ("consul.datacenter", "dc1"),
            ("consul.id", "x"),
            ("consul.node", "n1"),
            ("consul.tags", "v2,blue"),
            ("zone", "a"),
        ];
        assert_eq!(
            facts,
            expected
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .iter()
                .map(|(a, b)| (a, b))
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn tagged_addresses_are_used_where_there_are_any() {
        let wan = Reading {
            tagged_address: Some("wan".to_owned()),
            ..Reading::default()
        };
        let whole = instance("x", Health::Passing);
        let bare = Instance {
            tagged_addresses: BTreeMap::new(),
            ..whole.clone()
        };
        assert_eq!(read(&wan, whole.clone()).unwrap().0, "198.51.100.7:9090");
        assert_eq!(read(&wan, bare).unwrap().0, "10.0.0.1:8080");
        assert_eq!(read(&Reading::default(), whole).unwrap().0, "10.0.0.1:8080");
    }

    #[test]
    fn addresses_are_checked() {
        let at = |address: &str, port: i64| {
            let instance = Instance {
                address: address.to_owned(),
                port,
                ..instance("x", Health::Passing)
            };
            read(&Reading::default(), instance).map(|(address, _)| address)
        };
        assert_eq!(
            at("server.internal", 1).as_deref(),
            Some("server.internal:1")
        );
        assert_eq!(at("::1", 80).as_deref(), Some("[::1]:80"));
        assert_eq!(at("[::1]", 80).as_deref(), Some("[::1]:80"));
        for (address, port) in [
            ("10.0.0.1", 0),
            ("10.0.0.1", -1),
            ("10.0.0.1", 70_000),
            ("10.0.0.1", i64::MAX),
            ("", 80),
            ("10.0.0.1\r\nx", 80),
            ("0.0.0.0", 80),
            ("::", 80),
            ("::ffff:0.0.0.0", 80),
            ("::ffff:224.0.0.1", 80),
            ("224.0.0.1", 80),
            ("ff02::1", 80),
            ("255.255.255.255", 80),
            ("fe80::1%eth0", 80),
            ("user@host", 80),
            ("host/path", 80),
        ] {
            assert_eq!(at(address, port), None, "{address}:{port}");
        }
        let socket = Instance {
            address: String::new(),
            port: 0,
            socket_path: Some("/run/x.sock".to_owned()),
            ..instance("x", Health::Passing)
        };
        assert_eq!(read(&Reading::default(), socket.clone()), None);
        let sockets = Reading {
            socket_paths: true,
            ..Reading::default()
        };
        assert_eq!(read(&sockets, socket).unwrap().0, "unix:/run/x.sock");
    }
}
