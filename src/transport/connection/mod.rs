//! One HTTP/2 connection, on h2: a handle that sends calls, and a driver task that owns the socket.
//!
//! - [`Connection`] is the handle; [`slots`] says how many calls it may carry.
//! - `driver` polls h2, publishes what the peer announces (stream limit, GOAWAY, the end) and keeps the
//!   connection alive with PINGs (`keepalive`).
//! - `wire` is the byte stream under h2: it coalesces writes and notes what was written.
//! - `exchange` sends one call; `outgoing` pumps its request body, `incoming` is its response body.

mod driver;
mod exchange;
mod incoming;
mod keepalive;
mod options;
mod outgoing;
pub(crate) mod slots;
mod wire;

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::{Notify, oneshot};
use tonic::Code;

use crate::error::{Delivery, Error, Kind, Stage};
use crate::task::Tasks;
use crate::transport::dial::BoxIo;

pub(crate) use incoming::Incoming;
pub use keepalive::Keepalive;
pub(crate) use keepalive::KeepaliveState;
pub use options::Http2Options;

use driver::Driver;
use slots::Slots;
use wire::Wire;

/// h2's send limit before the peer's SETTINGS arrive: a value that SETTINGS never give, so that "still this
/// value" means "not yet". Nothing is sent before then, whatever it is.
const NO_SETTINGS_YET: usize = usize::MAX - 1;

/// A live connection. Clones share it.
#[derive(Clone)]
pub(crate) struct Connection {
    send: SendRequest<Bytes>,
    shared: Arc<Shared>,
}

/// What the handle, the wire and the driver share.
#[derive(Debug, Default)]
struct Shared {
    slots: Slots,
    /// The highest stream id whose HEADERS may have left this process.
    headers_written: AtomicU32,
    /// Bytes came in since the driver last looked.
    bytes_read: AtomicBool,
    /// Calls that were handed to h2 since its last flush.
    queued: AtomicUsize,
    /// A write failed; what the peer sent before is still being read.
    unwritable: AtomicBool,
    /// h2 takes no more requests, and the driver may not know yet.
    refuses: AtomicBool,
    /// A response came.
    answered: AtomicBool,
    /// Bytes came since somebody began to listen.
    heard: AtomicBool,
    command: AtomicU8,
    driver: AtomicWaker,
    end: OnceLock<End>,
    /// Told of the end, and of another stream limit.
    changed: Notify,
}

impl Shared {
    /// It takes no more calls, for this reason unless there was one before.
    fn end(&self, end: End) -> &End {
        let end = self.end.get_or_init(|| end);
        self.changed.notify_waiters();
        end
    }

    /// Whether half of the connection's calls, or more, wait to be written.
    fn half_is_queued(&self) -> bool {
        let queued = self.queued.load(Ordering::Relaxed);
        queued > 0 && 2 * queued >= self.slots.in_flight()
    }
}

/// What the handle tells the driver; a later one overrides an earlier one.
const RETIRE: u8 = 1;
const ABORT: u8 = 2;

/// Why a connection takes no more calls. The first reason stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// This side closed it: idle, too old, its endpoint removed, or the channel closed.
    Local,
    /// The peer announced the end with a GOAWAY.
    GoAway {
        /// Its code was `NO_ERROR`: an orderly shutdown.
        graceful: bool,
        /// `ENHANCE_YOUR_CALM` with `too_many_pings` (gRFC A8).
        too_many_pings: bool,
        text: String,
    },
    /// It has no stream ids left.
    UsedUp,
    /// A PING was not answered in time.
    KeepaliveTimeout,
    /// The socket failed or was closed.
    Lost(String),
    /// The peer broke the protocol.
    Breach(String),
}

impl End {
    /// Nothing went wrong: its calls finish, and its successor is welcome at once.
    pub(crate) fn is_orderly(&self) -> bool {
        matches!(self, Self::GoAway { graceful: true, .. } | Self::UsedUp)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("the connection was closed by this side"),
            Self::GoAway { text, .. } | Self::Lost(text) | Self::Breach(text) => f.write_str(text),
            Self::UsedUp => f.write_str("the connection's stream ids are used up"),
            Self::KeepaliveTimeout => {
                f.write_str("the peer did not answer a keepalive PING in time")
            }
        }
    }
}

