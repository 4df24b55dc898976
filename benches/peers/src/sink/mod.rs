//! A gRPC echo server made of frames, so cheap that every client is slower than it.
//!
//! It decodes no header block and looks up no path: it collects the DATA of a stream until its end, and answers
//! with fixed headers, that DATA as often as it was told to, and fixed trailers. What matters to a client is kept:
//! answers have their headers in HPACK's dynamic table after the first one, as those of real servers do; the
//! client's flow-control windows and frame size hold; received DATA is acknowledged with WINDOW_UPDATE, and PINGs
//! and SETTINGS are. Answers to all requests of one read leave in one write.

mod connection;
mod frames;

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use connection::Connection;

/// Large enough for the requests of a thousand callers, so that one read takes what has come.
const READ: usize = 256 << 10;

/// Serves one connection until the client closes it.
pub async fn serve(mut io: impl AsyncRead + AsyncWrite + Unpin, replies: usize) -> io::Result<()> {
    let mut connection = Connection::new(replies);
    let mut input = BytesMut::new();
    loop {
        if !connection.out.is_empty() {
            io.write_all(&connection.out).await?;
            connection.out.clear();
        }
        // Little at first: idle connections come by the thousand.
        input.reserve(if connection.is_busy() { READ } else { 512 });
        if io.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        let used = connection.take(&input)?;
        input.advance(used);
    }
}
