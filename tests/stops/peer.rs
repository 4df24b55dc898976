//! A server with stops in its answer.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::stop::Stop;
use crate::support::response;

/// Streams of one connection. With one, a slot that is not given back stops all calls.
const STREAMS: u32 = 1;

/// Echoes the bytes of each request's body. Dropping it closes all connections.
#[derive(Debug)]
pub struct Peer {
    pub address: String,
    pub stops: Answer,
    pub counts: Arc<Counts>,
    task: AbortHandle,
}

/// Its stops: before the response's headers, its message, and its trailers.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub headers: Stop,
    pub message: Stop,
    pub trailers: Stop,
}

#[derive(Debug, Default)]
pub struct Counts {
    /// Connections open now.
    pub connections: AtomicU64,
    /// Requests that it has not done with.
    pub open: AtomicU64,
    /// Requests that the client gave up.
    pub given_up: AtomicU64,
}

impl Peer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stops, counts) = (Answer::default(), Arc::<Counts>::default());
        let task = tokio::spawn(accept(listener, stops.clone(), Arc::clone(&counts)));
        Self {
            address,
            stops,
            counts,
            task: task.abort_handle(),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, stops: Answer, counts: Arc<Counts>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (io, _) = accepted.unwrap();
                connections.spawn(serve(io, stops.clone(), Arc::clone(&counts)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(io: TcpStream, stops: Answer, counts: Arc<Counts>) {
    let _connection = Mark::new(&counts, |counts| &counts.connections);
    let mut builder = Builder::new();
    builder.max_concurrent_streams(STREAMS);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(io).await else {
        return;
    };
    let mut requests = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (stops, counts) = (stops.clone(), Arc::clone(&counts));
        let mark = Mark::new(&counts, |counts| &counts.open);
        requests.spawn(async move {
            let _mark = mark;
            if answer(request, respond, &stops).await.is_none() {
                counts.given_up.fetch_add(1, SeqCst);
            }
        });
    }
}

/// Counts something for as long as it lives.
struct Mark(Arc<Counts>, fn(&Counts) -> &AtomicU64);

impl Mark {
    fn new(counts: &Arc<Counts>, count: fn(&Counts) -> &AtomicU64) -> Self {
        count(counts).fetch_add(1, SeqCst);
        Self(Arc::clone(counts), count)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let Self(counts, count) = self;
        count(counts).fetch_sub(1, SeqCst);
    }
}

/// `None` if the client gave it up.
async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    stops: &Answer,
) -> Option<()> {
    let message = read(request.into_body()).await?;
    let passed = tokio::select! {
        passed = stops.headers.pass() => passed,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return None,
    };
    if passed.is_err() {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return Some(());
    }
    let head = Response::builder().header("content-type", "application/grpc");
    let mut send = respond.send_response(head.body(()).unwrap(), false).ok()?;
    if passes(&stops.message, &mut send).await? {
        send.send_data(response::message(&message), false).ok()?;
        if passes(&stops.trailers, &mut send).await? {
            let status = HeaderMap::from_iter([("grpc-status".parse().unwrap(), 0.into())]);
            send.send_trailers(status).ok()?;
        }
    }
    Some(())
}

/// The body's one message.
async fn read(mut body: RecvStream) -> Option<Bytes> {
    let mut all = bytes::BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        let _ = body.flow_control().release_capacity(data.len());
        all.extend_from_slice(&data);
    }
    response::take_message(&mut all)
}

/// Whether the answer goes on; if not, the stream was reset.
async fn passes(stop: &Stop, send: &mut SendStream<Bytes>) -> Option<bool> {
    let passed = tokio::select! {
        passed = stop.pass() => passed,
        _ = poll_fn(|cx| send.poll_reset(cx)) => return None,
    };
    if passed.is_err() {
        send.send_reset(Reason::INTERNAL_ERROR);
    }
    Some(passed.is_ok())
}
