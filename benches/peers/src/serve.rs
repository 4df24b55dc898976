//! A server process: `peers serve`.
//!
//! It prints one line with the addresses it listens at, and serves until it is killed. SIGTERM ends a tonic server
//! in good order: GOAWAY first, then an end when its calls have. It then prints how many unary calls came to each address. A
//! sink that speaks TLS prints how many handshakes there were, full ones and resumed sessions.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::transport::server::{Router, TcpIncoming};

use crate::Failure;
use crate::echo::Echo;
use crate::options::{ServeOptions, ServerKind};
use crate::process;
use crate::sink;
use crate::target::Address;
use crate::tls::{self, Acceptor};

pub fn run(options: ServeOptions) -> Result<(), Failure> {
    if options.child {
        process::die_with_parent()?;
    }
    process::raise_file_limit()?;
    if let Some(cpu) = options.cpu {
        process::pin(cpu)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: ServeOptions) -> Result<(), Failure> {
    let mut listeners = Vec::new();
    for address in &options.listen {
        listeners.push(Listener::bind(address).await?);
    }
    let addresses: Result<Vec<_>, _> = listeners.iter().map(Listener::address).collect();
    println!("{}", addresses?.join(","));
    std::io::stdout().flush()?;

    let acceptor = match &options.credentials {
        Some(directory) => Some(Arc::new(Acceptor::new(directory, options.tickets)?)),
        None => None,
    };
    let stop = Arc::new(Notify::new());
    let mut counts = Vec::new();
    let mut servers = tokio::task::JoinSet::new();
    for listener in listeners {
        match options.server {
            ServerKind::Sink => {
                let (replies, one_call) = (options.replies, options.one_call);
                servers.spawn(listener.sink(replies, one_call, acceptor.clone()))
            }
            ServerKind::Tonic => {
                let echo = Echo::new(options.replies, options.delay, options.concurrency);
                counts.push(echo.calls());
                let mut server = Server::builder();
                if let Some(directory) = &options.credentials {
                    server = server.tls_config(tls::tonic_config(directory)?)?;
                }
                let router = server.add_service(echo);
                servers.spawn(listener.tonic(router, options.reset, Arc::clone(&stop)))
            }
        };
    }
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        Some(ended) = servers.join_next() => return ended?,
        _ = terminate.recv() => stop.notify_waiters(),
    }
    if options.server == ServerKind::Sink {
        if let Some(acceptor) = acceptor {
            let (full, resumed) = acceptor.counted();
            println!("{full} {resumed}");
        }
        return Ok(());
    }
    while let Some(ended) = servers.join_next().await {
        ended??;
    }
    let counts = counts.iter().map(|it| it.load(Relaxed).to_string());
    println!("{}", counts.collect::<Vec<_>>().join(" "));
    Ok(())
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, Address),
}

impl Listener {
    async fn bind(address: &Address) -> Result<Self, Failure> {
        Ok(match address {
            Address::Tcp(tcp) => Self::Tcp(TcpListener::bind(tcp).await?),
            Address::Unix(path) => {
                let _ = fs::remove_file(path);
                Self::Unix(UnixListener::bind(path)?, address.clone())
            }
        })
    }

    fn address(&self) -> Result<String, Failure> {
        Ok(match self {
            Self::Tcp(listener) => listener.local_addr()?.to_string(),
            Self::Unix(_, address) => address.to_string(),
        })
    }

    async fn sink(
        self,
        replies: usize,
        one_call: bool,
        acceptor: Option<Arc<Acceptor>>,
    ) -> Result<(), Failure> {
        // A client that goes away ends its connection, which is no concern of the others.
        match self {
            Self::Tcp(listener) => loop {
                let (socket, _) = listener.accept().await?;
                socket.set_nodelay(true)?;
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    match acceptor {
                        None => sink::serve(socket, replies, one_call).await,
                        Some(acceptor) => {
                            let stream = acceptor.accept(socket).await?;
                            sink::serve(stream, replies, one_call).await
                        }
                    }
                });
            },
            Self::Unix(listener, _) => loop {
                let (socket, _) = listener.accept().await?;
                tokio::spawn(sink::serve(socket, replies, one_call));
            },
        }
    }

    async fn tonic(self, router: Router, reset: bool, stop: Arc<Notify>) -> Result<(), Failure> {
        let stop = async move { stop.notified().await };
        match self {
            Self::Tcp(listener) => {
                // Without nodelay the answers wait for the client's delayed ACKs.
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                let incoming = incoming.map(move |accepted| {
                    let socket = accepted?;
                    if reset {
                        socket.set_zero_linger()?;
                    }
                    Ok::<_, std::io::Error>(socket)
                });
                router.serve_with_incoming_shutdown(incoming, stop).await?;
            }
            Self::Unix(listener, _) => {
                let incoming = UnixListenerStream::new(listener);
                router.serve_with_incoming_shutdown(incoming, stop).await?;
            }
        }
        Ok(())
    }
}
