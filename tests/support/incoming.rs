//! The connections of an echo server, counted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use super::journal::{ConnectionMark, Journal};
use super::net::{Listener, Stream};

/// Accepts connections and notes them in the journal.
#[derive(Debug)]
pub struct Incoming {
    listener: Listener,
    journal: Arc<Journal>,
}

impl Incoming {
    pub fn new(listener: Listener, journal: &Arc<Journal>) -> Self {
        Self {
            listener,
            journal: Arc::clone(journal),
        }
    }
}

impl tokio_stream::Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = ready!(self.listener.poll_accept(cx))?;
        Poll::Ready(Some(Ok(Connection {
            stream,
            _mark: self.journal.connection(),
        })))
    }
}

/// A connection that the journal counts as open until it is dropped.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    _mark: ConnectionMark,
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
