//! The HTTP/2 settings of a connection.

use std::time::Duration;

use crate::error::Error;

use super::slots;

/// HTTP/2 settings of every connection of a channel.
///
/// The defaults were measured on loopback and suit local networks; see each setter.
#[derive(Clone, Debug)]
pub struct Http2Options {
    pub(crate) max_streams: usize,
    stream_window: u32,
    connection_window: u32,
    max_frame_size: u32,
    max_header_list_size: u32,
}

/// Largest window of RFC 9113 §6.9.1.
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Bounds of `SETTINGS_MAX_FRAME_SIZE`, RFC 9113 §6.5.2.
const FRAME_SIZES: std::ops::RangeInclusive<u32> = 16_384..=16_777_215;

/// Unread small DATA frames that h2 tolerates before it takes the peer for an attacker and closes the
/// connection under every call on it. Its default is spent by one slow reader of a stream of small messages.
const DATA_FRAME_BUDGET: usize = 64 << 20;
/// Cancelled streams whose late frames are still recognised, and for how long. Beyond these, late answers
/// count as the peer's errors, and 1,024 of those close the connection.
const REMEMBERED_RESETS: usize = 10_000;
const REMEMBER_RESETS_FOR: Duration = Duration::from_secs(5);

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            max_streams: 1024,
            stream_window: 2 << 20,
            connection_window: 5 << 20,
            max_frame_size: 64 << 10,
            max_header_list_size: 16 << 10,
        }
    }
}

impl Http2Options {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many calls one connection carries at most; the peer's own limit applies too. Default 1,024;
    /// 1 to 1,000,000.
    #[must_use]
    pub fn max_streams(mut self, streams: usize) -> Self {
        self.max_streams = streams;
        self
    }

    /// Flow-control window for each response, in bytes. Default 2 MiB; 65,535 to 2^31 - 1.
    #[must_use]
    pub fn stream_window(mut self, bytes: u32) -> Self {
        self.stream_window = bytes;
        self
    }

    /// Flow-control window for all responses of a connection together, in bytes. Default 5 MiB (400 Mbit/s
    /// at 100 ms); 65,535 to 2^31 - 1.
    #[must_use]
    pub fn connection_window(mut self, bytes: u32) -> Self {
        self.connection_window = bytes;
        self
    }

    /// Largest frame the peer may send, in bytes. Default 64 KiB, which nearly doubles the speed of large
    /// responses over HTTP/2's own 16 KiB; 16,384 to 16,777,215.
    #[must_use]
    pub fn max_frame_size(mut self, bytes: u32) -> Self {
        self.max_frame_size = bytes;
        self
    }

    /// Largest header or trailer block the peer may send, in bytes after decompression. Default 16 KiB;
    /// 1,024 to 16 MiB. Larger headers fail their call; of larger trailers the fields beyond the limit are
    /// lost, and a block four times as large ends the connection. Raise it for large status details.
    #[must_use]
    pub fn max_header_list_size(mut self, bytes: u32) -> Self {
        self.max_header_list_size = bytes;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        if !(1..=1_000_000.min(slots::MAX_LIMIT)).contains(&self.max_streams) {
            return Err(Error::config("http2.max_streams", "must be 1 to 1,000,000"));
        }
        for (field, window) in [
            ("http2.stream_window", self.stream_window),
            ("http2.connection_window", self.connection_window),
        ] {
            if !(65_535..=MAX_WINDOW).contains(&window) {
                let problem = "must be 65,535 to 2,147,483,647 bytes";
                return Err(Error::config(field, problem));
            }
        }
        if !FRAME_SIZES.contains(&self.max_frame_size) {
            let problem = "must be 16,384 to 16,777,215 bytes";
            return Err(Error::config("http2.max_frame_size", problem));
        }
        if !(1024..=16 << 20).contains(&self.max_header_list_size) {
            let problem = "must be 1,024 to 16,777,216 bytes";
            return Err(Error::config("http2.max_header_list_size", problem));
        }
        Ok(())
    }

    pub(super) fn builder(&self) -> h2::client::Builder {
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .max_frame_size(self.max_frame_size)
            .max_header_list_size(self.max_header_list_size)
            .data_frame_budget(DATA_FRAME_BUDGET)
            .max_concurrent_reset_streams(REMEMBERED_RESETS)
            .reset_stream_duration(REMEMBER_RESETS_FOR)
            .max_local_error_reset_streams(None);
        builder
    }
}
