//! The byte stream under h2: holds writes back for one scheduler turn, notes what was written, and reads to the
//! end when writing fails.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::Shared;

/// What h2 reads from and writes to. It sits outside TLS, so that it sees frames.
///
/// **Coalescing.** Waking a connection's task puts it next in line on its worker, so without this it would
/// write after each single request. When two or more calls are on the connection, the first write of a
/// burst is put off by one trip through the run queue: the calls that are ready now add their frames, and
/// one `writev` takes them all, or rather half of those in flight (`exchange`'s `batch`). There is no timer and
/// no copy, and a lone caller never waits.
///
/// **Tracking.** HEADERS leave in the order of stream ids, so one number, the highest id whose frame's head
/// was accepted, says of every stream whether the peer can have seen it.
///
/// **Answers.** The first HEADERS frame that comes shows that the peer answers calls, unless it breaks the protocol. It is
/// noted here, because a GOAWAY may come in the same read, and what becomes of the connection then is decided before the
/// call sees its answer.
///
/// **Reading to the end.** A peer that shuts down answers its last calls, says in a GOAWAY which ones it did not
/// look at, and closes; then writes to it fail while all that is still unread. h2 gives up at the first failed
/// write, and those calls would be in doubt for nothing. So a failed write, and those after it, seem to succeed,
/// and reading goes on to the end. Should that not come, the error of the write ends the connection.
#[derive(Debug)]
pub(super) struct Wire<T> {
    io: T,
    shared: Arc<Shared>,
    frames: FrameTracker,
    /// What comes, until there was an answer.
    unanswered: Option<FrameTracker>,
    /// This burst was put off already.
    deferred: bool,
    broken: Option<Broken>,
}

/// A write failed; reading has not come to an end yet.
#[derive(Debug)]
struct Broken {
    error: io::Error,
    patience: Pin<Box<Sleep>>,
}

/// How long a socket that can't be written may take to report the end of reading. Usually it is there already and
/// the runtime has yet to notice.
const PATIENCE: Duration = Duration::from_secs(1);

impl<T> Wire<T> {
    pub(super) fn new(io: T, shared: Arc<Shared>) -> Self {
        Self {
            io,
            shared,
            frames: FrameTracker::behind(PREFACE_LEN),
            unanswered: Some(FrameTracker::behind(0)),
            deferred: false,
            broken: None,
        }
    }

    /// Keeps the error of a failed write for later. `seeming` is what the write returns instead.
    fn keep_reading<V>(&mut self, cx: &Context<'_>, result: io::Result<V>, seeming: V) -> V {
        result.unwrap_or_else(|error| {
            let patience = Box::pin(tokio::time::sleep(PATIENCE));
            self.broken = Some(Broken { error, patience });
            self.shared.unwritable.store(true, Ordering::Relaxed);
            // Nobody may be about to read.
            cx.waker().wake_by_ref();
            seeming
        })
    }

    /// Whether to put this write off. Wakes the task if so.
    fn defer(&mut self, cx: &Context<'_>) -> bool {
        let shared = &self.shared;
        if self.deferred || shared.slots.in_flight() < 2 || shared.half_is_queued() {
            return false;
        }
        self.deferred = true;
        cx.waker().wake_by_ref();
        true
    }

    fn watch_for_an_answer(&mut self, came: &[u8]) {
        let Some(frames) = &mut self.unanswered else {
            return;
        };
        let asked = 1..=self.shared.headers_written.load(Ordering::Relaxed);
        if frames.advance(came).is_some_and(|id| asked.contains(&id)) {
            self.unanswered = None;
            self.shared.answered.store(true, Ordering::Relaxed);
        }
    }

    /// Notes the first `accepted` of the offered bytes as written.
    fn note<'a>(&mut self, offered: impl Iterator<Item = &'a [u8]>, mut accepted: usize) {
        for bytes in offered {
            let taken = bytes.len().min(accepted);
            if let Some(id) = self.frames.advance(&bytes[..taken]) {
                self.shared.headers_written.fetch_max(id, Ordering::AcqRel);
            }
            accepted -= taken;
            if accepted == 0 {
                break;
            }
        }
    }
}

