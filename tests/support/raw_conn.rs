//! One connection of a raw peer, driven frame by frame: what it receives. What it sends is in `raw_send`.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::frames::{Frame, FrameReader, PREFACE, flag, kind, setting};
use super::net::Stream;
use super::response;
use super::seen::Seen;
use super::wait::within;
use bytes::{Bytes, BytesMut};

/// How long the client may take to send what a test waits for.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// A connection accepted by a raw peer.
///
/// Waiting methods panic after 5 s, or when the client closes first, and say what they waited for. Frames that come
/// while something else is awaited are put aside, and found when they are asked for. Sending panics when the client is
/// gone. Dropping it closes the socket.
#[derive(Debug)]
pub struct RawConn {
    /// What it does without being told.
    pub auto: Auto,
    pub(super) io: Stream,
    reader: FrameReader,
    aside: VecDeque<Frame>,
    /// The highest stream that the client opened.
    newest: u32,
    /// The last stream that `next_request` gave.
    taken: u32,
    /// SETTINGS that the client has not acknowledged.
    pub(super) unacked: VecDeque<Vec<(u16, u32)>>,
    /// The most streams that it may open, as it acknowledged last.
    limit: usize,
    open: Open,
}

/// What a raw connection does without being told.
#[derive(Clone, Copy, Debug)]
pub struct Auto {
    /// Acknowledges SETTINGS. Default: true.
    pub settings: bool,
    /// Answers PINGs. Default: true.
    pub ping: bool,
    /// Gives back the window that each DATA frame used. Default: false, so a client can send 65,535 bytes in all.
    pub window: bool,
}

impl RawConn {
    pub(super) fn new(io: Stream, seen: &Arc<Seen>) -> Self {
        Self {
            auto: Auto {
                settings: true,
                ping: true,
                window: false,
            },
            io,
            reader: FrameReader::default(),
            aside: VecDeque::new(),
            newest: 0,
            taken: 0,
            unacked: VecDeque::new(),
            limit: usize::MAX,
            open: Open {
                number: seen.opened(),
                seen: Arc::clone(seen),
            },
        }
    }

    /// The connection's number at its peer, from 0.
    pub fn number(&self) -> u64 {
        self.open.number
    }

    /// Reads the preface, sends these settings, and waits for the client's, which it acknowledges and gives.
    pub async fn handshake(&mut self, settings: &[(u16, u32)]) -> Vec<(u16, u32)> {
        self.read_preface().await;
        self.send_settings(settings).await;
        let first = self.recv().await.expect("the client begins with a frame");
        assert!(first.kind == kind::SETTINGS && !first.has(flag::ACK));
        self.send_settings_ack().await;
        first.settings_values()
    }

    /// Reads the client's preface and nothing else. Without [`send_settings`](Self::send_settings) after it, the peer
    /// is one that never gets ready.
    pub async fn read_preface(&mut self) {
        let read = self.reader.exact(&mut self.io, PREFACE.len());
        let preface = within(LIMIT, "the preface", read).await;
        assert_eq!(preface.expect("the client sends a preface"), PREFACE);
    }

    /// The very next frame, whatever it is, with no automatic answer; `None` when the client has closed.
    pub async fn recv(&mut self) -> Option<Frame> {
        within(LIMIT, "a frame", self.read_frame()).await
    }

    /// Waits for the next request and gives its stream. Its body may still be on the way.
    pub async fn next_request(&mut self) -> u32 {
        self.next_request_headers().await.0
    }

    /// Like [`next_request`](Self::next_request), with the header block as it came (HPACK) and whether the request
    /// ends with it.
    pub async fn next_request_headers(&mut self) -> (u32, Bytes, bool) {
        let last = self.taken;
        let opens = move |frame: &Frame| frame.kind == kind::HEADERS && frame.stream > last;
        let headers = self.take("a request", opens).await;
        let stream = headers.stream;
        self.taken = stream;
        let mut block = BytesMut::from(&headers.payload[..]);
        let mut complete = headers.has(flag::END_HEADERS);
        while !complete {
            let more = self.next_frame(kind::CONTINUATION, stream).await;
            block.extend_from_slice(&more.payload);
            complete = more.has(flag::END_HEADERS);
        }
        (stream, block.freeze(), headers.ends_stream())
    }

    /// The payloads of the gRPC messages on this stream, once its body has ended.
    pub async fn messages(&mut self, stream: u32) -> Vec<Bytes> {
        let mut body = BytesMut::new();
        loop {
            let is_next = |frame: &Frame| {
                frame.stream == stream && matches!(frame.kind, kind::DATA | kind::HEADERS)
            };
            let frame = self.take("the end of the request", is_next).await;
            if frame.kind == kind::DATA {
                body.extend_from_slice(&frame.payload);
            }
            if frame.ends_stream() {
                break;
            }
        }
        std::iter::from_fn(|| response::take_message(&mut body)).collect()
    }

