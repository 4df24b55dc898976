//! A running agent.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, process};

use crate::support::scratch::Scratch;
use crate::support::wait::Asking;

use super::api::Api;
use super::kept::Kept;
use super::options::AgentBuilder;
use super::ports::Ports;
use super::program;

/// How long it may take to start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How often it is started before that has failed.
const STARTS: usize = 3;

/// A Consul agent that is the only server of its datacenter, on ports and with files of its own.
///
/// Dropping it kills it and waits for its end; it ends, too, when the test itself is killed. While it lives, the test's
/// process has a few sockets that hold its ports: a leak check begins before it and ends after it.
#[derive(Debug)]
pub struct Agent {
    options: AgentBuilder,
    name: String,
    ports: Ports,
    files: Scratch,
    running: Option<Kept>,
}

impl Agent {
    /// One with default options.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Options first, then [`start`](AgentBuilder::start).
    pub fn builder() -> AgentBuilder {
        AgentBuilder::default()
    }

    /// The address of its HTTP API, the same for life.
    pub fn http_addr(&self) -> SocketAddr {
        self.ports.http()
    }

    /// `http://address`.
    pub fn uri(&self) -> String {
        format!("http://{}", self.http_addr())
    }

    /// The path of its Unix socket, if it [has one](AgentBuilder::unix), the same for life.
    pub fn unix_path(&self) -> PathBuf {
        self.files.path("http.sock")
    }

    pub fn datacenter(&self) -> &str {
        &self.options.datacenter
    }

    /// The name of its node in the catalogue, which no other agent has.
    pub fn node_name(&self) -> &str {
        &self.name
    }

    /// A client of its API over TCP, with the management token if there is one.
    pub fn api(&self) -> Api {
        self.authorised(Api::tcp(self.http_addr()))
    }

    /// The same over its Unix socket.
    pub fn unix_api(&self) -> Api {
        self.authorised(Api::unix(self.unix_path()))
    }

    /// Ends it by SIGKILL, and waits until it has. Connecting to it is then refused; a Unix socket's file stays behind.
    /// Does nothing to one that is down.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Starts it again, with the same options in the same place. It has forgotten everything. Kills it first if it
    /// still runs.
    pub async fn restart(&mut self) {
        self.kill();
        for _ in 0..STARTS {
            if self.run().await {
                return;
            }
        }
        panic!("the agent did not start:\n{}", self.end_of_log());
    }

    /// Stops it where it is (SIGSTOP), and waits until it stands still: its kernel goes on to accept and to acknowledge
    /// for it.
    pub async fn freeze(&self) {
        self.process().freeze().await;
    }

    /// Lets it go on (SIGCONT). It may have to become its leader again before it answers.
    pub fn thaw(&self) {
        self.process().thaw();
    }

    /// Its process. Panics when it is down.
    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// The directory of its log and its other files, which ends with it.
    pub fn files(&self) -> PathBuf {
        self.files.path("")
    }

    pub(super) fn wan_addr(&self) -> SocketAddr {
        self.ports.wan()
    }

    pub(super) async fn with(options: AgentBuilder) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let mut agent = Self {
            options,
            name: format!("agent-{}-{number}", process::id()),
            ports: Ports::new(),
            files: Scratch::new(),
            running: None,
        };
        for _ in 0..STARTS {
            if agent.run().await {
                return agent;
            }
            // One was taken meanwhile, perhaps.
            agent.ports = Ports::new();
        }
        panic!("the agent did not start:\n{}", agent.end_of_log());
    }

    /// Starts the process, and waits until it is [ready](Self::is_ready). False if it has ended instead.
    async fn run(&mut self) -> bool {
        let data = self.files.path("data");
        // That of an agent without a leader; the others have none.
        let _ = fs::remove_dir_all(&data);
        let config = self.files.path("config.json");
        let socket = self.unix_path();
        fs::write(&config, self.options.file(&path(&socket))).unwrap();
        let program = program::program();
        let mut args: Vec<_> = [
            "agent",
            "-bind=127.0.0.1",
            "-client=127.0.0.1",
            // Else all agents on one machine are one.
            "-disable-host-node-id",
        ]
        .map(str::to_owned)
        .into();
        args.push(format!("-node={}", self.name));
        args.push(format!("-datacenter={}", self.options.datacenter));
        args.push(format!("-config-file={}", path(&config)));
        args.extend(self.ports.arguments());
        args.extend(program::arguments(&program).iter().map(|&it| it.to_owned()));
        if let Some(peer) = &self.options.peer {
            args.push(format!("-retry-join-wan={}", peer.wan));
        }
        if self.options.leader {
            // With all its state in memory, and with short times until it leads.
            args.push("-dev".to_owned());
        } else {
            args.push("-server".to_owned());
            args.push("-bootstrap-expect=3".to_owned());
            args.push(format!("-data-dir={}", path(&data)));
        }
        let mut process = Kept::start(&program, &args, &self.log());
        let asking = Asking::for_at_most(START_LIMIT);
        while !self.is_ready().await {
            if process.has_ended() {
                return false;
            }
            let time_is_left = asking.again().await;
            assert!(
                time_is_left,
                "the agent is not ready after {START_LIMIT:?}:\n{}",
                self.end_of_log()
            );
        }
        self.running = Some(process);
        true
    }

    /// Whether what is registered would be in the catalogue soon, and be found from wherever it should be.
    async fn is_ready(&self) -> bool {
        let api = self.api();
        if !self.options.leader {
            return answers(&api, "/v1/agent/self", "").await;
        }
        // The leader adds this check when it has taken the node in; the agent's own part comes after that.
        let node = format!("/v1/health/node/{}", self.name);
        if !answers(&api, &node, "serfHealth").await {
            return false;
        }
        // Policies can't be made before this.
        let acls = self.options.management.is_some();
        if acls && !answers(&api, "/v1/acl/policies", "global-management").await {
            return false;
        }
        if let Some(peer) = &self.options.peer {
            let there = format!("/v1/catalog/nodes?dc={}", peer.datacenter);
            let here = format!("/v1/catalog/nodes?dc={}", self.datacenter());
            return answers(&api, &there, "Node").await && answers(&peer.api, &here, "Node").await;
        }
        true
    }

    fn authorised(&self, api: Api) -> Api {
        match &self.options.management {
            Some(token) => api.with_token(token),
            None => api,
        }
    }

    fn process(&self) -> &Kept {
        self.running.as_ref().expect("the agent runs")
    }

    fn log(&self) -> PathBuf {
        self.files.path("log")
    }

    fn end_of_log(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

/// Whether this path is answered with success and this word.
async fn answers(api: &Api, path: &str, word: &str) -> bool {
    let answer = api.ask("GET", path, "").await;
    answer.is_ok_and(|it| it.status == 200 && it.text().contains(word))
}

fn path(path: &Path) -> String {
    path.to_str().expect("a path of text").to_owned()
}
