//! Listeners and streams that are TCP or Unix, under one type.

use std::future::poll_fn;
use std::io;
use std::net::TcpListener as StdTcpListener;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A listener that no runtime owns yet: clients can connect already, and wait.
#[derive(Debug)]
pub enum BoundListener {
    Tcp(StdTcpListener),
    Unix(StdUnixListener),
}

impl BoundListener {
    /// Gives the listener to the current runtime.
    pub fn into_listener(self) -> Listener {
        match self {
            Self::Tcp(listener) => {
                listener.set_nonblocking(true).unwrap();
                Listener::Tcp(TcpListener::from_std(listener).unwrap())
            }
            Self::Unix(listener) => {
                listener.set_nonblocking(true).unwrap();
                Listener::Unix(UnixListener::from_std(listener).unwrap())
            }
        }
    }
}

/// A listener on the current runtime.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// The next connection.
    pub async fn accept(&self) -> io::Result<Stream> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let stream = match self {
            Self::Tcp(listener) => {
                let (stream, _) = ready!(listener.poll_accept(cx))?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Self::Unix(listener) => Stream::Unix(ready!(listener.poll_accept(cx))?.0),
        };
        Poll::Ready(Ok(stream))
    }
}

/// One accepted connection.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Closes with FIN. Bytes left unread would make TCP send RST, so those that are there are read first.
    pub async fn close(mut self) {
        let mut scrap = [0; 4096];
        while matches!(self.try_read(&mut scrap), Ok(1..)) {}
        let _ = self.shutdown().await;
    }

    /// Closes at once: TCP sends RST instead of FIN. A Unix socket knows no RST; its peer sees a reset only if bytes of
    /// the peer's were left unread.
    pub fn abort(self) {
        if let Self::Tcp(stream) = &self {
            SockRef::from(stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
    }

    fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buf),
            Self::Unix(stream) => stream.try_read(buf),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
