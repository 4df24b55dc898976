//! A network of its own for each test, in which packets can be lost: servers in network namespaces behind a router that
//! is one too.
//!
//! ```text
//!  the test ── .1 ─ .2 ── the router ─┬─ .5 ─ .6 ─── server 0
//!                         (nftables)  ├─ .9 ─ .10 ── server 1
//!                                     └─ .13 ─ .14 ─ server 2
//! ```
//!
//! Packets are lost in the router, where neither end's kernel notices. All addresses are of 198.18.0.0/15, which is for
//! tests of networks (RFC 2544). Needs root, `ip` and `nft`; scripts/netns says whether a machine will do.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

/// Where the servers listen.
const PORT: u16 = 50051;
/// What namespaces and links of this kind begin with.
const PREFIX: &str = "tl";
/// The table of the router.
const TABLE: &str = "inet trunkline";

/// The network. Dropping it removes all of it.
#[derive(Debug)]
pub struct Network {
    /// Begins the names of everything that is part of it.
    name: String,
    /// The first of its sixteen addresses.
    base: u32,
}

/// What happens to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing goes through to this server or back.
    Cut(usize),
    /// Its replies get lost; it gets all requests.
    Mute(usize),
    /// Nothing goes through to any server or back.
    CutAll,
    /// So many percent of what is sent to this server get lost.
    Lossy(usize, u32),
}

impl Network {
    /// A network for three servers, and nothing lost.
    pub fn new() -> Self {
        remove_orphans();
        let pid = std::process::id();
        let network = Self {
            name: format!("{PREFIX}{pid}"),
            base: u32::from(Ipv4Addr::new(198, 18, 0, 0)) + pid % 8192 * 16,
        };
        network.set_up();
        network
    }

    fn set_up(&self) {
        let router = self.router();
        ip(&["netns", "add", &router]);
        self.link(None, 0);
        let block = format!("{}/28", self.address(0));
        let gateway = self.address(2).to_string();
        ip(&["route", "add", &block, "via", &gateway]);
        for nth in 0..3 {
            let namespace = self.namespace(nth);
            ip(&["netns", "add", &namespace]);
            self.link(Some(nth), nth + 1);
            let gateway = self.address(nth as u32 * 4 + 5).to_string();
            let route = ["route", "add", "default", "via", &gateway];
            ip(&[&["-n", &namespace][..], &route].concat());
        }
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        run("ip", &["netns", "exec", &router, "sh", "-c", forward], "");
        self.nft(&format!(
            "table {TABLE} {{ chain passing {{ type filter hook forward priority 0; }}\n}}\n"
        ));
    }

    /// Links the test or a server with the router: the `nth` of four networks with two addresses each.
    fn link(&self, server: Option<usize>, nth: usize) {
        let [near, far] = ["x", "y"].map(|end| format!("{}{end}{nth}", self.name));
        let router = self.router();
        ip(&[
            "link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &router,
        ]);
        let first = nth as u32 * 4 + 1;
        let (near_address, far_address) = match server {
            None => (first, first + 1),
            Some(_) => (first + 1, first),
        };
        let namespace = server.map(|nth| self.namespace(nth));
        let inside = match &namespace {
            Some(namespace) => {
                ip(&["link", "set", &near, "netns", namespace]);
                vec!["-n", namespace]
            }
            None => vec![],
        };
        let ends = [
            (inside, near, near_address),
            (vec!["-n", &router], far, far_address),
        ];
        for (place, link, address) in ends {
            let address = format!("{}/30", self.address(address));
            ip(&[&place[..], &["addr", "add", &address, "dev", &link]].concat());
            ip(&[&place[..], &["link", "set", &link, "up"]].concat());
        }
    }

