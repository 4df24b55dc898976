//! What an agent may be told before it starts.

use serde_json::{Map, Value, json};

use super::agent::Agent;
use super::api::Api;

/// Options of an [`Agent`].
#[derive(Clone, Debug)]
pub struct AgentBuilder {
    pub(super) datacenter: String,
    pub(super) management: Option<String>,
    pub(super) unix: bool,
    pub(super) leader: bool,
    pub(super) peer: Option<Peer>,
    settings: Map<String, Value>,
}

/// An agent of another datacenter to be joined.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) datacenter: String,
    pub(super) api: Api,
    pub(super) wan: String,
}

impl Default for AgentBuilder {
    fn default() -> Self {
        Self {
            datacenter: "dc1".to_owned(),
            management: None,
            unix: false,
            leader: true,
            peer: None,
            settings: Map::new(),
        }
    }
}

impl AgentBuilder {
    /// Default: dc1.
    pub fn datacenter(mut self, name: &str) -> Self {
        self.datacenter = name.to_owned();
        self
    }

    /// ACLs are on, and deny what no token allows. This one, a UUID, may do everything; the agent's
    /// [`api`](Agent::api) has it. Default: off.
    pub fn acls(mut self, management: &str) -> Self {
        self.management = Some(management.to_owned());
        let tokens = json!({"master": management, "agent": management});
        let acl = json!({"enabled": true, "default_policy": "deny", "tokens": tokens});
        self.setting("acl", acl)
    }

    /// Answers on a Unix socket as well, in a directory of its own. Default: on TCP only.
    pub fn unix(mut self) -> Self {
        self.unix = true;
        self
    }

    /// It waits for two more servers, in vain. Default: it leads itself.
    pub fn without_leader(mut self) -> Self {
        self.leader = false;
        self
    }

    /// Joins the datacenter of another agent, which must be another one. If either has ACLs, both need the same token.
    /// Default: there is no other.
    pub fn joined_to(mut self, other: &Agent) -> Self {
        self.peer = Some(Peer {
            datacenter: other.datacenter().to_owned(),
            api: other.api(),
            wan: other.wan_addr().to_string(),
        });
        self
    }

    /// Any other top-level setting of the configuration file. Default: Consul's.
    pub fn setting(mut self, name: &str, value: Value) -> Self {
        self.settings.insert(name.to_owned(), value);
        self
    }

    /// Starts it and waits until it can be used. Panics, with the end of its log, when that takes more than 30 s.
    pub async fn start(self) -> Agent {
        Agent::with(self).await
    }

    /// The configuration file's text.
    pub(super) fn file(&self, socket: &str) -> String {
        let mut settings = self.settings.clone();
        if self.unix {
            let http = format!("127.0.0.1 unix://{socket}");
            settings.insert("addresses".to_owned(), json!({"http": http}));
        }
        // It would ask its makers whether there is a newer one.
        settings.insert("disable_update_check".to_owned(), json!(true));
        Value::from(settings).to_string()
    }
}
