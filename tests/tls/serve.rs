//! The accept loop of a TLS server.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tower::util::MapRequestLayer;
use trunkline_proto::echo_server::EchoServer as EchoServerService;

use super::seen::Seen;
use super::tapped::Tapped;
use crate::support::echo::EchoService;
use crate::support::journal::{ConnectionMark, Journal};
use crate::support::net::{BoundListener, Listener};

/// More than tonic takes of itself.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// Serves until it is dropped.
pub(super) async fn serve(
    listener: BoundListener,
    service: EchoService,
    seen: Arc<Seen>,
    config: Arc<ServerConfig>,
    streams: Option<u32>,
) {
    let (send, receive) = channel(64);
    let journal = Arc::clone(&service.journal);
    let accepting = accept(
        listener.into_listener(),
        Arc::clone(&seen),
        journal,
        config,
        send,
    );
    let noting = MapRequestLayer::new(move |request| {
        seen.request(&request);
        request
    });
    let service = EchoServerService::new(service).max_decoding_message_size(MAX_MESSAGE);
    let serving = Server::builder()
        .max_concurrent_streams(streams)
        .layer(noting)
        .add_service(service)
        .serve_with_incoming(ReceiverStream::new(receive));
    tokio::select! {
        () = accepting => {}
        served = serving => served.expect("the server serves"),
    }
}

type Incoming = Sender<io::Result<Secure>>;

async fn accept(
    listener: Listener,
    seen: Arc<Seen>,
    journal: Arc<Journal>,
    config: Arc<ServerConfig>,
    incoming: Incoming,
) {
    let mut handshakes = JoinSet::new();
    while let Ok(stream) = listener.accept().await {
        seen.connection();
        let mark = journal.connection();
        let stream = Tapped::new(stream, &seen);
        let acceptor = TlsAcceptor::from(Arc::clone(&config));
        let (seen, incoming) = (Arc::clone(&seen), incoming.clone());
        // One that stalls keeps no other from its own.
        handshakes.spawn(async move {
            match acceptor.accept(stream).into_fallible().await {
                Ok(stream) => {
                    seen.handshake(stream.get_ref().1);
                    let secure = Secure {
                        stream,
                        _mark: mark,
                    };
                    let _ = incoming.send(Ok(secure)).await;
                }
                Err((error, mut stream)) => {
                    seen.failure(error.to_string());
                    // The reset that an earlier end might mean could overtake what rustls has said.
                    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                }
            }
        });
        while handshakes.try_join_next().is_some() {}
    }
}

/// An encrypted connection that the journal counts as open until it is dropped.
#[derive(Debug)]
struct Secure {
    stream: TlsStream<Tapped>,
    _mark: ConnectionMark,
}

impl Connected for Secure {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Secure {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secure {
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
