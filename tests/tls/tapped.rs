//! A stream that tells TLS records from anything else.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::seen::Seen;
use crate::support::net::Stream;

/// A record's type, version and length (RFC 8446, 5.1).
const HEADER: usize = 5;

/// Whether bytes are records, one after the other.
#[derive(Debug, Default)]
struct Records {
    header: Vec<u8>,
    /// Of the record that has begun.
    rest: usize,
    /// Something else came: from there on nothing is a record.
    broken: bool,
}

impl Records {
    /// How many records begin in these bytes, and how many of the bytes are none.
    fn take(&mut self, bytes: &[u8]) -> (u64, u64) {
        let (mut begun, mut foreign) = (0, 0);
        for &byte in bytes {
            if self.broken {
                foreign += 1;
            } else if self.rest > 0 {
                self.rest -= 1;
            } else {
                self.header.push(byte);
                // The version is 3.1 at first and 3.3 then; the types go from change_cipher_spec to application_data.
                let good = match self.header.len() {
                    1 => (20..=23).contains(&byte),
                    2 => byte == 3,
                    _ => true,
                };
                if !good {
                    self.broken = true;
                    foreign += self.header.len() as u64;
                } else if self.header.len() == HEADER {
                    self.rest = usize::from(u16::from_be_bytes([self.header[3], byte]));
                    self.header.clear();
                    begun += 1;
                }
            }
        }
        (begun, foreign)
    }
}

/// A server's side of a connection.
#[derive(Debug)]
pub struct Tapped {
    stream: Stream,
    records: Records,
    seen: Arc<Seen>,
}

impl Tapped {
    pub fn new(stream: Stream, seen: &Arc<Seen>) -> Self {
        Self {
            stream,
            records: Records::default(),
            seen: Arc::clone(seen),
        }
    }
}

impl AsyncRead for Tapped {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let (records, foreign) = this.records.take(&buf.filled()[before..]);
        this.seen.received(records, foreign);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    /// rustls says why it refuses in a record of its own, after what it has to send anyway, and tokio-rustls tries once:
    /// without this the last words would be missing.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