/// Who is told of a connection's changes. Called from the driver task; must not block.
pub(crate) trait Observer: Send + Sync + 'static {
    /// The room grew (positive) or shrank.
    fn room_changed(&self, by: i64);
    /// It takes no more calls. `lost_room` is the room that was admitted and is gone. Once per connection,
    /// unless [`Connection::retire`] came first.
    fn retired(&self, id: u64, lost_room: usize, end: &End);
}

impl Connection {
    /// Performs the HTTP/2 handshake over `io` and waits for the peer's SETTINGS. The caller limits the
    /// time.
    ///
    /// Cancel safety: dropping the future closes the connection.
    pub(crate) async fn establish(
        io: BoxIo,
        id: u64,
        options: &Http2Options,
        keepalive: &Arc<KeepaliveState>,
        observer: Weak<dyn Observer>,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        let wire = Wire::new(io, Arc::clone(&shared));
        let (send, h2) = options
            .builder()
            .initial_max_send_streams(NO_SETTINGS_YET)
            .handshake(wire)
            .await
            .map_err(|error| handshake_error(&error.to_string()).because(error))?;
        let (settings, settled) = oneshot::channel();
        let driver = Driver::new(h2, send.clone(), Arc::clone(&shared), settings)
            .limit(options.max_streams)
            .keepalive(keepalive)
            .observed_by(id, observer);
        let unfinished = AbortUnlessKept(Some(Self { send, shared }));
        tasks.spawn(driver);
        if settled.await.is_err() {
            let end = unfinished.0.as_ref().and_then(|it| it.shared.end.get());
            let text = end.map_or_else(|| "the connection ended".to_owned(), End::to_string);
            return Err(handshake_error(&text));
        }
        Ok(unfinished.keep())
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.shared.slots
    }

    /// Why it takes no more calls, once that is so.
    pub(crate) fn end(&self) -> Option<&End> {
        self.shared.end.get()
    }

    /// Resolves once it takes no more calls, or fewer than so many at a time.
    pub(crate) async fn has_fewer_than(&self, streams: usize) {
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            // From here on the notice is not missed.
            changed.as_mut().enable();
            if self.end().is_some() || self.slots().limit() < streams {
                return;
            }
            changed.await;
        }
    }

    /// Whether a call on it was ever answered.
    pub(crate) fn has_answered(&self) -> bool {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Notes from here on whether the peer sends anything.
    pub(crate) fn listen(&self) {
        self.shared.heard.store(false, Ordering::Relaxed);
    }

    /// Whether it has.
    pub(crate) fn was_heard(&self) -> bool {
        self.shared.heard.load(Ordering::Relaxed)
    }

    /// Takes no new calls; closes when those that are on it have ended and all handles are dropped. Returns
    /// the admitted room that is lost, or `None` if it was retired before.
    pub(crate) fn retire(&self) -> Option<usize> {
        self.shared.end(End::Local);
        let lost = self.shared.slots.retire();
        self.shared.command.fetch_max(RETIRE, Ordering::AcqRel);
        self.shared.driver.wake();
        lost
    }

    /// Closes the socket now. Calls on it fail.
    pub(crate) fn abort(&self) {
        self.shared.end(End::Local);
        self.shared.command.fetch_max(ABORT, Ordering::AcqRel);
        self.shared.driver.wake();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

/// Closes a connection whose establishment was given up.
struct AbortUnlessKept(Option<Connection>);

impl AbortUnlessKept {
    fn keep(mut self) -> Connection {
        // Present until here: only this function and drop take it.
        #[allow(clippy::unwrap_used)]
        self.0.take().unwrap()
    }
}

impl Drop for AbortUnlessKept {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            connection.abort();
        }
    }
}

fn handshake_error(text: &str) -> Error {
    Error::new(
        Kind::Connect,
        Code::Unavailable,
        format!("no HTTP/2 handshake: {text}"),
    )
    .in_stage(Stage::Handshake)
    .delivered(Delivery::NotSent)
}