/// How many of the offered bytes count as written. On an error all of them do: TLS may have sent a part
/// before it failed, and "perhaps sent" is the safe side.
fn accepted(result: &Poll<io::Result<usize>>) -> usize {
    match result {
        Poll::Ready(Ok(count)) => *count,
        Poll::Ready(Err(_)) => usize::MAX,
        Poll::Pending => 0,
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        let came = &buf.filled()[before..];
        if !came.is_empty() {
            self.shared.bytes_read.store(true, Ordering::Relaxed);
            self.watch_for_an_answer(came);
        }
        if result.is_pending()
            && let Some(broken) = &mut self.broken
        {
            ready!(broken.patience.as_mut().poll(cx));
            let again = io::ErrorKind::BrokenPipe.into();
            return Poll::Ready(Err(std::mem::replace(&mut broken.error, again)));
        }
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.broken.is_some() {
            return Poll::Ready(Ok(buf.len()));
        }
        if self.defer(cx) {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.note(std::iter::once(buf), accepted(&result));
        result.map(|result| Ok(self.keep_reading(cx, result, buf.len())))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let offered = || bufs.iter().map(|buf| buf.len()).sum();
        if self.broken.is_some() {
            return Poll::Ready(Ok(offered()));
        }
        if self.defer(cx) {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.note(bufs.iter().map(|buf| &**buf), accepted(&result));
        result.map(|result| Ok(self.keep_reading(cx, result, offered())))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken.is_some() {
            return Poll::Ready(Ok(()));
        }
        let result = Pin::new(&mut self.io).poll_flush(cx);
        if result.is_ready() {
            self.deferred = false;
            self.shared.queued.store(0, Ordering::Relaxed);
        }
        result.map(|result| {
            self.keep_reading(cx, result, ());
            Ok(())
        })
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

const PREFACE_LEN: usize = 24;
const FRAME_HEAD_LEN: usize = 9;
const HEADERS: u8 = 1;

/// Follows the frame heads (RFC 9113 §4.1) in the bytes of one direction.
#[derive(Debug)]
struct FrameTracker {
    /// Bytes to pass over: the preface, then each frame's payload.
    skip: usize,
    head: [u8; FRAME_HEAD_LEN],
    filled: usize,
}

impl FrameTracker {
    /// Frames that begin after so many bytes.
    fn behind(skip: usize) -> Self {
        Self {
            skip,
            head: [0; FRAME_HEAD_LEN],
            filled: 0,
        }
    }

    /// Takes the next bytes. Returns the highest stream id of the HEADERS frames that began in them;
    /// the highest, because a request's trailers are a HEADERS frame with an old id.
    fn advance(&mut self, mut bytes: &[u8]) -> Option<u32> {
        let mut highest: Option<u32> = None;
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return highest;
            }
            let taken = (FRAME_HEAD_LEN - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled < FRAME_HEAD_LEN {
                return highest;
            }
            self.filled = 0;
            let [l0, l1, l2, kind, _flags, s0, s1, s2, s3] = self.head;
            self.skip = u32::from_be_bytes([0, l0, l1, l2]) as usize;
            if kind == HEADERS {
                highest = highest.max(Some(u32::from_be_bytes([s0 & 0x7f, s1, s2, s3])));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, stream: u32, payload: usize) -> Vec<u8> {
        let mut bytes = (payload as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, 0]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(vec![HEADERS; payload]);
        bytes
    }

    proptest! {
        /// However the bytes are cut, the tracker sees the HEADERS frames, and nothing else.
        #[test]
        fn headers_are_seen_whatever_the_cuts(
            frames in prop::collection::vec((0u8..10, 1u32..1000, 0usize..60), 1..20),
            cuts in prop::collection::vec(1usize..50, 1..200),
        ) {
            let mut bytes = vec![HEADERS; PREFACE_LEN];
            let mut expected: Option<u32> = None;
            for (kind, stream, payload) in frames {
                bytes.extend(frame(kind, stream, payload));
                if kind == HEADERS {
                    expected = expected.max(Some(stream));
                }
            }
            let mut tracker = FrameTracker::behind(PREFACE_LEN);
            let mut seen = None;
            let mut rest = &bytes[..];
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at(cut.min(rest.len()));
                seen = seen.max(tracker.advance(now));
                rest = later;
            }
            prop_assert_eq!(seen, expected);
        }
    }

    /// A peer that has closed: writes fail, and this is left to read.
    struct Closed {
        unread: &'static [u8],
        flushed: bool,
    }

    impl AsyncRead for Closed {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.unread.is_empty() {
                return Poll::Pending;
            }
            let (now, later) = self.unread.split_at(buf.remaining().min(self.unread.len()));
            buf.put_slice(now);
            self.unread = later;
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Closed {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushed = true;
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_peer_sent_is_read_before_a_failed_write_ends_it() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        for flush_first in [false, true] {
            let closed = Closed {
                unread: b"the last words",
                flushed: false,
            };
            let shared = Arc::new(Shared::default());
            let mut wire = Wire::new(closed, Arc::clone(&shared));
            if flush_first {
                wire.flush().await.unwrap();
            }
            let preface = [0; PREFACE_LEN];
            wire.write_all(&preface).await.unwrap();
            wire.write_all(&frame(HEADERS, 7, 0)).await.unwrap();
            wire.flush().await.unwrap();
            assert_eq!(wire.io.flushed, flush_first);
            let mut read = Vec::new();
            let error = wire.read_to_end(&mut read).await.unwrap_err();
            assert_eq!(read, b"the last words");
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            // After the write that failed nothing was given away.
            assert_eq!(shared.headers_written.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_partial_head_is_not_counted() {
        let mut tracker = FrameTracker::behind(PREFACE_LEN);
        tracker.advance(&[0; PREFACE_LEN]);
        assert_eq!(tracker.advance(&frame(HEADERS, 7, 4)[..8]), None);
        assert_eq!(tracker.advance(&frame(HEADERS, 7, 4)[8..9]), Some(7));
    }
}
