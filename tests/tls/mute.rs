//! Servers that do not speak TLS, or do not go on with it.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::seen::Seen;
use super::tapped::Tapped;
use crate::support::net::Listener;
use crate::support::place::Place;
use crate::support::thread::ServerThread;

/// A server that reads what comes and answers with fixed words, or not at all.
#[derive(Debug)]
pub struct MuteServer {
    place: Place,
    seen: Arc<Seen>,
    _thread: ServerThread,
}

/// What it does once the first bytes have come.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Nothing,
    /// Then it closes.
    Words(&'static [u8]),
}

impl MuteServer {
    /// Never answers, and never closes.
    pub fn stalling() -> Self {
        Self::start(Answer::Nothing)
    }

    /// Says this when it is spoken to, and closes.
    pub fn saying(words: &'static [u8]) -> Self {
        Self::start(Answer::Words(words))
    }

    pub fn addr(&self) -> SocketAddr {
        self.place.addr()
    }

    /// What came to it.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    fn start(answer: Answer) -> Self {
        let place = Place::tcp();
        let listener = place.listen();
        let seen = Arc::<Seen>::default();
        let noting = Arc::clone(&seen);
        let main = move || accept(listener.into_listener(), noting, answer);
        Self {
            place,
            seen,
            _thread: ServerThread::start("mute", main),
        }
    }
}

async fn accept(listener: Listener, seen: Arc<Seen>, answer: Answer) {
    let mut connections = JoinSet::new();
    while let Ok(stream) = listener.accept().await {
        seen.connection();
        connections.spawn(talk(Tapped::new(stream, &seen), answer));
    }
}

async fn talk(mut stream: Tapped, answer: Answer) {
    let mut scrap = [0; 16 * 1024];
    while matches!(stream.read(&mut scrap).await, Ok(1..)) {
        if let Answer::Words(words) = answer {
            let _ = stream.write_all(words).await;
            let _ = stream.shutdown().await;
        }
    }
}
