//! A dialler that notes each dial.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use trunkline::{Address, BoxIo, Dial, Dialing, SocketDialer};

/// Dials as [`SocketDialer`] does, and keeps a record of it. Clones share the record.
#[derive(Clone, Debug, Default)]
pub struct Dials {
    log: Arc<Mutex<Vec<Dialled>>>,
    sockets: SocketDialer,
}

/// One dial.
#[derive(Clone, Debug)]
pub struct Dialled {
    /// As the address is displayed.
    pub address: String,
    pub began: Instant,
    /// How it failed, if it did by itself.
    pub error: Option<io::ErrorKind>,
    /// From its begin to the end of its stream, or of the try if there was none. `None` while it goes on.
    pub lasted: Option<Duration>,
}

impl Dials {
    /// All dials so far.
    pub fn all(&self) -> Vec<Dialled> {
        self.log.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    /// The dials to this address that began at `from` or later.
    pub fn to(&self, address: &str, from: Instant) -> Vec<Dialled> {
        let mut dials = self.all();
        dials.retain(|dial| dial.address == address && dial.began >= from);
        dials
    }

    fn begin(&self, address: &Address) -> Mark {
        let mut log = self.log.lock().unwrap();
        log.push(Dialled {
            address: address.to_string(),
            began: Instant::now(),
            error: None,
            lasted: None,
        });
        Mark {
            log: Arc::clone(&self.log),
            nth: log.len() - 1,
        }
    }
}

impl Dial for Dials {
    fn dial<'a>(&'a self, address: &'a Address) -> Dialing<'a> {
        Box::pin(async move {
            let mark = self.begin(address);
            match self.sockets.dial(address).await {
                Ok(io) => Ok(Box::new(Watched { io, _mark: mark }) as BoxIo),
                Err(error) => {
                    mark.failed(error.io_error().kind());
                    Err(error)
                }
            }
        })
    }
}

/// The most of these dials that began within `span`.
pub fn peak(dials: &[Dialled], span: Duration) -> usize {
    let mut times: Vec<_> = dials.iter().map(|dial| dial.began).collect();
    times.sort();
    let within = |start: usize| {
        let end = times[start] + span;
        times[start..]
            .iter()
            .take_while(|&&time| time < end)
            .count()
    };
    (0..times.len()).map(within).max().unwrap_or(0)
}

/// Notes the end of a dial and its stream when dropped.
#[derive(Debug)]
struct Mark {
    log: Arc<Mutex<Vec<Dialled>>>,
    nth: usize,
}

impl Mark {
    fn failed(&self, error: io::ErrorKind) {
        self.log.lock().unwrap()[self.nth].error = Some(error);
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let dial = &mut self.log.lock().unwrap()[self.nth];
        dial.lasted = Some(dial.began.elapsed());
    }
}

/// A stream whose end is noted.
struct Watched {
    io: BoxIo,
    _mark: Mark,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
