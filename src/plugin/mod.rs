//! Plugins of [go-plugin]'s kind: programs that serve gRPC to the process that started them, on a socket that they name in
//! one line of output.
//!
//! ```no_run
//! use std::io::{BufRead, BufReader};
//! use std::process::{Command, Stdio};
//!
//! use trunkline::{Connector, Endpoint, plugin};
//!
//! # async fn attach() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = plugin::Identity::generate()?;
//! let mut child = Command::new("/usr/libexec/app/greeter")
//!     .env("GREETER_PLUGIN", "hello") // the plugin's own magic cookie
//!     .env("PLUGIN_PROTOCOL_VERSIONS", "1")
//!     .env(plugin::CLIENT_CERTIFICATE, identity.certificate_pem())
//!     .stdout(Stdio::piped())
//!     .spawn()?;
//! let mut line = String::new();
//! BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
//!
//! let endpoint = Endpoint::from_handshake_with(&line, &identity)?;
//! let channel = Connector::endpoints([endpoint]).connect().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Starting a process, reading on from its output (or it blocks when the pipe is full), and ending it stay with the
//! caller. go-plugin gives a plugin a minute until its line. Its magic cookie, the versions of
//! [`Handshake::protocol_version`], and the ports from `PLUGIN_MIN_PORT` to `PLUGIN_MAX_PORT` are environment variables.
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
//! go-plugin lifts the limits on messages; tonic takes 4 MiB. It is a setting of the generated client:
//!
//! ```
//! # use trunkline::{Channel, plugin};
//! # use trunkline_proto::echo_client::EchoClient;
//! # fn client(channel: Channel) -> EchoClient<Channel> {
//! EchoClient::new(channel).max_decoding_message_size(plugin::MAX_MESSAGE_SIZE)
//! # }
//! ```
//!
//! [go-plugin]: https://github.com/hashicorp/go-plugin

mod handshake;
mod identity;
mod parts;
mod reattach;

pub use handshake::Handshake;
pub use identity::Identity;
pub use reattach::Reattach;

/// The size of messages, in bytes, up to which go-plugin's sides take them (`math.MaxInt32` in its `grpc_client.go`): what
/// a generated client needs as `max_decoding_message_size`, where tonic has 4 MiB.
pub const MAX_MESSAGE_SIZE: usize = i32::MAX as usize;

/// The environment variable in which a plugin looks for [`Identity::certificate_pem`].
pub const CLIENT_CERTIFICATE: &str = "PLUGIN_CLIENT_CERT";
