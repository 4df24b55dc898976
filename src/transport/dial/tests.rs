//! Tests of [`SocketDialer`] with real sockets.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{env, fs, io, process};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::time::timeout;

use super::*;
use crate::error::Stage;

/// How long a test waits for what should happen at once.
const LIMIT: Duration = Duration::from_secs(10);

/// A name that no other test, and no other process, uses.
fn unique_name() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    format!(
        "trunkline-dial-{}-{}",
        process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    )
}

/// A directory that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = env::temp_dir().join(unique_name());
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn dial(address: &Address) -> Result<BoxIo, DialError> {
    let dialer: Box<dyn Dial> = Box::new(SocketDialer::new());
    timeout(LIMIT, dialer.dial(address)).await.unwrap()
}

async fn unix_error(path: &Path) -> DialError {
    dial(&Address::unix(path).unwrap()).await.unwrap_err()
}

/// Passes a word each way between a dialled stream and the one that the server accepted.
async fn exchange(mut ours: BoxIo, mut theirs: impl Io) {
    let mut read = [0; 4];
    ours.write_all(b"ping").await.unwrap();
    timeout(LIMIT, theirs.read_exact(&mut read))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&read, b"ping");
    theirs.write_all(b"pong").await.unwrap();
    timeout(LIMIT, ours.read_exact(&mut read))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&read, b"pong");
}

#[tokio::test]
async fn tcp_by_address_and_by_name() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for text in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
    ] {
        let (ours, theirs) = tokio::join!(
            async { dial(&Address::tcp(&text).unwrap()).await.unwrap() },
            async { listener.accept().await.unwrap().0 },
        );
        exchange(ours, theirs).await;
    }
}

#[tokio::test]
async fn a_refused_dial_of_a_name_says_which_addresses_it_stands_for() {
    // Bound, so that nobody else takes the port, but not listening.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();

    for (text, is_name) in [
        (address.to_string(), false),
        (format!("localhost:{}", address.port()), true),
    ] {
        let error = dial(&Address::tcp(&text).unwrap()).await.unwrap_err();
        assert_eq!(error.stage(), Stage::Connect);
        assert_eq!(error.io_error().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(error.to_string(), "no connection could be opened");
        let cause = error.source().unwrap().to_string();
        assert_eq!(cause.contains(&format!("{address}: ")), is_name, "{cause}");
        assert!(cause.contains("refused"), "{cause}");
    }
}

#[tokio::test]
async fn unix_by_path() {
    let scratch = Scratch::new();
    let path = scratch.join("odd name %\u{fc}.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let link = scratch.join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for path in [path, link] {
        let address = Address::unix(&path).unwrap();
        let (ours, theirs) = tokio::join!(async { dial(&address).await.unwrap() }, async {
            listener.accept().await.unwrap().0
        });
        exchange(ours, theirs).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn unix_by_abstract_name() {
    let name = unique_name();
    let address = Address::parse(&format!("unix-abstract:{name}")).unwrap();
    let error = dial(&address).await.unwrap_err();
    assert_eq!(error.io_error().kind(), io::ErrorKind::ConnectionRefused);

    let listener = UnixListener::bind(format!("\0{name}")).unwrap();
    let (ours, theirs) = tokio::join!(async { dial(&address).await.unwrap() }, async {
        listener.accept().await.unwrap().0
    });
    exchange(ours, theirs).await;
}

#[tokio::test]
async fn what_is_no_listening_socket_is_said() {
    let scratch = Scratch::new();
    fs::write(scratch.join("file"), "").unwrap();
    fs::create_dir(scratch.join("directory")).unwrap();
    drop(UnixListener::bind(scratch.join("left-behind")).unwrap());

    let cases = [
        ("missing", io::ErrorKind::NotFound, "no such file"),
        ("missing/socket", io::ErrorKind::NotFound, "no such file"),
        (
            "file",
            io::ErrorKind::InvalidInput,
            "is a regular file, not a socket",
        ),
        (
            "directory",
            io::ErrorKind::InvalidInput,
            "is a directory, not a socket",
        ),
        (
            "left-behind",
            io::ErrorKind::ConnectionRefused,
            "nothing listens",
        ),
    ];
    for (name, kind, words) in cases {
        let error = unix_error(&scratch.join(name)).await;
        assert_eq!(error.stage(), Stage::Connect, "{name}");
        assert_eq!(error.io_error().kind(), kind, "{name}: {error:?}");
        assert!(
            error.source().unwrap().to_string().contains(words),
            "{name}: {error:?}"
        );
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_queue_is_said_to_pass_and_does() {
    let scratch = Scratch::new();
    let path = scratch.join("busy");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(0).unwrap();

    let address = Address::unix(&path).unwrap();
    let mut waiting = Vec::new();
    let error = loop {
        assert!(waiting.len() < 16, "the queue has no end");
        match dial(&address).await {
            Ok(io) => waiting.push(io),
            Err(error) => break error,
        }
    };
    assert_eq!(error.io_error().kind(), io::ErrorKind::ResourceBusy);
    assert!(
        error.source().unwrap().to_string().contains("passes"),
        "{error:?}"
    );

    listener.accept().unwrap();
    assert!(dial(&address).await.is_ok());
}
