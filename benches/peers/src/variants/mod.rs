//! The clients that are compared.

pub mod ginepro;
pub mod grpc;
mod h2;
mod hyper;
mod io;
pub mod tonic;
pub mod trunkline;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Failure;
use crate::target::{Address, Target};

/// Makes one call after the other. Clones share the connections.
pub trait Calls: Clone + Send + 'static {
    fn call(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// What is done with a connected client, of whatever type it is.
pub trait Job: Send {
    type Output;

    fn run(self, client: impl Calls) -> impl Future<Output = Self::Output> + Send;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    /// `h2::client::SendRequest`: what Trunkline and all others are made of.
    H2,
    /// `hyper::client::conn::http2::SendRequest`.
    Hyper,
    /// `tonic::transport::Channel` to one endpoint.
    Channel,
    /// `tonic::transport::Channel::balance_list`.
    BalanceList,
    /// `ginepro::LoadBalancedChannel`, with a lookup that always finds the same addresses.
    Ginepro,
    /// `trunkline::Channel` under a generated client.
    Trunkline,
    /// `trunkline::Channel::send`.
    TrunklineRaw,
}

impl Variant {
    pub const ALL: [Self; 7] = [
        Self::H2,
        Self::Hyper,
        Self::Channel,
        Self::BalanceList,
        Self::Ginepro,
        Self::Trunkline,
        Self::TrunklineRaw,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::H2 => "h2",
            Self::Hyper => "hyper",
            Self::Channel => "channel",
            Self::BalanceList => "balance-list",
            Self::Ginepro => "ginepro",
            Self::Trunkline => "trunkline",
            Self::TrunklineRaw => "trunkline-raw",
        }
    }

    /// Whether it can call these many endpoints at once, and over such sockets.
    pub fn can_call(self, endpoints: usize, unix: bool, tls: bool) -> bool {
        match self {
            // Its TLS is that of tonic, as balance-list's.
            Self::Ginepro if tls => false,
            Self::Channel => endpoints == 1,
            // Both connect with hyper-util's HttpConnector, which has TCP only.
            Self::BalanceList | Self::Ginepro => endpoints > 1 && !unix,
            _ => true,
        }
    }

    /// Connects, and hands the client to `job`.
    pub async fn connect<J: Job>(self, target: &Target, job: J) -> Result<J::Output, Failure> {
        Ok(match self {
            Self::H2 => job.run(h2::connect(target).await?).await,
            Self::Hyper => job.run(hyper::connect(target).await?).await,
            Self::Channel => job.run(tonic::channel(target).await?).await,
            Self::BalanceList => job.run(tonic::balance_list(target)?).await,
            Self::Ginepro => job.run(ginepro::connect(target).await?).await,
            Self::Trunkline => job.run(trunkline::generated(target).await?).await,
            Self::TrunklineRaw => job.run(trunkline::raw(target).await?).await,
        })
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Variant {
    type Err = Failure;

    fn from_str(name: &str) -> Result<Self, Failure> {
        let found = Self::ALL.into_iter().find(|it| it.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("there is no variant {name}; there are {names}").into()
        })
    }
}

/// The least that a user of bare connections writes to spread calls: one connection per endpoint, in turn.
struct InTurn<T> {
    connections: Arc<[T]>,
    next: Arc<AtomicUsize>,
}

impl<T: Clone> InTurn<T> {
    fn new(connections: Vec<T>) -> Self {
        Self {
            connections: connections.into(),
            next: Arc::default(),
        }
    }

    fn pick(&self) -> T {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.connections[next % self.connections.len()].clone()
    }
}

impl<T> Clone for InTurn<T> {
    fn clone(&self) -> Self {
        Self {
            connections: Arc::clone(&self.connections),
            next: Arc::clone(&self.next),
        }
    }
}

/// Whole clients, in turn.
impl<T: Calls + Sync> Calls for InTurn<T> {
    async fn call(&mut self) -> Result<(), Failure> {
        self.pick().call().await
    }
}

/// What bare clients put into `:authority`.
fn authority(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(_) => "localhost".to_owned(),
    }
}
