//! Plugins of [go-plugin]'s kind: programs that serve gRPC to the process that started them, on a socket that they name in
//! one line of output.
//!
//! ```no_run
//! use std::process::Stdio;
//! use std::time::Duration;
//!
//! use tokio::io::{AsyncBufReadExt as _, BufReader};
//! use tokio::process::Command;
//! use tokio::time::timeout;
//! use trunkline::{Connector, Endpoint, HealthCheck, plugin};
//!
//! # async fn attach() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = plugin::Identity::generate()?;
//! let mut child = Command::new("/usr/libexec/app/greeter")
//!     .env("GREETER_PLUGIN", "hello") // the plugin's own magic cookie
//!     .env("PLUGIN_PROTOCOL_VERSIONS", "1")
//!     .env(plugin::CLIENT_CERTIFICATE, identity.certificate_pem())
//!     .stdout(Stdio::piped())
//!     .kill_on_drop(true)
//!     .spawn()?;
//! let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
//! let line = timeout(Duration::from_secs(60), lines.next_line()).await??;
//!
//! let endpoint = Endpoint::from_handshake_with(&line.ok_or("it has ended")?, &identity)?;
//! let channel = Connector::endpoints([endpoint])
//!     .health_check(HealthCheck::grpc())
//!     .connect()
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! Starting a process, reading on from its output (or it blocks when the pipe is full), and ending it stay with the
//! caller. go-plugin gives a plugin a minute until its line. Its magic cookie, the versions of
//! [`Handshake::protocol_version`], and the ports from `PLUGIN_MIN_PORT` to `PLUGIN_MAX_PORT` are environment variables.
//!
//! Several plugins that do the same are a pool: each an endpoint of one channel, with an identity of its own. The example
//! `plugin` starts three, and kills one while calls run.
//!
//! | what | where |
//! |---|---|
//! | a plugin that was just started | [`Endpoint::from_handshake`](crate::Endpoint::from_handshake), [`Handshake`] |
//! | one that shall talk to nobody else, and nobody else to it (`AutoMTLS`) | [`Identity`], [`Endpoint::from_handshake_with`](crate::Endpoint::from_handshake_with) |
//! | one that runs already | [`Reattach`] |
//!
//! These endpoints have the authority `localhost`, and ask `plugin` for its health
//! ([`Endpoint::health_service`](crate::Endpoint::health_service)).
//!
//! The services that go-plugin adds to a plugin's own (broker, standard output, shutdown) are ordinary gRPC services:
//! generate clients for them if you need them. A broker that multiplexes is not supported, see
//! [`Handshake::multiplexed`].
//!
//! # Large messages
//!
//! go-plugin's hosts lift the limits on messages. A channel has none; a client that tonic has generated takes replies of
//! 4 MiB, and this lifts that:
//!
//! ```
//! # use trunkline::{Channel, plugin};
//! # use trunkline_proto::echo_client::EchoClient;
//! # fn client(channel: Channel) -> EchoClient<Channel> {
//! EchoClient::new(channel).max_decoding_message_size(plugin::MAX_MESSAGE_SIZE)
//! # }
//! ```
//!
//! What a plugin takes is its own business: one in Go whose server is `plugin.DefaultGRPCServer` refuses requests of more
//! than 4 MiB with `RESOURCE_EXHAUSTED`.
//!
//! [go-plugin]: https://github.com/hashicorp/go-plugin

mod handshake;
mod identity;
mod parts;
mod reattach;

pub use handshake::Handshake;
pub use identity::Identity;
pub use reattach::Reattach;

/// The size of messages, in bytes, up to which go-plugin's hosts send and take them (`math.MaxInt32` in its
/// `grpc_client.go`): what a generated client needs as `max_decoding_message_size`, where tonic has 4 MiB.
pub const MAX_MESSAGE_SIZE: usize = i32::MAX as usize;

/// The environment variable in which a plugin looks for [`Identity::certificate_pem`].
pub const CLIENT_CERTIFICATE: &str = "PLUGIN_CLIENT_CERT";
