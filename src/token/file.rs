//! Tokens from a file.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::small_file::Reader;

use super::{Token, TokenFuture, TokenSource};

#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
    reader: Mutex<Reader>,
}

const MAX_FILE: u64 = 64 * 1024;
const LOOK_AFTER: Duration = Duration::from_secs(10);

impl TokenFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            reader: Mutex::default(),
        }
    }
}

impl TokenSource for TokenFile {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(async {
            let mut reader = self.reader.lock().await;
            let text = reader.read(&self.path, MAX_FILE).await;
            let text = text.map_err(|error| format!("{}: {error}", self.path.display()))?;
            Ok(Token::new(text.trim()).look_again_after(LOOK_AFTER))
        })
    }
}
