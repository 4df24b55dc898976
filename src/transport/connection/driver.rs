//! The task that owns a connection's socket.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::SendRequest;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::classify::reason_name;
use crate::transport::dial::BoxIo;

use super::keepalive::Pinger;
use super::wire::Wire;
use super::{ABORT, End, KeepaliveState, NO_SETTINGS_YET, Observer, RETIRE, Shared};

/// How long a retired connection without calls may take to say goodbye to a peer that does not read.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

type H2 = h2::client::Connection<Wire<BoxIo>, Bytes>;

/// Polls h2 and publishes what the peer announces. h2 wakes nobody for SETTINGS, a new stream limit or
/// GOAWAY, so the driver looks after each poll in which bytes came in, and when a call was turned away.
///
/// However it ends (also when its runtime is dropped), it retires the connection and tells the observer.
pub(super) struct Driver {
    h2: H2,
    /// For looking at h2's state. It keeps the connection open, so it goes when the connection retires.
    probe: Option<SendRequest<Bytes>>,
    shared: Arc<Shared>,
    settings: Option<oneshot::Sender<()>>,
    max_streams: usize,
    peer_limit: usize,
    pinger: Option<Pinger>,
    observer: Option<(u64, Weak<dyn Observer>)>,
    close_limit: Option<Pin<Box<Sleep>>>,
}

impl Driver {
    pub(super) fn new(
        h2: H2,
        probe: SendRequest<Bytes>,
        shared: Arc<Shared>,
        settings: oneshot::Sender<()>,
    ) -> Self {
        Self {
            h2,
            probe: Some(probe),
            shared,
            settings: Some(settings),
            max_streams: usize::MAX,
            peer_limit: NO_SETTINGS_YET,
            pinger: None,
            observer: None,
            close_limit: None,
        }
    }

    pub(super) fn limit(mut self, max_streams: usize) -> Self {
        self.max_streams = max_streams;
        self
    }

    pub(super) fn keepalive(mut self, keepalive: &Arc<KeepaliveState>) -> Self {
        self.pinger = Pinger::new(keepalive, self.h2.ping_pong());
        self
    }

    pub(super) fn observed_by(mut self, id: u64, observer: Weak<dyn Observer>) -> Self {
        self.observer = Some((id, observer));
        self
    }

    /// Looks at what has changed.
    fn observe(&mut self, cx: &mut Context<'_>) {
        let Some(probe) = &mut self.probe else { return };
        let limit = probe.current_max_send_streams();
        let going_away = match probe.poll_ready(cx) {
            Poll::Ready(Err(error)) => Some(end_of(&error)),
            _ => None,
        };
        if limit != self.peer_limit {
            self.peer_limit = limit;
            let room = self.shared.slots.set_limit(limit.min(self.max_streams));
            self.shared.changed.notify_waiters();
            if let Some(observer) = self.observer() {
                observer.room_changed(room);
            }
        }
        if let Some(end) = going_away {
            self.retire(end);
        } else if limit != NO_SETTINGS_YET
            && let Some(settings) = self.settings.take()
        {
            let _ = settings.send(());
        }
    }

    fn retire(&mut self, end: End) {
        self.probe = None;
        if let (
            End::GoAway {
                too_many_pings: true,
                ..
            },
            Some(pinger),
        ) = (&end, &self.pinger)
            && let Some(interval) = pinger.slow_down()
        {
            tracing::warn!(
                ?interval,
                "the server says too_many_pings: keepalive interval doubled"
            );
        }
        let end = self.shared.end(end).clone();
        if let Some(lost) = self.shared.slots.retire()
            && let (Some((id, _)), Some(observer)) = (&self.observer, self.observer())
        {
            observer.retired(*id, lost, &end);
        }
    }

    fn observer(&self) -> Option<Arc<dyn Observer>> {
        self.observer
            .as_ref()
            .and_then(|(_, observer)| observer.upgrade())
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.shared.driver.register(cx.waker());
        match this.shared.command.load(Ordering::Acquire) {
            ABORT => return Poll::Ready(()),
            RETIRE => this.probe = None,
            _ => {}
        }
        let polled = Pin::new(&mut this.h2).poll(cx);
        let came = this.shared.bytes_read.swap(false, Ordering::Relaxed);
        if came && let Some(pinger) = &mut this.pinger {
            pinger.bytes_were_read();
        }
        // Read first: a store by every poll would move the cache line between cores.
        if came && !this.shared.heard.load(Ordering::Relaxed) {
            this.shared.heard.store(true, Ordering::Relaxed);
        }
        if came || this.shared.refuses.load(Ordering::Acquire) {
            this.observe(cx);
        }
        if let Poll::Ready(result) = polled {
            let end = match result {
                Ok(()) => End::Lost("the peer closed the connection".to_owned()),
                Err(error) => end_of(&error),
            };
            this.retire(end);
            return Poll::Ready(());
        }
        // New calls would wait in vain until the peer's last words are read.
        if this.probe.is_some()
            && this.settings.is_none()
            && this.shared.unwritable.load(Ordering::Relaxed)
        {
            this.retire(End::Lost("connection lost: it can't be written".to_owned()));
        }
        let idle = this.shared.slots.in_flight() == 0;
        if let Some(pinger) = &mut this.pinger
            && pinger.poll(cx, idle).is_ready()
        {
            this.retire(End::KeepaliveTimeout);
            return Poll::Ready(());
        }
        if idle && this.probe.is_none() {
            let limit = this
                .close_limit
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(CLOSE_LIMIT)));
            return limit.as_mut().poll(cx);
        }
        Poll::Pending
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // A panic is no decision of ours: the next dial must wait as after any other loss.
        self.retire(if std::thread::panicking() {
            End::Lost("the connection's task panicked".to_owned())
        } else {
            End::Local
        });
    }
}

/// What a connection-level error means.
fn end_of(error: &h2::Error) -> End {
    if error.is_go_away() && error.is_remote() {
        let reason = error.reason().unwrap_or(Reason::NO_ERROR);
        return End::GoAway {
            graceful: reason == Reason::NO_ERROR,
            // h2 shows the debug data only in the error's text.
            too_many_pings: reason == Reason::ENHANCE_YOUR_CALM
                && error.to_string().contains("too_many_pings"),
            text: format!(
                "the peer is closing the connection (GOAWAY {})",
                reason_name(reason)
            ),
        };
    }
    if error.reason().is_none() && !error.is_io() {
        // What is left is what h2 calls an error of its user.
        return End::UsedUp;
    }
    match error.reason() {
        Some(reason) => End::Breach(format!(
            "protocol error on the connection ({})",
            reason_name(reason)
        )),
        None => End::Lost(format!("connection lost: {error}")),
    }
}
