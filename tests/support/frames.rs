//! HTTP/2 frames as bytes (RFC 9113 section 4.1), without judging them: a test may send what no peer should.

use std::fmt;
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113 section 6).
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Frame flags.
pub mod flag {
    pub const NONE: u8 = 0;
    /// On SETTINGS and PING.
    pub const ACK: u8 = 1;
    /// On DATA and HEADERS.
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 0x20;
}

/// Settings (RFC 9113 section 6.5.2).
pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// Error codes of RST_STREAM and GOAWAY (RFC 9113 section 7).
pub mod code {
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const SETTINGS_TIMEOUT: u32 = 4;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const CONNECT_ERROR: u32 = 10;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
    pub const INADEQUATE_SECURITY: u32 = 12;
    pub const HTTP_1_1_REQUIRED: u32 = 13;
}

/// One frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// One of [`kind`].
    pub kind: u8,
    /// Of [`flag`].
    pub flags: u8,
    /// 0 for the connection.
    pub stream: u32,
    pub payload: Bytes,
}

impl Frame {
    /// The highest stream id of a client (RFC 9113 section 5.1.1).
    pub const LAST_STREAM: u32 = (1 << 31) - 1;

    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Bytes>) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.into(),
        }
    }

    /// A frame whose payload is one number.
    fn number(kind: u8, stream: u32, number: u32) -> Self {
        Self::new(kind, flag::NONE, stream, number.to_be_bytes().to_vec())
    }

    pub fn settings(settings: &[(u16, u32)]) -> Self {
        let mut payload = BytesMut::new();
        for &(id, value) in settings {
            payload.put_u16(id);
            payload.put_u32(value);
        }
        Self::new(kind::SETTINGS, flag::NONE, 0, payload)
    }

    pub fn settings_ack() -> Self {
        Self::new(kind::SETTINGS, flag::ACK, 0, Bytes::new())
    }

    pub fn ping(data: [u8; 8]) -> Self {
        Self::new(kind::PING, flag::NONE, 0, data.to_vec())
    }

    pub fn pong(data: impl Into<Bytes>) -> Self {
        Self::new(kind::PING, flag::ACK, 0, data)
    }

    pub fn goaway(last_stream: u32, code: u32, debug: &str) -> Self {
        let mut payload = BytesMut::new();
        payload.put_u32(last_stream);
        payload.put_u32(code);
        payload.put_slice(debug.as_bytes());
        Self::new(kind::GOAWAY, flag::NONE, 0, payload)
    }

    pub fn rst(stream: u32, code: u32) -> Self {
        Self::number(kind::RST_STREAM, stream, code)
    }

    /// A frame after which an h2 client goes on above this stream, whether it was open or not: PRIORITY of a stream that
    /// depends on itself, which it must reset (RFC 7540 section 5.3.1).
    pub fn skip_to(stream: u32) -> Self {
        let mut payload = stream.to_be_bytes().to_vec();
        payload.push(0);
        Self::new(kind::PRIORITY, flag::NONE, stream, payload)
    }

    pub fn window_update(stream: u32, increment: u32) -> Self {
        Self::number(kind::WINDOW_UPDATE, stream, increment)
    }

    pub fn data(stream: u32, payload: impl Into<Bytes>, end: bool) -> Self {
        let end = u8::from(end) * flag::END_STREAM;
        Self::new(kind::DATA, end, stream, payload)
    }

    /// A whole header block in one frame.
    pub fn headers(stream: u32, block: impl Into<Bytes>, end: bool) -> Self {
        let end = u8::from(end) * flag::END_STREAM;
        Self::new(kind::HEADERS, flag::END_HEADERS | end, stream, block)
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether this is the sender's last frame on the stream.
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.has(flag::END_STREAM)
    }

    /// The pairs of a SETTINGS frame.
    pub fn settings_values(&self) -> Vec<(u16, u32)> {
        self.payload
            .chunks_exact(6)
            .map(|mut pair| (pair.get_u16(), pair.get_u32()))
            .collect()
    }

    /// The number at this offset of the payload: 0 for an RST's code, a WINDOW_UPDATE's increment and a GOAWAY's last
    /// stream; 4 for a GOAWAY's code.
    pub fn number_at(&self, offset: usize) -> u32 {
        (&self.payload[offset..]).get_u32()
    }

    /// The frame as it goes over the wire.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(9 + self.payload.len());
        bytes.put_uint(self.payload.len() as u64, 3);
        bytes.put_u8(self.kind);
        bytes.put_u8(self.flags);
        bytes.put_u32(self.stream);
        bytes.put_slice(&self.payload);
        bytes.freeze()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 10] = [
            "DATA",
            "HEADERS",
            "PRIORITY",
            "RST_STREAM",
            "SETTINGS",
            "PUSH_PROMISE",
            "PING",
            "GOAWAY",
            "WINDOW_UPDATE",
            "CONTINUATION",
        ];
        match NAMES.get(usize::from(self.kind)) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "type {}", self.kind)?,
        }
        let Self { flags, stream, .. } = self;
        write!(
            f,
            "(stream {stream}, flags {flags:#x}, {} bytes)",
            self.payload.len()
        )
    }
}

/// Cuts what is read into frames.
#[derive(Debug, Default)]
pub struct FrameReader(BytesMut);

impl FrameReader {
    /// The next frame; `None` when the peer closed between two frames. Nothing read is lost when this is cancelled.
    pub async fn frame(&mut self, io: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
        let Some(mut head) = self.peek(io, 9).await? else {
            return Ok(None);
        };
        let length = usize::try_from(head.get_uint(3)).unwrap();
        let (kind, flags, stream) = (head.get_u8(), head.get_u8(), head.get_u32());
        if self.peek(io, 9 + length).await?.is_none() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let payload = self.0.split_to(9 + length).freeze().slice(9..);
        Ok(Some(Frame::new(kind, flags, stream & 0x7fff_ffff, payload)))
    }

    /// Reads exactly `bytes`, such as the preface.
    pub async fn exact(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        bytes: usize,
    ) -> io::Result<Bytes> {
        match self.peek(io, bytes).await? {
            Some(_) => Ok(self.0.split_to(bytes).freeze()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Reads until `bytes` are there; `None` when the peer closed before.
    async fn peek(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        bytes: usize,
    ) -> io::Result<Option<&[u8]>> {
        while self.0.len() < bytes {
            if io.read_buf(&mut self.0).await? == 0 {
                return Ok(None);
            }
        }
        Ok(Some(&self.0[..bytes]))
    }
}
