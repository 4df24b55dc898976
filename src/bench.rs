//! Doors for `benches/`; not part of the public interface.
#![allow(missing_docs, missing_debug_implementations)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::Notify;

use crate::address::Address;
use crate::balance::Load;
use crate::error::Error;
use crate::pool::{self, DialGate, PoolContext, PoolOptions, State};
use crate::retry::{self, BudgetLimits};
use crate::task::Tasks;
use crate::transport::connection::{Http2Options, Keepalive};
use crate::transport::dial::{SocketDialer, UnixOptions};
use crate::transport::security::{Security, TlsSettings};

pub struct Budget(Arc<retry::Budget>);

impl Budget {
    pub fn new(limits: BudgetLimits) -> Self {
        Self(Arc::new(retry::Budget::new(limits)))
    }

    pub fn deposit(&self, now: Duration) {
        self.0.deposit(now);
    }

    pub fn spend(&self, now: Duration) -> bool {
        self.0
            .try_withdraw(now)
            .map(retry::Withdrawal::spend)
            .is_some()
    }

    pub fn withdraw_and_give_back(&self, now: Duration) -> bool {
        self.0.try_withdraw(now).is_some()
    }
}

/// A call to the endpoint of this load: begins, was answered in that time, ends.
pub fn in_flight(load: &Load, answered: Option<Duration>, now: Duration) {
    let _counted = load.begin();
    if let Some(took) = answered {
        load.answered(took, now);
    }
}

/// A pool of one endpoint.
pub struct Pool {
    pool: Arc<pool::Pool>,
    tasks: Tasks,
}

impl Pool {
    /// Connects to a TCP endpoint.
    pub async fn connect(address: &str) -> Result<Self, Error> {
        let address = Address::tcp(address).map_err(|wrong| Error::config("address", wrong))?;
        let tasks = Tasks::new()?;
        let flips = Arc::new(Notify::new());
        let context = PoolContext {
            options: PoolOptions::new(),
            http2: Http2Options::new(),
            keepalive: Keepalive::off(),
            dialer: Arc::new(SocketDialer::new()),
            unix: UnixOptions::new(),
            tasks: tasks.clone(),
            flips: Arc::clone(&flips),
            gate: DialGate::default(),
            tls: TlsSettings::default(),
        };
        let pool = pool::Pool::new(address, &context.unix, Security::Plaintext, &context);
        pool.begin();
        while pool.state() != State::Ready {
            flips.notified().await;
        }
        Ok(Self { pool, tasks })
    }

    /// Leases a slot that is free, and gives it back.
    pub fn lease_and_return(&self) -> bool {
        let lease = pin!(self.pool.lease());
        lease
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}
