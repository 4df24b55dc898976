//! The byte stream under h2: holds writes back for one scheduler turn, and notes what was written.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Shared;

/// What h2 reads from and writes to. It sits outside TLS, so that it sees frames.
///
/// **Coalescing.** Waking a connection's task puts it next in line on its worker, so without this it would
/// write after each single request. When two or more calls are on the connection, the first write of a
/// burst is put off by one trip through the run queue: the calls that are ready now add their frames, and
/// one `writev` takes them all. There is no timer and no copy, and a lone caller never waits.
///
/// **Tracking.** HEADERS leave in the order of stream ids, so one number, the highest id whose frame's head
/// was accepted, says of every stream whether the peer can have seen it.
#[derive(Debug)]
pub(super) struct Wire<T> {
    io: T,
    shared: Arc<Shared>,
    frames: FrameTracker,
    /// This burst was put off already.
    deferred: bool,
}

impl<T> Wire<T> {
    pub(super) fn new(io: T, shared: Arc<Shared>) -> Self {
        Self {
            io,
            shared,
            frames: FrameTracker::new(),
            deferred: false,
        }
    }

    /// Whether to put this write off. Wakes the task if so.
    fn defer(&mut self, cx: &Context<'_>) -> bool {
        if self.deferred || self.shared.slots.in_flight() < 2 {
            return false;
        }
        self.deferred = true;
        cx.waker().wake_by_ref();
        true
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
        if buf.filled().len() > before {
            self.shared.bytes_read.store(true, Ordering::Relaxed);
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
        if self.defer(cx) {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.note(std::iter::once(buf), accepted(&result));
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.defer(cx) {
            return Poll::Pending;
        }
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.note(bufs.iter().map(|buf| &**buf), accepted(&result));
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        if result.is_ready() {
            self.deferred = false;
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

const PREFACE_LEN: usize = 24;
const FRAME_HEAD_LEN: usize = 9;
const HEADERS: u8 = 1;

/// Follows the frame heads (RFC 9113 §4.1) in the bytes that were written.
#[derive(Debug)]
struct FrameTracker {
    /// Bytes to pass over: the preface, then each frame's payload.
    skip: usize,
    head: [u8; FRAME_HEAD_LEN],
    filled: usize,
}

impl FrameTracker {
    fn new() -> Self {
        Self {
            skip: PREFACE_LEN,
            head: [0; FRAME_HEAD_LEN],
            filled: 0,
        }
    }

    /// Takes the next written bytes. Returns the highest stream id of the HEADERS frames that began in them;
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
            let mut tracker = FrameTracker::new();
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

    #[test]
    fn a_partial_head_is_not_counted() {
        let mut tracker = FrameTracker::new();
        tracker.advance(&[0; PREFACE_LEN]);
        assert_eq!(tracker.advance(&frame(HEADERS, 7, 4)[..8]), None);
        assert_eq!(tracker.advance(&frame(HEADERS, 7, 4)[8..9]), Some(7));
    }
}
