//! The host's side: a plugin's process.

use std::error::Error;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use std::{env, io};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use trunkline::plugin::{CLIENT_CERTIFICATE, Handshake, Identity};
use trunkline::{Endpoint, UnixOptions};

use crate::MAGIC_COOKIE;

/// The version of the protocol between this host and its plugins.
const PROTOCOL_VERSION: u32 = 1;

/// go-plugin gives a plugin a minute; this one needs less.
const START_LIMIT: Duration = Duration::from_secs(5);
const END_LIMIT: Duration = Duration::from_secs(2);
/// As long as go-plugin reads a line.
const LINE_LIMIT: u64 = 64 * 1024;

/// A plugin that runs. Its process is killed when this is dropped.
pub(crate) struct Plugin {
    pub(crate) name: &'static str,
    pub(crate) endpoint: Endpoint,
    child: Child,
}

impl Plugin {
    /// Starts one, with its socket in this folder, and waits until it listens.
    pub(crate) async fn start(name: &'static str, folder: &Path) -> Result<Self, Box<dyn Error>> {
        // For this plugin only: no other one can take its place, and no other host can call it.
        let identity = Identity::generate()?;
        let mut child = Command::new(env::current_exe()?)
            .arg(name)
            .env(MAGIC_COOKIE.0, MAGIC_COOKIE.1)
            .env("PLUGIN_PROTOCOL_VERSIONS", PROTOCOL_VERSION.to_string())
            .env("PLUGIN_UNIX_SOCKET_DIR", folder)
            .env(CLIENT_CERTIFICATE, identity.certificate_pem())
            // This one ends with its input, so it does not outlive a host that was killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut output = BufReader::new(child.stdout.take().ok_or("the plugin has no output")?);
        let mut line = String::new();
        let mut reading = (&mut output).take(LINE_LIMIT);
        timeout(START_LIMIT, reading.read_line(&mut line))
            .await
            .map_err(|_| {
                format!("plugin {name} did not say in {START_LIMIT:?} where it listens")
            })??;
        // A plugin that writes more must not come to stand because nobody reads.
        tokio::spawn(async move { tokio::io::copy(&mut output, &mut tokio::io::sink()).await });

        let handshake = Handshake::parse(&line)?;
        if handshake.protocol_version != PROTOCOL_VERSION {
            return Err(format!(
                "plugin {name} speaks version {}",
                handshake.protocol_version
            )
            .into());
        }
        let endpoint = handshake.endpoint_with(&identity)?;
        Ok(Self {
            name,
            // On top of mutual TLS: the socket is the plugin's own.
            endpoint: endpoint.unix_options(UnixOptions::new().peer_pid(child.id())),
            child,
        })
    }

    pub(crate) async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Lets it end by itself, and makes it if it doesn't.
    pub(crate) async fn end(mut self) -> io::Result<()> {
        drop(self.child.stdin.take());
        match timeout(END_LIMIT, self.child.wait()).await {
            Ok(ended) => ended.map(|_| ()),
            Err(_) => self.child.kill().await,
        }
    }
}
