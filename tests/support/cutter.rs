//! A TCP proxy that cuts each connection after a number of bytes.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// When a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// After so many bytes from the client; `reset` closes with RST instead of FIN.
    After {
        bytes: usize,
        reset: bool,
    },
    Never,
}

/// A listening proxy on the test's own runtime. [`stop`](Self::stop) ends it.
#[derive(Debug)]
#[must_use = "a proxy that is not stopped goes on"]
pub struct Cutter {
    addr: SocketAddr,
    stop: oneshot::Sender<Infallible>,
    task: JoinHandle<()>,
}

impl Cutter {
    /// Forwards connections to `server`; `cut` gives the end of each one.
    pub fn start(server: SocketAddr, mut cut: impl FnMut() -> Cut + Send + 'static) -> Self {
        // Small buffers: when a connection is cut, the client should not have got rid of everything long ago.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(1024).unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    _ = &mut stopped => break,
                    accepted = listener.accept() => {
                        let (client, _) = accepted.expect("connections can be accepted");
                        connections.spawn(forward(client, server, cut()));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
            connections.shutdown().await;
        });
        Self { addr, stop, task }
    }

    /// Where clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Closes all its connections, and returns when nothing goes to the server any more.
    pub async fn stop(self) {
        drop(self.stop);
        self.task.await.expect("the proxy does not panic");
    }
}

async fn forward(mut client: TcpStream, server: SocketAddr, cut: Cut) {
    let Ok(mut server) = TcpStream::connect(server).await else {
        return;
    };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let Cut::After { bytes, reset } = cut else {
        let _ = copy_bidirectional(&mut client, &mut server).await;
        return;
    };
    {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        tokio::select! {
            () = forward_at_most(bytes, &mut from_client, &mut to_server) => {}
            _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
        }
    }
    if reset {
        let now = Some(Duration::ZERO);
        SockRef::from(&client).set_linger(now).unwrap();
    }
    // What the server was sent it may read to the end: a cut loses no more than it must.
}

async fn forward_at_most(
    bytes: usize,
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
) {
    let mut buffer = vec![0; 4096];
    let mut left = bytes;
    while left > 0 {
        let room = left.min(buffer.len());
        let Ok(count @ 1..) = from.read(&mut buffer[..room]).await else {
            return;
        };
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        left -= count;
    }
}
