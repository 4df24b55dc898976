//! A server process, as its parent sees it.

use std::env;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpSocket;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use trunkline::Endpoint;

use crate::{LIMIT, Result};

/// One echo server in a process of its own, at an address that it keeps while it is down.
pub(crate) struct Server {
    name: &'static str,
    weight: u32,
    address: String,
    process: Option<Child>,
    /// Bound and never listening: nobody else gets the port while the server is down.
    _port: Option<TcpSocket>,
}

impl Server {
    /// A server on a free loopback port.
    pub(crate) fn tcp(name: &'static str, weight: u32) -> Result<Self> {
        let port = TcpSocket::new_v4()?;
        // Lets the server bind it too. Tokio sets the same for the server's listener.
        port.set_reuseaddr(true)?;
        port.bind(([127, 0, 0, 1], 0).into())?;
        Ok(Self {
            name,
            weight,
            address: port.local_addr()?.to_string(),
            process: None,
            _port: Some(port),
        })
    }

    /// A server on a Unix socket.
    pub(crate) fn unix(name: &'static str, weight: u32, path: &Path) -> Self {
        Self {
            name,
            weight,
            address: format!("unix:{}", path.display()),
            process: None,
            _port: None,
        }
    }

    /// The server, as the channel gets to know it.
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::uri(&self.address)
            .weight(self.weight)
            .metadata("name", self.name)
    }

    /// Starts the process, and waits until it listens.
    pub(crate) async fn start(&mut self) -> Result<()> {
        let mut process = Command::new(env::current_exe()?)
            .args(["serve", self.name, &self.address])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // For when the plot breaks off: nobody is left to wait for it then.
            .kill_on_drop(true)
            .spawn()?;
        let output = process.stdout.take().ok_or("its output is a pipe")?;
        self.process = Some(process);
        let mut said = String::new();
        timeout(LIMIT, BufReader::new(output).read_line(&mut said)).await??;
        if said.trim() != "ready" {
            return Err(format!("{} did not start", self.name).into());
        }
        Ok(())
    }

    /// Ends the process as a crash would: no goodbye, calls break off.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// Has the server say GOAWAY and finish its calls, and waits until its process has ended.
    pub(crate) async fn drain(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        drop(process.stdin.take());
        let ended = timeout(LIMIT, process.wait()).await??;
        if !ended.success() {
            return Err(format!("{} ended badly: {ended}", self.name).into());
        }
        Ok(())
    }
}
