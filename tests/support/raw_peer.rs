//! An HTTP/2 server made of hand-written frames, for peers that misbehave.
//!
//! A test drives it as a script:
//!
//! ```ignore
//! let peer = RawPeer::tcp();
//! let call = tokio::spawn(call(peer.uri()));
//! let mut conn = peer.accept().await;
//! conn.handshake(&[(setting::MAX_CONCURRENT_STREAMS, 1)]).await;
//! let stream = conn.next_request().await;
//! conn.rst(stream, code::REFUSED_STREAM).await;
//! ```
//!
//! or leaves it to answer by itself with [`RawPeer::serve`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::net::Listener;
use super::place::Place;
use super::raw_conn::RawConn;
use super::raw_serve::ServedPeer;
use super::reaction::{Reaction, RequestInfo};
use super::seen::Seen;
use super::wait::within;

/// How long a client may take to connect.
const ACCEPT_LIMIT: Duration = Duration::from_secs(5);

/// A listening peer on the test's own runtime.
#[derive(Debug)]
pub struct RawPeer {
    place: Place,
    listener: Option<Listener>,
    seen: Arc<Seen>,
}

impl RawPeer {
    /// Listens on a free loopback port.
    pub fn tcp() -> Self {
        Self::listening(Place::tcp())
    }

    /// Listens on a Unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::listening(Place::Unix(path.into()))
    }

    fn listening(place: Place) -> Self {
        let listener = place.listen().into_listener();
        Self {
            place,
            listener: Some(listener),
            seen: Arc::default(),
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

    /// The next connection, with nothing read and nothing sent. Panics when none comes within 5 s.
    pub async fn accept(&self) -> RawConn {
        let listener = self.listener.as_ref().expect("the peer listens");
        let accepted = within(ACCEPT_LIMIT, "a client's connection", listener.accept()).await;
        RawConn::new(accepted.expect("connections can be accepted"), &self.seen)
    }

    /// The connection that `connecting` makes, with its handshake done, and what `connecting` gave.
    pub async fn meet<T>(
        &self,
        settings: &[(u16, u32)],
        connecting: impl Future<Output = T>,
    ) -> (T, RawConn) {
        let handshake = async {
            let mut conn = self.accept().await;
            conn.handshake(settings).await;
            conn
        };
        tokio::join!(connecting, handshake)
    }

    /// Stops listening: connecting is refused, accepted connections go on.
    pub fn stop_listening(&mut self) {
        self.listener = None;
        self.place.remove_file();
    }

    /// Listens again at the same place.
    pub fn listen(&mut self) {
        self.listener = Some(self.place.listen().into_listener());
    }

    /// Answers every request by itself, on a thread of its own. Each connection begins with these `settings`;
    /// `react` says what to do about each request.
    pub fn serve(
        mut self,
        settings: &[(u16, u32)],
        react: impl Fn(&RequestInfo) -> Reaction + Send + Sync + 'static,
    ) -> ServedPeer {
        // The other runtime needs a listener of its own.
        self.stop_listening();
        ServedPeer::start(self.place, self.seen, settings, react)
    }
}
