//! Listeners that never get a client connected.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::thread::ServerThread;

/// How long a loopback connect takes at most that is not swallowed.
const SWALLOWED_AFTER: Duration = Duration::from_millis(200);

/// How far a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The kernel drops its SYN, because the listener's queue is full.
    Syn,
    /// The kernel answers for a server that never accepts.
    Accept,
    /// Its preface is read, and not answered.
    Preface,
    /// Half a SETTINGS frame comes.
    Settings,
}

/// A listener in the place of a server that is down. Dropping it frees the place.
#[derive(Debug)]
pub struct Stall {
    _listener: Option<Socket>,
    _queue: Vec<Socket>,
    _thread: Option<ServerThread>,
}

impl Stall {
    pub fn at(addr: SocketAddr, stage: Stage) -> Self {
        let backlog = if stage == Stage::Syn { 0 } else { 1024 };
        let listener = socket();
        listener.bind(&addr.into()).expect("the server is down");
        listener.listen(backlog).unwrap();
        let queue = if stage == Stage::Syn {
            fill(addr)
        } else {
            Vec::new()
        };
        let (listener, thread) = match stage {
            Stage::Syn | Stage::Accept => (Some(listener), None),
            Stage::Preface => (None, Some(serve(listener, b""))),
            // Length 0, type 4, and no more.
            Stage::Settings => (None, Some(serve(listener, &[0, 0, 0, 4]))),
        };
        Self {
            _listener: listener,
            _queue: queue,
            _thread: thread,
        }
    }
}

fn socket() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket
}

/// Connects until the kernel no longer answers.
fn fill(addr: SocketAddr) -> Vec<Socket> {
    let mut queue = Vec::new();
    loop {
        let client = socket();
        if client
            .connect_timeout(&addr.into(), SWALLOWED_AFTER)
            .is_err()
        {
            assert!(
                !queue.is_empty(),
                "the first connection has room in the queue"
            );
            return queue;
        }
        queue.push(client);
        assert!(
            queue.len() < 16,
            "the kernel accepts beyond the queue's length"
        );
    }
}

/// Accepts, reads, says `first` and nothing more.
fn serve(listener: Socket, first: &'static [u8]) -> ServerThread {
    listener.set_nonblocking(true).unwrap();
    ServerThread::start("stall", move || async move {
        let listener = TcpListener::from_std(listener.into()).unwrap();
        let mut clients = JoinSet::new();
        loop {
            let (client, _) = listener.accept().await.unwrap();
            clients.spawn(ignore(client, first));
        }
    })
}

async fn ignore(mut client: TcpStream, first: &'static [u8]) {
    let _ = client.write_all(first).await;
    let mut scrap = [0; 4096];
    while matches!(client.read(&mut scrap).await, Ok(1..)) {}
}
