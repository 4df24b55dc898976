//! One HTTP/1.1 connection to an agent.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::time::Duration;

use http::{HeaderMap, Request, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::address::Address;
use crate::transport::dial::{BoxIo, SocketDialer, UnixOptions, dial_checked};
use crate::transport::security::{PeerIdentity, Security};

use super::error::QueryError;

/// Until the socket is open.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// From an answer's head to its end. An agent has the whole answer before it sends the head.
const BODY_LIMIT: Duration = Duration::from_secs(10);
/// All but the wait for the answer: the look at TLS files, which takes as long as a dial at most, the dial, the handshake,
/// and the body.
pub(super) const OTHER_LIMITS: Duration =
    CONNECT_LIMIT.saturating_mul(3).saturating_add(BODY_LIMIT);

/// A connection, and the half of it that needs to be polled while it is used.
pub(super) struct AgentConnection {
    sender: http1::SendRequest<String>,
    driver: Option<Driver>,
    /// Whom it leads to, by which certificates.
    pub(super) identity: PeerIdentity,
}

type Driver = Pin<Box<http1::Connection<TokioIo<BoxIo>, String>>>;

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) version: Version,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl AgentConnection {
    /// Dials the agent, whose Unix socket must be what `unix` asks for.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket.
    pub(super) async fn open(
        agent: &Address,
        unix: &UnixOptions,
        security: &Security,
    ) -> Result<Self, QueryError> {
        let dialer = SocketDialer::new();
        let dial = dial_checked(&dialer, agent, unix);
        let io = limited("connecting to the agent", CONNECT_LIMIT, dial).await?;
        let io = io.map_err(QueryError::Dial)?;
        let secured = limited("the TLS handshake", CONNECT_LIMIT, security.secure(io)).await?;
        let secured = secured.map_err(|error| QueryError::Refused(error.to_string()))?;
        let handshake = http1::handshake(TokioIo::new(secured.io)).await;
        let (sender, driver) = handshake.map_err(QueryError::Exchange)?;
        Ok(Self {
            sender,
            driver: Some(Box::pin(driver)),
            identity: secured.identity,
        })
    }

    /// Sends `request` and reads the answer: its head within `patience`, and at most `max_body` bytes of its body. After
    /// an error the connection is of no use.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves an answer under way: the connection must be dropped too.
    pub(super) async fn get(
        &mut self,
        request: Request<String>,
        patience: Duration,
        max_body: usize,
    ) -> Result<Reply, QueryError> {
        let Self { sender, driver, .. } = self;
        let head = driven(driver, sender.send_request(request));
        let head = limited("the agent's answer", patience, head).await?;
        let (head, body) = head.map_err(QueryError::Exchange)?.into_parts();
        let body = driven(driver, read(body, max_body));
        let body = limited("reading the agent's answer", BODY_LIMIT, body).await??;
        Ok(Reply {
            version: head.version,
            status: head.status,
            headers: head.headers,
            body,
        })
    }
}

async fn limited<T>(
    what: &'static str,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Result<T, QueryError> {
    let error = |_| QueryError::Timeout { what, limit };
    timeout(limit, work).await.map_err(error)
}

/// Polls the connection while `work` waits for it. A task of its own would need an owner to end it.
async fn driven<T>(driver: &mut Option<Driver>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        // How it ended is the work's to tell.
        if let Some(running) = driver
            && running.as_mut().poll(cx).is_ready()
        {
            *driver = None;
        }
        work.as_mut().poll(cx)
    })
    .await
}

/// Room is taken once: a vector that grows is copied, and leaves holes. The system gives memory for what comes only.
async fn read(body: Incoming, limit: usize) -> Result<Vec<u8>, QueryError> {
    let mut body = pin!(body);
    if body.size_hint().lower() > limit as u64 {
        return Err(QueryError::TooLarge { limit });
    }
    let announced = body
        .size_hint()
        .upper()
        .and_then(|it| usize::try_from(it).ok());
    let mut whole = Vec::with_capacity(announced.unwrap_or(limit).min(limit));
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        // Trailers say nothing here.
        if let Ok(data) = frame.map_err(QueryError::Exchange)?.into_data() {
            if data.len() > limit - whole.len() {
                return Err(QueryError::TooLarge { limit });
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole)
}
