//! A server process: the echo service until its standard input ends.
//!
//! The end of the input asks for a graceful shutdown. It also comes when the parent dies, however that
//! happens, so no server outlives it.

use std::fs;
use std::io::{self, Write as _};

use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::Server;

use crate::{Result, echo};

/// Serves at `address` (`ip:port`, or `unix:` and a path), and prints `ready` once it listens.
pub(crate) async fn run(name: &str, address: &str) -> Result<()> {
    let server = Server::builder().add_service(echo::service(name));
    if let Some(path) = address.strip_prefix("unix:") {
        // The file of one that was killed.
        if fs::exists(path)? {
            fs::remove_file(path)?;
        }
        let incoming = UnixListenerStream::new(UnixListener::bind(path)?);
        say_ready()?;
        server
            .serve_with_incoming_shutdown(incoming, input_ends())
            .await?;
    } else {
        let incoming = TcpListenerStream::new(TcpListener::bind(address).await?);
        say_ready()?;
        server
            .serve_with_incoming_shutdown(incoming, input_ends())
            .await?;
    }
    Ok(())
}

fn say_ready() -> io::Result<()> {
    // A pipe is written through at once only when it is flushed.
    let mut output = io::stdout();
    writeln!(output, "ready")?;
    output.flush()
}

async fn input_ends() {
    // An input that can't be read has ended too.
    let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await;
}
