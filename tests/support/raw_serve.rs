//! A raw peer that answers by itself, for load.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::{future, io, thread};

use bytes::BytesMut;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::frames::{Frame, kind};
use super::net::Listener;
use super::place::Place;
use super::raw_conn::RawConn;
use super::reaction::{Reaction, RequestInfo};
use super::response;
use super::seen::Seen;
use super::thread::ServerThread;

/// A raw peer on a thread and runtime of its own. Dropping it closes every connection, and panics if the closure that
/// decides did.
#[derive(Debug)]
pub struct ServedPeer {
    place: Place,
    seen: Arc<Seen>,
    thread: ServerThread,
}

impl ServedPeer {
    pub(super) fn start(
        place: Place,
        seen: Arc<Seen>,
        settings: &[(u16, u32)],
        react: impl Fn(&RequestInfo) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let listener = place.listen();
        let rule = Arc::new(Rule {
            settings: settings.to_vec(),
            react: Box::new(react),
            requests: AtomicU64::new(0),
            seen: Arc::clone(&seen),
        });
        let main = move || accept(listener.into_listener(), rule);
        Self {
            place,
            seen,
            thread: ServerThread::start("raw peer", main),
        }
    }

    /// The TCP address.
    pub fn addr(&self) -> SocketAddr {
        self.place.addr()
    }

    /// The path of the Unix socket.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// `http://address` or `unix://path`.
    pub fn uri(&self) -> String {
        self.place.uri()
    }

    /// What all its connections counted.
    pub fn seen(&self) -> &Arc<Seen> {
        &self.seen
    }

    /// Closes everything at once; connecting is refused from then on.
    pub fn kill(&mut self) {
        self.thread.kill();
    }
}

impl Drop for ServedPeer {
    fn drop(&mut self) {
        self.kill();
        self.place.remove_file();
        if !thread::panicking() {
            assert_eq!(self.seen.panics(), 0, "panics of the peer's rule");
        }
    }
}

/// What all connections of a peer share.
struct Rule {
    settings: Vec<(u16, u32)>,
    react: Box<dyn Fn(&RequestInfo) -> Reaction + Send + Sync>,
    requests: AtomicU64,
    seen: Arc<Seen>,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule").finish_non_exhaustive()
    }
}