    /// Waits for a reset of this stream and gives its code.
    pub async fn next_rst(&mut self, stream: u32) -> u32 {
        self.next_frame(kind::RST_STREAM, stream).await.number_at(0)
    }

    /// Waits for GOAWAY and gives its code.
    pub async fn next_goaway(&mut self) -> u32 {
        self.next_frame(kind::GOAWAY, 0).await.number_at(4)
    }

    /// Waits for a PING and gives its data. Needs `auto.ping` off; answer with [`pong`](Self::pong), or do not.
    pub async fn next_ping(&mut self) -> Bytes {
        assert!(!self.auto.ping, "PINGs are being answered automatically");
        let is_ping = |frame: &Frame| frame.kind == kind::PING && !frame.has(flag::ACK);
        self.take("a PING", is_ping).await.payload
    }

    /// Waits until the client has acknowledged every SETTINGS sent so far.
    pub async fn settings_acked(&mut self) {
        while !self.unacked.is_empty() {
            assert!(self.put_aside("an acknowledgement of SETTINGS").await);
        }
    }

    /// Waits until the client closes the connection, and closes this side.
    pub async fn closed(mut self) {
        while self.put_aside("the end of the connection").await {}
    }

    /// Waits for a frame of this kind on this stream.
    pub async fn next_frame(&mut self, kind: u8, stream: u32) -> Frame {
        let wanted = Frame::new(kind, 0, stream, Bytes::new());
        let is_wanted = |frame: &Frame| frame.kind == kind && frame.stream == stream;
        self.take(&format!("{wanted:?}"), is_wanted).await
    }

    /// Reads the preface and sends these settings. False when the client closes or is no HTTP/2 client.
    pub(super) async fn begin(&mut self, settings: &[(u16, u32)]) -> bool {
        let preface = self.reader.exact(&mut self.io, PREFACE.len()).await;
        matches!(preface, Ok(preface) if preface == PREFACE)
            && self.try_send_settings(settings).await.is_ok()
    }

    /// The most streams that the client may have open: what it acknowledged last.
    pub(super) fn stream_limit(&self) -> usize {
        self.limit
    }

    /// The next frame, counted; `None` at the end of the connection, clean or not. Can be cancelled.
    pub(super) async fn read_frame(&mut self) -> Option<Frame> {
        let frame = self.reader.frame(&mut self.io).await.ok().flatten()?;
        self.open.seen.frame(&frame);
        if frame.kind == kind::HEADERS && frame.stream > self.newest {
            self.newest = frame.stream;
            self.open.seen.request();
        }
        Some(frame)
    }

    /// Gives the automatic answer to a frame. True when the frame is thereby dealt with.
    pub(super) async fn answer(&mut self, frame: &Frame) -> io::Result<bool> {
        match frame.kind {
            kind::SETTINGS if frame.has(flag::ACK) => {
                let acked = self.unacked.pop_front().unwrap_or_default();
                for (id, value) in acked {
                    if id == setting::MAX_CONCURRENT_STREAMS {
                        self.limit = value as usize;
                    }
                }
                Ok(true)
            }
            kind::SETTINGS if self.auto.settings => {
                self.try_send(&Frame::settings_ack()).await?;
                Ok(true)
            }
            kind::PING if frame.has(flag::ACK) => Ok(false),
            kind::PING if self.auto.ping => {
                self.try_send(&Frame::pong(frame.payload.clone())).await?;
                Ok(true)
            }
            kind::DATA if self.auto.window && !frame.payload.is_empty() => {
                let used = frame.payload.len() as u32;
                self.try_send(&Frame::window_update(0, used)).await?;
                if !frame.ends_stream() {
                    self.try_send(&Frame::window_update(frame.stream, used))
                        .await?;
                }
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    /// The first frame put aside, or else received, that `wanted` accepts.
    async fn take(&mut self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            if let Some(at) = self.aside.iter().position(&wanted) {
                return self.aside.remove(at).unwrap();
            }
            let came = self.put_aside(what).await;
            assert!(
                came,
                "the client closed before {what}; left: {:?}",
                self.aside
            );
        }
    }

    /// Receives one frame and puts it aside unless it was answered. False at the end of the connection.
    async fn put_aside(&mut self, what: &str) -> bool {
        let Some(frame) = within(LIMIT, what, self.read_frame()).await else {
            return false;
        };
        if !self.answer(&frame).await.unwrap_or(false) {
            self.aside.push_back(frame);
        }
        true
    }
}

/// Counts the connection as open until it is dropped.
#[derive(Debug)]
struct Open {
    number: u64,
    seen: Arc<Seen>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.seen.closed();
    }
}
