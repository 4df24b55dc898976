//! The stream that HTTP/2 is spoken on.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use crate::transport::dial::BoxIo;

use super::error::problem;

/// A TLS stream whose errors are in words. h2 keeps no more of an error than its kind and its text, so what rustls says
/// has to be put into words before: with TLS 1.3 a server refuses the client's certificate only here.
pub(super) struct Stream(pub(super) TlsStream<BoxIo>);

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf).map_err(in_words)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn in_words(error: io::Error) -> io::Error {
    let kind = error.kind();
    match problem(&error) {
        Some(text) => io::Error::new(kind, text),
        // rustls adds a page of its manual.
        None if kind == io::ErrorKind::UnexpectedEof => io::Error::new(
            kind,
            "the peer closed the connection without saying so (no TLS close_notify)",
        ),
        None => error,
    }
}