    /// Lets this happen from now on, and nothing else.
    pub fn suffer(&self, fault: Fault) {
        let rules = match fault {
            Fault::Cut(nth) => vec![self.to(nth, ""), self.from(nth)],
            Fault::Mute(nth) => vec![self.from(nth)],
            Fault::CutAll => vec!["counter drop".to_owned()],
            Fault::Lossy(nth, percent) => {
                vec![self.to(nth, &format!("numgen random mod 100 < {percent}"))]
            }
        };
        let rules: String = rules
            .iter()
            .map(|rule| format!("add rule {TABLE} passing {rule}\n"))
            .collect();
        self.nft(&format!("flush table {TABLE}\n{rules}"));
    }

    /// How many packets were lost to what it suffers now: for no fault, nothing that a test shows of one is true.
    pub fn lost(&self) -> u64 {
        let listed = self.nft(&format!("list table {TABLE}\n"));
        let words: Vec<_> = listed.split_whitespace().collect();
        let counts = words.windows(2).filter(|it| it[0] == "packets");
        counts.map(|it| it[1].parse::<u64>().unwrap()).sum()
    }

    /// Lets everything through again.
    pub fn heal(&self) {
        self.nft(&format!("flush table {TABLE}\n"));
    }

    fn to(&self, nth: usize, condition: &str) -> String {
        format!(
            "ip daddr {} {condition} counter drop",
            self.server(nth).ip()
        )
    }

    fn from(&self, nth: usize) -> String {
        format!("ip saddr {} counter drop", self.server(nth).ip())
    }

    /// Where a server has to listen.
    pub fn server(&self, nth: usize) -> SocketAddr {
        (self.address(nth as u32 * 4 + 6), PORT).into()
    }

    /// The namespace that it has to run in.
    pub fn namespace(&self, nth: usize) -> String {
        format!("{}s{nth}", self.name)
    }

    fn router(&self) -> String {
        format!("{}r", self.name)
    }

    fn address(&self, nth: u32) -> Ipv4Addr {
        (self.base + nth).into()
    }

    /// Gives the router these commands, and what it says to them.
    fn nft(&self, commands: &str) -> String {
        let router = self.router();
        run(
            "ip",
            &["netns", "exec", &router, "nft", "-f", "-"],
            commands,
        )
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes what the network of this name has left. The links go with the namespaces that have one of their ends.
fn remove(name: &str) {
    for namespace in namespaces() {
        let rest = namespace.strip_prefix(name);
        if rest.is_some_and(|rest| rest.starts_with(['r', 's'])) {
            quietly("ip", &["netns", "del", &namespace]);
        }
    }
    // Namespaces end a little later than they are removed; the test's own end of a link is not to wait for that.
    quietly("ip", &["link", "del", &format!("{name}x0")]);
}

/// Removes the networks of tests that were killed before they could.
fn remove_orphans() {
    for namespace in namespaces() {
        let rest = namespace.strip_prefix(PREFIX).unwrap_or_default();
        let Some((pid, _)) = rest.split_once(['r', 's']) else {
            continue;
        };
        let is_ours = !pid.is_empty() && pid.bytes().all(|it| it.is_ascii_digit());
        if is_ours && !Path::new("/proc").join(pid).exists() {
            remove(&format!("{PREFIX}{pid}"));
        }
    }
}

fn namespaces() -> Vec<String> {
    // It is not there before the first one is made.
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return Vec::new();
    };
    let names = entries.filter_map(|it| it.ok()?.file_name().into_string().ok());
    names.collect()
}

fn ip(arguments: &[&str]) {
    run("ip", arguments, "");
}

/// Runs a program with this input, and gives its output. Panics with what it says if it fails.
fn run(program: &str, arguments: &[&str], input: &str) -> String {
    let started = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut process = started.unwrap_or_else(|error| {
        panic!("{program}: {error}; scripts/netns says what these tests need")
    });
    let mut stdin = process.stdin.take().unwrap();
    // One that does not read fails, and says why.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = process.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {said}; scripts/netns says what these tests need"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The same where it may fail, because there is nothing to be done.
fn quietly(program: &str, arguments: &[&str]) {
    let _ = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}
