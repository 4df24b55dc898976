//! What is logged.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tracing::subscriber::{DefaultGuard, NoSubscriber, set_default};
use tracing::{Dispatch, Level};
use tracing_subscriber::fmt::MakeWriter;

/// All that this thread logs, down to TRACE, until it is ended. A test's runtime runs everything on its thread.
#[derive(Debug)]
pub struct Log {
    lines: Lines,
    guard: DefaultGuard,
    /// While there is one subscriber only, tracing asks the thread that comes to an event first whether anybody listens,
    /// and remembers that for all. With two it asks them.
    _second: Dispatch,
}

#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn start() -> Self {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .with_ansi(false)
            .with_writer(lines.clone())
            .finish();
        let guard = set_default(subscriber);
        Self {
            lines,
            guard,
            _second: Dispatch::new(NoSubscriber::default()),
        }
    }

    /// How many lines have this text so far.
    pub fn count(&self, text: &str) -> usize {
        let all = self.lines.text();
        all.lines().filter(|line| line.contains(text)).count()
    }

    /// How many warnings name this endpoint so far.
    pub fn warnings(&self, endpoint: &str) -> usize {
        let all = self.lines.text();
        let of_it = |line: &&str| line.contains("WARN") && line.contains(endpoint);
        all.lines().filter(of_it).count()
    }

    /// Gives all of it.
    pub fn end(self) -> String {
        drop(self.guard);
        self.lines.text()
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
