//! One service as it is registered.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use crate::support::server::EchoServer;

/// What a check says, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    Passing,
    Warning,
    Critical,
}

/// A service at one address, for [`Api::register`](super::api::Api::register). Its id is unique to its agent.
///
/// Without a check it is passing for as long as its agent lives.
#[derive(Clone, Debug)]
pub struct Registration {
    id: String,
    fields: Map<String, Value>,
}

impl Registration {
    pub fn new(service: &str, id: &str, addr: SocketAddr) -> Self {
        let registration = Self {
            id: id.to_owned(),
            fields: Map::new(),
        };
        registration
            .field("Name", service)
            .field("ID", id)
            .field("Address", addr.ip().to_string())
            .field("Port", addr.port())
    }

    /// A TCP server under its own name.
    pub fn of(service: &str, server: &EchoServer) -> Self {
        Self::new(service, server.name(), server.addr())
    }

    /// Default: none.
    pub fn tags(self, tags: &[&str]) -> Self {
        self.field("Tags", tags)
    }

    /// Default: none.
    pub fn meta(self, meta: &[(&str, &str)]) -> Self {
        let meta = meta.iter().copied();
        self.field("Meta", meta.map(|(k, v)| (k, json!(v))).collect::<Value>())
    }

    /// Default: 1 and 1.
    pub fn weights(self, passing: u32, warning: u32) -> Self {
        self.field("Weights", json!({"Passing": passing, "Warning": warning}))
    }

    /// With a check that says this until [`Api::set_health`](super::api::Api::set_health), or for an hour.
    pub fn health(self, health: Health) -> Self {
        let check = json!({
            "CheckID": check_id(&self.id),
            "TTL": "1h",
            "Status": health.word(),
        });
        self.field("Check", check)
    }

    /// Any other field of `PUT /v1/agent/service/register`, and any value of one.
    pub fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn json(&self) -> Value {
        self.fields.clone().into()
    }
}

impl Health {
    /// As Consul writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    pub(super) fn of_word(word: &str) -> Self {
        [Self::Passing, Self::Warning, Self::Critical]
            .into_iter()
            .find(|it| it.word() == word)
            .unwrap_or_else(|| panic!("a check says {word:?}"))
    }
}

/// The check of a service: as Consul names it, where a registration has no name for it.
pub(super) fn check_id(id: &str) -> String {
    format!("service:{id}")
}
