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
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink};

use connection::Connection;

/// Large enough for the requests of a thousand callers, so that one read takes what has come.
const READ: usize = 256 << 10;

/// Serves one connection until the client closes it, or ends it in good order after the first call.
pub async fn serve(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    replies: usize,
    one_call: bool,
) -> io::Result<()> {
    let mut connection = Connection::new(replies);
    let mut input = BytesMut::new();
    loop {
        let is_over = one_call && connection.has_answered();
        if is_over {
            connection.say_goodbye();
        }
        if !connection.out.is_empty() {
            io.write_all(&connection.out).await?;
            // TLS may hold a part of it.
            io.flush().await?;
            connection.out.clear();
        }
        if is_over {
            io.shutdown().await?;
            // What the client still says must find no closed socket: the reset could overtake the answer.
            copy(&mut io, &mut sink()).await?;
            return Ok(());
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
