//! A dialler with stops.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use trunkline::{Address, BoxIo, Dial, DialError, Dialing, SocketDialer};

use super::stop::{Failed, Stop};

/// Dials as sockets are dialled, with these stops on the way.
#[derive(Clone, Debug, Default)]
pub struct StopDial {
    pub resolve: Stop,
    pub connect: Stop,
    pub read: Stop,
    pub write: Stop,
    sockets: SocketDialer,
}

impl Dial for StopDial {
    fn dial<'a>(&'a self, address: &'a Address) -> Dialing<'a> {
        Box::pin(async move {
            if self.resolve.pass().await.is_err() {
                return Err(DialError::resolve(ErrorKind::NotFound.into()));
            }
            let io = self.sockets.dial(address).await?;
            // With the socket open: whoever gives up here must close it.
            if self.connect.pass().await.is_err() {
                return Err(DialError::connect(ErrorKind::ConnectionRefused.into()));
            }
            Ok(Box::new(StopIo {
                io,
                read: self.read.clone(),
                write: self.write.clone(),
            }) as BoxIo)
        })
    }
}

struct StopIo {
    io: BoxIo,
    read: Stop,
    write: Stop,
}

fn broken(_: Failed) -> io::Error {
    ErrorKind::ConnectionReset.into()
}

impl AsyncRead for StopIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.read.poll_pass(cx)).map_err(broken)?;
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for StopIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.write.poll_pass(cx)).map_err(broken)?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
