//! Reading files that are small, or no use.

use std::future::Future;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
#[cfg(feature = "__tls")]
use std::time::Duration;

use crate::file_thread;

/// Reads a regular file of at most so many bytes. Others may have made it a pipe, whose opening waits for a writer, or a
/// device, whose text does not end: nothing would end the thread that reads it. The caller limits the time.
///
/// # Errors
///
/// If it can't be read, is no regular file, or has more bytes.
///
/// # Cancel safety
///
/// It can be dropped at any time.
pub(crate) async fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let of = path.to_owned();
    file_thread::run(path, move || read_now(&of, most)).await
}

/// The same for a caller that does not tell its runtime that it waits. `None` if that takes longer than this.
#[cfg(feature = "__tls")]
pub(crate) fn read_within(path: &Path, most: u64, limit: Duration) -> Option<io::Result<Vec<u8>>> {
    let of = path.to_owned();
    file_thread::run_within(path, limit, move || read_now(&of, most))
}

fn read_now(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    check_kind(&std::fs::metadata(path)?)?;
    let file = std::fs::File::open(path)?;
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content)?;
    check_length(content, most)
}

/// Reads a text again and again. A read that takes longer than its caller waits is not begun anew: the next call has what
/// comes of it.
#[derive(Default)]
pub(crate) struct Reader(Option<Pin<Box<dyn Future<Output = io::Result<String>> + Send>>>);

impl Reader {
    /// # Errors
    ///
    /// As [`read`], and if it is not UTF-8.
    ///
    /// # Cancel safety
    ///
    /// The next call goes on with what this one has begun.
    pub(crate) async fn read(&mut self, path: &Path, most: u64) -> io::Result<String> {
        let reading = self
            .0
            .get_or_insert_with(|| Box::pin(read_text(path.to_owned(), most)));
        let text = reading.await;
        self.0 = None;
        text
    }
}

async fn read_text(path: PathBuf, most: u64) -> io::Result<String> {
    let content = read(&path, most).await?;
    String::from_utf8(content).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "stream did not contain valid UTF-8",
        )
    })
}

fn check_kind(metadata: &std::fs::Metadata) -> io::Result<()> {
    match metadata.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("it is no regular file")),
    }
}

fn check_length(content: Vec<u8>, most: u64) -> io::Result<Vec<u8>> {
    match content.len() as u64 > most {
        true => Err(io::Error::other(format!("it has more than {most} bytes"))),
        false => Ok(content),
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reading = self.0.is_some();
        f.debug_struct("Reader").field("reading", &reading).finish()
    }
}