async fn accept(listener: Listener, rule: Arc<Rule>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let io = accepted.expect("connections can be accepted");
                let conn = RawConn::new(io, &rule.seen);
                connections.spawn(ServedConn::new(conn, Arc::clone(&rule)).run());
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection answered by the rule.
struct ServedConn {
    /// Dropped before the connection, so that counts are right once the client sees the end.
    open: OpenStreams,
    conn: RawConn,
    rule: Arc<Rule>,
    /// Reactions that wait for their time.
    waiting: JoinSet<(u32, Reaction)>,
    newest: u32,
    /// What lies above is looked at by nobody, as a GOAWAY said.
    last: u32,
    requests: u64,
}

/// What a reaction leaves of its connection.
enum Next {
    GoOn,
    Freeze,
    Close,
    Abort,
}

impl ServedConn {
    fn new(mut conn: RawConn, rule: Arc<Rule>) -> Self {
        conn.auto.window = true;
        Self {
            open: OpenStreams {
                bodies: HashMap::new(),
                seen: Arc::clone(&rule.seen),
            },
            conn,
            rule,
            waiting: JoinSet::new(),
            newest: 0,
            last: u32::MAX,
            requests: 0,
        }
    }

    async fn run(mut self) {
        if !self.conn.begin(&self.rule.settings).await {
            return;
        }
        loop {
            let step = tokio::select! {
                frame = self.conn.read_frame() => match frame {
                    Some(frame) => self.receive(frame).await,
                    None => return,
                },
                Some(due) = self.waiting.join_next() => {
                    let (stream, reaction) = due.expect("a wait cannot fail");
                    self.perform(stream, reaction).await
                }
            };
            match step {
                Ok(Next::GoOn) => {}
                Ok(Next::Freeze) => future::pending::<()>().await,
                Ok(Next::Close) => return self.conn.close().await,
                Ok(Next::Abort) => return self.conn.abort(),
                // The client is gone.
                Err(_) => return,
            }
        }
    }

    /// Decides about a request once its first message is there, or its end without one.
    async fn receive(&mut self, frame: Frame) -> io::Result<Next> {
        self.conn.answer(&frame).await?;
        let stream = frame.stream;
        match frame.kind {
            kind::DATA | kind::HEADERS if stream > self.last => {
                self.open.remove(stream);
                return Ok(Next::GoOn);
            }
            kind::HEADERS if stream > self.newest => {
                self.newest = stream;
                if self.open.bodies.len() >= self.conn.stream_limit() {
                    self.rule.seen.over_limit();
                }
                self.open.insert(stream);
            }
            kind::DATA | kind::HEADERS => {}
            kind::RST_STREAM => {
                self.open.remove(stream);
                return Ok(Next::GoOn);
            }
            _ => return Ok(Next::GoOn),
        }
        let Some(Some(body)) = self.open.bodies.get_mut(&stream) else {
            return Ok(Next::GoOn);
        };
        if frame.kind == kind::DATA {
            body.extend_from_slice(&frame.payload);
        }
        let message = response::take_message(body);
        if message.is_none() && !frame.ends_stream() {
            return Ok(Next::GoOn);
        }
        self.open.bodies.insert(stream, None);
        let request = RequestInfo {
            connection: self.conn.number(),
            stream,
            nth: self.rule.requests.fetch_add(1, SeqCst),
            nth_on_connection: self.requests,
            open: self.open.bodies.len(),
            message,
        };
        self.requests += 1;
        let reaction = (self.rule.react)(&request);
        if reaction.may_have_processed(stream)
            && let Some(echo) = request.echo()
        {
            self.rule.seen.processed(echo.id);
            if reaction.gives_leave() {
                self.rule.seen.gave_leave(echo.id);
            }
        }
        self.perform(stream, reaction).await
    }

    async fn perform(&mut self, stream: u32, mut reaction: Reaction) -> io::Result<Next> {
        loop {
            if !self.open.bodies.contains_key(&stream) {
                // The client reset the stream while the reaction waited.
                return Ok(Next::GoOn);
            }
            let frames = match reaction {
                Reaction::Answer(payload) => response::ok(stream, &payload),
                Reaction::Fail(code, message) => {
                    vec![response::trailers_only(stream, code, &message)]
                }
                Reaction::FailWith(code, fields) => {
                    vec![response::trailers_only_with(stream, code, &fields)]
                }
                Reaction::Reset(code) => vec![Frame::rst(stream, code)],
                Reaction::Frames(frames) => frames,
                Reaction::GoAway {
                    last_stream,
                    code,
                    debug,
                    then,
                } => {
                    let goaway = Frame::goaway(last_stream, code, &debug);
                    self.conn.try_send(&goaway).await?;
                    self.last = self.last.min(last_stream);
                    reaction = *then;
                    continue;
                }
                Reaction::Settings(settings, then) => {
                    self.conn.try_send_settings(&settings).await?;
                    reaction = *then;
                    continue;
                }
                Reaction::After(delay, then) => {
                    self.waiting.spawn(async move {
                        sleep(delay).await;
                        (stream, *then)
                    });
                    return Ok(Next::GoOn);
                }
                Reaction::Silence | Reaction::Ignore => return Ok(Next::GoOn),
                Reaction::Freeze => return Ok(Next::Freeze),
                Reaction::Close => return Ok(Next::Close),
                Reaction::Abort => return Ok(Next::Abort),
            };
            for frame in frames {
                self.conn.try_send(&frame).await?;
            }
            self.open.remove(stream);
            return Ok(Next::GoOn);
        }
    }
}

/// The streams being answered, each with what came of its body until its reaction is decided; counted for the peer.
struct OpenStreams {
    bodies: HashMap<u32, Option<BytesMut>>,
    seen: Arc<Seen>,
}

impl OpenStreams {
    fn insert(&mut self, stream: u32) {
        self.bodies.insert(stream, Some(BytesMut::new()));
        self.seen.stream_opened();
    }

    fn remove(&mut self, stream: u32) {
        if self.bodies.remove(&stream).is_some() {
            self.seen.streams_closed(1);
        }
    }
}

impl Drop for OpenStreams {
    fn drop(&mut self) {
        self.seen.streams_closed(self.bodies.len());
        if thread::panicking() {
            self.seen.panicked();
        }
    }
}
