#![forbid(unsafe_code)]
#![deny(missing_docs)]

//! Client-side service connectivity for [tonic]: give it the endpoints of a service, and every call
//! gets to one that can answer it, or fails in time with an error that says what happened where.
//!
//! ```no_run
//! use trunkline::{Connector, Endpoint, Retry};
//! use trunkline_proto::{EchoRequest, echo_client::EchoClient}; // or what tonic generates for you
//!
//! # async fn call() -> Result<(), Box<dyn std::error::Error>> {
//! let channel = Connector::endpoints([
//!     Endpoint::tcp("server1.internal:50051").weight(3),
//!     Endpoint::tcp("server2.internal:50051").weight(2),
//!     Endpoint::unix("/run/app/plugin.sock"),
//! ])
//! .retry(Retry::exponential().attempts(3))
//! .connect()
//! .await?;
//! let mut echo = EchoClient::new(channel.clone());
//! echo.unary(EchoRequest::default()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How the parts fit
//!
//! ```text
//! Discover ──► full set ──► directory ──► endpoint set, with its picker (swapped as one value)
//!                               ▲                       │ read once per attempt
//!             connection states ┘                       ▼
//! request ──► Channel ──► attempt ──► picker ──► endpoint ──► pool: a stream slot ──► HTTP/2 stream
//!                ▲                                                                         │
//!                └─── resend, retry or give up ◄─── outcome ◄─── headers, trailers, error ◄┘
//! ```
//!
//! - A [`Connector`] holds the settings and makes a [`Channel`]. Everything has a working default.
//! - A [`Channel`] goes under any tonic client and takes raw requests ([`Channel::send`]). Clones
//!   share everything. [`Channel::status`] shows each endpoint, [`Channel::acquire`] keeps a
//!   sequence of calls on one connection.
//! - [`Endpoint`]s are given, or found: in Consul, or by a [`Discover`] of your own. [`Outage`] says how
//!   far a source is believed that says that they are gone. A [`Balance`] picks among
//!   those that are ready; [`Policy`] and [`Picker`] are for rules of your own.
//! - `Tls` says how connections are encrypted, whom they trust, and who this side is.
//! - A [`HealthCheck`] asks endpoints whether they are well; a [`Breaker`] and [`OutlierDetection`] learn it from calls.
//!   [`EjectionLimits`] say how far that goes, and [`HealthStatus`] what came of it.
//! - Each endpoint has a pool of HTTP/2 connections ([`PoolOptions`]), opened by a [`Dial`].
//! - [`Retry`] says which failed attempts are repeated. The pools' dialling backs off by itself.
//!
//! # Guarantees
//!
//! **Readiness is seen, not assumed.** An endpoint is ready once its HTTP/2 SETTINGS have come, not
//! when a socket is open. Without a connection it gets no calls; it is dialled again with backoff,
//! by a task and not by a call.
//!
//! **Work that no server has processed is sent again**, at once and elsewhere if possible: requests
//! that were never written, that a GOAWAY left out, or (once per call) that were refused. That is
//! no attempt and costs no budget.
//!
//! **Work that may have been processed is sent again only if that does no harm**: the method or the
//! call is marked idempotent ([`Retry::idempotent`], [`CallOptions::idempotent`]), or the status code
//! was configured. Without either, an answer of `UNAVAILABLE` is retried, and a call whose connection
//! broke is not. A call has 3 attempts, the channel a budget of 20 % of the calls plus 10 per second.
//! Nothing is repeated once a response has begun, nor a request that outgrew the replay buffer.
//!
//! **Sick endpoints get no calls, and the last one always does.** Five calls in a row that fail, or more than a
//! fifth of them, take an endpoint out for a second, twice as long each time; then one call at a time may prove it well.
//! When none is well all get calls.
//!
//! **Every wait has a limit.** A call, from its start to the end of its response, has 30 s unless
//! it or the channel says otherwise; servers are told by `grpc-timeout`. Dialling, waiting for a
//! stream and the number of waiting calls have limits of their own.
//!
//! **Nothing is left behind.** Dropping a call resets its stream and gives back what it held. When
//! the last clone of a channel and its last call are gone, its tasks and sockets go too;
//! [`Channel::close`] ends them on demand and waits until they are gone.
//!
//! **An [`Error`] says what is known**: the endpoint, how far the attempt came, whether the call may
//! have been processed, and what became of each attempt. [`Error::from_status`] finds it in the status
//! that a generated client returned.
//!
//! # Features
//!
//! | feature | default | what |
//! |---|---|---|
//! | `consul` | yes | discovery through Consul: `Consul`, `Connector::consul` |
//! | `tls` | yes | TLS with rustls and ring: `Tls`, `Connector::tls`, `https://` endpoints |
//! | `aws-lc-rs` | | TLS with AWS-LC, alone or before ring |
//! | `plugin` | | plugins of go-plugin's kind, beside one of the two above: `plugin`, `Endpoint::from_handshake` |
//! | `native-roots` | | the system's trust roots, where none are named |
//! | `tower` | | tower's balancers over channels, and its sources of endpoints below them: `TowerDiscover` |
//! | `webpki-roots` | | Mozilla's trust roots, where none are named |
//!
//! `plugin` with `tls` alone can't talk to plugins that are written in Go and have certificates: their keys are on P-521,
//! which is for `aws-lc-rs`.
//!
//! Metrics are not in this version.

mod address;
pub mod balance;
mod bucket;
mod channel;
mod classify;
mod connector;
mod deadline;
mod directory;
mod discover;
mod endpoint;
mod error;
mod file_thread;
mod health;
mod history;
mod lock;
#[cfg(feature = "plugin")]
pub mod plugin;
mod pool;
mod probe;
mod protobuf;
mod retry;
mod secret;
mod small_file;
mod task;
mod time;
mod token;
mod transport;

#[cfg(feature = "__bench")]
#[doc(hidden)]
pub mod bench;

pub use address::{Address, Host, InvalidAddress, TcpAddress, UnixAddress, UnixName};
pub use balance::{Balance, Candidate, Load, Pick, PickRequest, Picker, Policy, Subset};
pub use channel::{
    CallOptions, Channel, ChannelStats, ChannelStatus, ConcurrencyLimits, EndpointStatus,
    PinnedChannel, ResponseBody,
};
pub use connector::Connector;
#[cfg(feature = "tower")]
pub use discover::TowerDiscover;
#[cfg(feature = "consul")]
pub use discover::{Consistency, Consul};
pub use discover::{Discover, Outage, Resolution, Resolutions};
pub use endpoint::Endpoint;
pub use error::{Delivery, Error, Stage};
pub use health::{
    Breaker, EjectionLimits, Health, HealthSource, HealthStatus, Influence, OutlierDetection,
    SlowStart,
};
pub use history::{Attempt, History};
pub use pool::{PoolOptions, State};
pub use probe::{HealthCheck, Probe, ProbeFuture, ProbeTarget};
pub use retry::{Backoff, BudgetLimits, Hedge, Retry};
pub use token::{Credentials, Token, TokenFuture, TokenSource};
pub use transport::connection::{Http2Options, Keepalive};
pub use transport::dial::{
    BoxIo, Dial, DialError, Dialing, Io, SocketDialer, TcpOptions, UnixOptions,
};
#[cfg(feature = "__tls")]
pub use transport::tls::{Certificate, DangerousTls, Tls, TlsVersion};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDoctests;
