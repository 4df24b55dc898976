//! Where a server listens: an address that stays its own while it is down.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, Socket, Type};

use super::net::BoundListener;

/// A place to listen on, again and again.
#[derive(Debug)]
pub enum Place {
    Tcp(HeldPort),
    Unix(PathBuf),
}

impl Place {
    /// A free loopback port.
    pub fn tcp() -> Self {
        Self::Tcp(HeldPort::new())
    }

    /// A loopback port that another process holds for this one.
    pub fn held_for_us(addr: SocketAddr) -> Self {
        Self::Tcp(HeldPort::at(addr))
    }

    /// The TCP address. Panics when this is a path.
    pub fn addr(&self) -> SocketAddr {
        match self {
            Self::Tcp(port) => port.addr(),
            Self::Unix(path) => panic!("{} is no TCP address", path.display()),
        }
    }

    /// The path of the Unix socket. Panics when this is a TCP address.
    pub fn path(&self) -> &Path {
        match self {
            Self::Unix(path) => path,
            Self::Tcp(port) => panic!("{} is no path", port.addr()),
        }
    }

    /// `http://address` or `unix://path`.
    pub fn uri(&self) -> String {
        match self {
            Self::Tcp(port) => format!("http://{}", port.addr()),
            Self::Unix(path) => format!("unix://{}", path.display()),
        }
    }

    /// Starts to listen. A socket file that a dead server left behind is replaced.
    pub fn listen(&self) -> BoundListener {
        match self {
            Self::Tcp(port) => port.listen(),
            Self::Unix(path) => {
                self.remove_file();
                let listener = UnixListener::bind(path).expect("the socket's directory exists");
                BoundListener::Unix(listener)
            }
        }
    }

    /// Removes the Unix socket's file.
    pub fn remove_file(&self) {
        if let Self::Unix(path) = self {
            let _ = fs::remove_file(path);
        }
    }
}

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A loopback port that belongs to this test until it is dropped, listened on or not.
///
/// It is a socket that is bound and never listens: the kernel gives the port to nobody else, refuses connections to it,
/// and still lets [`listen`](Self::listen) open it any number of times, one after the other. So a server that is down
/// keeps its port, and no other test answers in its place.
#[derive(Debug)]
pub struct HeldPort {
    _holder: Socket,
    addr: SocketAddr,
}

impl HeldPort {
    pub fn new() -> Self {
        Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    fn at(addr: SocketAddr) -> Self {
        let holder = bound(addr);
        let addr = holder.local_addr().unwrap().as_socket().unwrap();
        Self {
            _holder: holder,
            addr,
        }
    }

    /// The address; connecting to it is refused while nobody listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Opens the port.
    pub fn listen(&self) -> BoundListener {
        let socket = bound(self.addr);
        socket.listen(BACKLOG).expect("the port is held for us");
        BoundListener::Tcp(socket.into())
    }
}

fn bound(addr: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&addr.into()).expect("a loopback port is free");
    socket
}
