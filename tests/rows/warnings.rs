//! What the crate warns of in the log, from all threads of the process.

use std::io::{self, Write};
use std::sync::{Mutex, Once};

use tracing::Level;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static SUBSCRIBER: Once = Once::new();

/// The warnings since this was made.
#[derive(Debug)]
pub struct Warnings(usize);

impl Warnings {
    pub fn watch() -> Self {
        SUBSCRIBER.call_once(|| {
            tracing_subscriber::fmt()
                .with_max_level(Level::WARN)
                .with_ansi(false)
                .with_writer(|| Lines)
                .init();
        });
        Self(LINES.lock().unwrap().len())
    }

    /// The crate's own, with this text.
    pub fn with(&self, text: &str) -> Vec<String> {
        let mut lines = LINES.lock().unwrap()[self.0..].to_vec();
        lines.retain(|it| it.contains(" trunkline::") && it.contains(text));
        lines
    }
}

struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A line comes at once.
        let line = String::from_utf8_lossy(bytes).into_owned();
        LINES.lock().unwrap().push(line);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
