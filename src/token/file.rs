//! Tokens from a file.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use super::{Token, TokenFuture, TokenSource};

#[derive(Debug)]
pub(super) struct TokenFile(pub(super) PathBuf);

const MAX_FILE: u64 = 64 * 1024;
const LOOK_AFTER: Duration = Duration::from_secs(10);

impl TokenSource for TokenFile {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(async {
            let text = self
                .read()
                .await
                .map_err(|error| format!("{}: {error}", self.0.display()))?;
            Ok(Token::new(text.trim()).look_again_after(LOOK_AFTER))
        })
    }
}

impl TokenFile {
    async fn read(&self) -> io::Result<String> {
        // Opening a pipe would wait for its writer.
        if !tokio::fs::metadata(&self.0).await?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let mut text = String::new();
        let file = tokio::fs::File::open(&self.0).await?;
        file.take(MAX_FILE + 1).read_to_string(&mut text).await?;
        if text.len() as u64 > MAX_FILE {
            return Err(io::Error::other(format!(
                "it has more than {MAX_FILE} bytes"
            )));
        }
        Ok(text)
    }
}
