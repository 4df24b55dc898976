//! One connection of a chaos proxy.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::{TcpSocket, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::chaos::{Flow, OneWay, Shared, Toxics, Upstream};
use super::net::Stream;

/// What is on its way at most, as reads of at most [`READ`] bytes. Small, as are the sockets' buffers: a sender should
/// feel it when the network is slow.
const QUEUE: usize = 16;
const READ: usize = 4096;
pub(super) const SOCKET_BUFFER: u32 = 16 * 1024;

/// A rate is spread evenly, down to this part of a second.
const GRAINS: u64 = 100;

/// What one side said, and when the other is to hear it.
struct Chunk {
    due: Instant,
    said: Said,
}

enum Said {
    Bytes(Bytes),
    /// FIN.
    End,
    /// RST, or any other error.
    Broken,
}

/// The connection is to be cut with RST.
struct Reset;

/// Forwards until both sides have closed, or the connection is cut.
pub(super) async fn run(
    client: Stream,
    shared: Arc<Shared>,
    id: u64,
    reset: oneshot::Receiver<()>,
    mut random: Rng,
) {
    if let Ok(server) = connect(&shared.upstream).await {
        let (mut from_client, mut to_client) = split(client);
        let (mut from_server, mut to_server) = split(server);
        let [there, back] = &shared.ways;
        let both = async {
            tokio::try_join!(
                pump(&mut from_client, &mut to_server, there, random.fork()),
                pump(&mut from_server, &mut to_client, back, random.fork()),
            )
        };
        let cut = tokio::select! {
            Ok(()) = reset => true,
            done = both => done.is_err(),
        };
        let (client, server) = (
            from_client.unsplit(to_client),
            from_server.unsplit(to_server),
        );
        if cut {
            client.abort();
            server.abort();
        }
    } else {
        // As near as a proxy gets to a server that is down.
        client.abort();
    }
    shared.ended(id);
}

async fn connect(upstream: &Upstream) -> io::Result<Stream> {
    Ok(match upstream {
        Upstream::Tcp(addr) => {
            let socket = TcpSocket::new_v4()?;
            // Before connecting: the peer would go on to fill a larger buffer, the kernel to drop what comes too much.
            socket.set_recv_buffer_size(SOCKET_BUFFER)?;
            let stream = socket.connect(*addr).await?;
            stream.set_nodelay(true)?;
            Stream::Tcp(stream)
        }
        Upstream::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
    })
}

async fn pump(
    from: &mut ReadHalf<Stream>,
    to: &mut WriteHalf<Stream>,
    way: &OneWay,
    random: Rng,
) -> Result<(), Reset> {
    let (send, receive) = mpsc::channel(QUEUE);
    let writer = Writer {
        to,
        way,
        toxics: way.toxics.subscribe(),
        closed: false,
    };
    let (written, ()) = tokio::join!(writer.run(receive), read(from, way, send, random));
    written
}

/// Reads to the end, and gives each read its time to arrive.
async fn read(
    from: &mut ReadHalf<Stream>,
    way: &OneWay,
    queue: mpsc::Sender<Chunk>,
    mut random: Rng,
) {
    let mut last = Instant::now();
    loop {
        let mut bytes = BytesMut::with_capacity(READ);
        let said = match from.read_buf(&mut bytes).await {
            Ok(0) => Said::End,
            Ok(count) => {
                way.read.fetch_add(count as u64, SeqCst);
                Said::Bytes(bytes.freeze())
            }
            Err(_) => Said::Broken,
        };
        let ends = !matches!(said, Said::Bytes(_));
        let toxics = *way.toxics.borrow();
        last = last.max(Instant::now() + travel_time(&toxics, &mut random));
        if queue.send(Chunk { due: last, said }).await.is_err() || ends {
            return;
        }
    }
}

/// Within `jitter` of `latency`.
fn travel_time(toxics: &Toxics, random: &mut Rng) -> Duration {
    let earliest = toxics.latency.saturating_sub(toxics.jitter);
    let latest = toxics.latency + toxics.jitter;
    earliest + (latest - earliest).mul_f64(random.f64())
}

/// Writes what was read, as the toxics say.
struct Writer<'a> {
    to: &'a mut WriteHalf<Stream>,
    way: &'a OneWay,
    toxics: watch::Receiver<Toxics>,
    closed: bool,
}

impl Writer<'_> {
    async fn run(mut self, mut queue: mpsc::Receiver<Chunk>) -> Result<(), Reset> {
        loop {
            let next = tokio::select! {
                biased;
                Ok(_) = self.toxics.wait_for(is_closed), if !self.closed => None,
                next = queue.recv() => match next {
                    Some(next) => Some(next),
                    None => return Ok(()),
                },
            };
            let Some(Chunk { due, said }) = next else {
                self.close().await;
                continue;
            };
            sleep_until(due).await;
            match said {
                Said::Bytes(bytes) => self.bytes(bytes).await?,
                Said::End | Said::Broken if self.now().await.flow != Flow::Forward => {}
                Said::End => self.close().await,
                Said::Broken => return Err(Reset),
            }
        }
    }

    async fn bytes(&mut self, mut bytes: Bytes) -> Result<(), Reset> {
        while !bytes.is_empty() {
            let toxics = self.now().await;
            if toxics.flow != Flow::Forward || self.closed {
                self.way.swallowed.fetch_add(bytes.len() as u64, SeqCst);
                return Ok(());
            }
            let mut size = toxics.slice.unwrap_or(READ).min(bytes.len());
            if let Some(rate) = toxics.bytes_per_second {
                size = size.min((rate / GRAINS).max(1) as usize);
                sleep_until(self.way.turn(size, rate)).await;
            }
            let piece = bytes.split_to(size);
            self.way.writes.fetch_add(1, SeqCst);
            self.to.write_all(&piece).await.map_err(|_| Reset)?;
            // Else small writes would be one again by the time they are read.
            yield_now().await;
        }
        Ok(())
    }

    /// The toxics, once they let anything through or throw it away.
    async fn now(&mut self) -> Toxics {
        let toxics = self.toxics.wait_for(|toxics| toxics.flow != Flow::Hold);
        *toxics.await.expect("the proxy outlives its connections")
    }

    async fn close(&mut self) {
        self.closed = true;
        // Fails when the receiver is gone, and so has no need to be told.
        let _ = self.to.shutdown().await;
    }
}

fn is_closed(toxics: &Toxics) -> bool {
    toxics.flow == Flow::Closed
}
