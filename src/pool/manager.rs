//! What deadpool calls: create a connection, check one before reuse.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use deadpool::managed::{self, Metrics, QueueMode, RecycleError, RecycleResult};
use tonic::Code;

use crate::address::Address;
use crate::error::{Delivery, Error, Kind, Stage};
use crate::task::Tasks;
use crate::time::Instant;
use crate::transport::connection::{Connection, Http2Options, KeepaliveState, Observer};
use crate::transport::dial::{BoxIo, Dial, DialError, UnixOptions, dial_checked};
use crate::transport::security::{PeerIdentity, Security};

/// Makes the connections of one endpoint.
#[derive(Debug)]
pub(super) struct Manager {
    pub(super) address: Address,
    pub(super) dialer: Arc<dyn Dial>,
    pub(super) unix: UnixOptions,
    pub(super) security: Security,
    pub(super) http2: Http2Options,
    pub(super) keepalive: Arc<KeepaliveState>,
    /// One limit over all of it.
    pub(super) timeout: Duration,
    pub(super) observer: Weak<dyn Observer>,
    pub(super) tasks: Tasks,
    pub(super) next_id: AtomicU64,
}

/// How far the making of a connection has come.
const CONNECTING: u8 = 0;
const SECURING: u8 = 1;
const SETTLING: u8 = 2;

/// A connection as deadpool keeps it.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) id: u64,
    pub(super) connection: Connection,
    pub(super) peer: PeerIdentity,
    pub(super) born: Instant,
    /// When it went home to deadpool.
    pub(super) idle_since: Arc<Mutex<Instant>>,
}

impl managed::Manager for Manager {
    type Type = Made;
    type Error = Error;

    async fn create(&self) -> Result<Made, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let progress = AtomicU8::new(CONNECTING);
        let establish = async {
            let io = self.dial().await.map_err(|error| {
                Error::new(
                    Kind::Connect,
                    Code::Unavailable,
                    error.io_error().to_string(),
                )
                .in_stage(error.stage())
                .because(error)
            })?;
            progress.store(SECURING, Ordering::Relaxed);
            let secured = self.security.secure(io).await?;
            progress.store(SETTLING, Ordering::Relaxed);
            let observer = Weak::clone(&self.observer);
            let (io, tasks) = (secured.io, &self.tasks);
            let connection =
                Connection::establish(io, id, &self.http2, &self.keepalive, observer, tasks)
                    .await
                    .map_err(|error| self.security.explain(error))?;
            Ok((connection, secured.identity))
        };
        let (connection, peer) = match tokio::time::timeout(self.timeout, establish).await {
            Ok(established) => established?,
            Err(_) => return Err(self.too_slow(progress.load(Ordering::Relaxed))),
        };
        let born = Instant::now();
        Ok(Made {
            id,
            connection,
            peer,
            born,
            idle_since: Arc::new(Mutex::new(born)),
        })
    }

    /// Looks, and does no IO: a dead connection has told its driver.
    async fn recycle(&self, made: &mut Made, _: &Metrics) -> RecycleResult<Error> {
        if made.connection.slots().is_retired() {
            return Err(RecycleError::message("the connection is closing"));
        }
        if self.security.is_newer_than(&made.peer) {
            made.connection.retire();
            return Err(RecycleError::message("certificates have changed"));
        }
        Ok(())
    }
}

impl Manager {
    /// Opens a stream to a peer that is what it should be, as far as the system can tell.
    pub(super) async fn dial(&self) -> Result<BoxIo, DialError> {
        dial_checked(&*self.dialer, &self.address, &self.unix).await
    }

    /// The deadpool of its connections. Last in, first out: the surplus ages, and is closed.
    pub(super) fn into_pool(self, max: usize) -> managed::Pool<Self> {
        // Fails only for timeouts without a runtime, and there are none: this pool limits its waits itself.
        #[allow(clippy::expect_used)]
        managed::Pool::builder(self)
            .max_size(max)
            .queue_mode(QueueMode::Lifo)
            .build()
            .expect("a pool without timeouts")
    }

    fn too_slow(&self, progress: u8) -> Error {
        let (stage, what) = match progress {
            CONNECTING => (Stage::Connect, "no connection"),
            SECURING => (
                Stage::Handshake,
                "connected, but the TLS handshake did not end",
            ),
            _ => (Stage::Handshake, "connected, but no HTTP/2 SETTINGS came"),
        };
        let message = format!("{what} within {:?}", self.timeout);
        Error::new(Kind::Connect, Code::Unavailable, message)
            .in_stage(stage)
            .delivered(Delivery::NotSent)
    }
}
