//! What one connection of the sink remembers, and how it answers.

use std::collections::{BTreeMap, HashMap};
use std::io;

use super::frames::{self, Frame, put, put_number};

/// Large enough that no request waits for a WINDOW_UPDATE of its stream.
const STREAM_WINDOW: u32 = 1 << 20;
/// What the connection may receive before it gets more. Granted anew when half of it is used.
const WINDOW: u32 = 1 << 30;
/// HTTP/2's own initial values (RFC 9113 §6.5.2), which hold until the client's SETTINGS say otherwise.
const INITIAL_WINDOW: i64 = 65_535;
const INITIAL_FRAME: usize = 16_384;

/// HPACK (RFC 7541): `:status: 200` is in the static table.
const STATUS_200: u8 = 0x88;
/// Its name is entry 31 of the static table; the field becomes an entry of the dynamic table.
const CONTENT_TYPE: &[u8] = b"\x5f\x10application/grpc";
/// A new name; becomes an entry too.
const GRPC_STATUS_0: &[u8] = b"\x40\x0bgrpc-status\x010";
/// The newest entry of the dynamic table, and the one before it.
const NEWEST: u8 = 0xbe;
const SECOND: u8 = 0xbf;

pub struct Connection {
    replies: usize,
    /// Frames to write.
    pub out: Vec<u8>,
    greeted: bool,
    answered: u64,
    /// Messages that are not complete yet.
    requests: HashMap<u32, Vec<u8>>,
    /// Answers that the client's windows have no room for, oldest first.
    blocked: BTreeMap<u32, Answer>,
    window: i64,
    stream_window: i64,
    max_frame: usize,
    received: u32,
    content_type_is_known: bool,
    grpc_status_is_known: bool,
}

/// An answer whose headers were written.
struct Answer {
    message: Vec<u8>,
    offset: usize,
    replies: usize,
    window: i64,
}

impl Connection {
    pub fn new(replies: usize) -> Self {
        let mut out = Vec::new();
        let mut settings = frames::INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        settings.extend_from_slice(&STREAM_WINDOW.to_be_bytes());
        put(&mut out, frames::SETTINGS, 0, 0, &settings);
        put_number(&mut out, frames::WINDOW_UPDATE, 0, WINDOW);
        Self {
            replies,
            out,
            greeted: false,
            answered: 0,
            requests: HashMap::new(),
            blocked: BTreeMap::new(),
            window: INITIAL_WINDOW,
            stream_window: INITIAL_WINDOW,
            max_frame: INITIAL_FRAME,
            received: 0,
            content_type_is_known: false,
            grpc_status_is_known: false,
        }
    }

    /// Whether it is used for more than a few calls.
    pub fn is_busy(&self) -> bool {
        self.answered > 32
    }

    pub fn has_answered(&self) -> bool {
        self.answered > 0
    }

    /// A GOAWAY behind what was answered: the clients' first stream is the last one (RFC 9113 §6.8).
    pub fn say_goodbye(&mut self) {
        let (last, no_error) = (1u32.to_be_bytes(), 0u32.to_be_bytes());
        let payload = [last, no_error].concat();
        put(&mut self.out, frames::GOAWAY, 0, 0, &payload);
    }

    /// Reacts to all complete frames, and says how many bytes they were.
    pub fn take(&mut self, input: &[u8]) -> io::Result<usize> {
        let mut used = 0;
        if !self.greeted {
            if input.len() < frames::PREFACE.len() {
                return Ok(0);
            }
            if !input.starts_with(frames::PREFACE) {
                return Err(io::Error::other("not an HTTP/2 client"));
            }
            used = frames::PREFACE.len();
            self.greeted = true;
        }
        while let Some(frame) = Frame::first(&input[used..])? {
            self.react(&frame);
            used += frames::HEAD + frame.payload.len();
        }
        self.unblock();
        Ok(used)
    }

    fn react(&mut self, frame: &Frame<'_>) {
        match frame.kind {
            frames::DATA => self.data(frame),
            frames::HEADERS if frame.ends_stream() => self.answer(frame.stream, &[]),
            frames::SETTINGS if frame.flags & frames::ACK == 0 => self.settings(frame),
            frames::PING if frame.flags & frames::ACK == 0 => {
                put(&mut self.out, frames::PING, frames::ACK, 0, frame.payload);
            }
            frames::WINDOW_UPDATE if frame.stream == 0 => self.window += i64::from(frame.number()),
            frames::WINDOW_UPDATE => {
                if let Some(answer) = self.blocked.get_mut(&frame.stream) {
                    answer.window += i64::from(frame.number());
                }
            }
            frames::RST_STREAM => {
                self.requests.remove(&frame.stream);
                self.blocked.remove(&frame.stream);
            }
            _ => {}
        }
    }

    fn settings(&mut self, frame: &Frame<'_>) {
        for (setting, value) in frame.settings() {
            match setting {
                frames::INITIAL_WINDOW_SIZE => {
                    let grown = i64::from(value) - self.stream_window;
                    self.stream_window = i64::from(value);
                    self.blocked
                        .values_mut()
                        .for_each(|answer| answer.window += grown);
                }
                frames::MAX_FRAME_SIZE => self.max_frame = value as usize,
                _ => {}
            }
        }
        put(&mut self.out, frames::SETTINGS, frames::ACK, 0, &[]);
    }

    fn data(&mut self, frame: &Frame<'_>) {
        self.received += frame.payload.len() as u32;
        if self.received > WINDOW / 2 {
            put_number(&mut self.out, frames::WINDOW_UPDATE, 0, self.received);
            self.received = 0;
        }
        match (self.requests.remove(&frame.stream), frame.ends_stream()) {
            // The message in one frame: nothing to keep.
            (None, true) => self.answer(frame.stream, frame.payload),
            (begun, end) => {
                let mut message = begun.unwrap_or_default();
                message.extend_from_slice(frame.payload);
                if end {
                    self.answer(frame.stream, &message);
                } else {
                    self.requests.insert(frame.stream, message);
                }
            }
        }
    }

    fn answer(&mut self, stream: u32, message: &[u8]) {
        self.answered += 1;
        self.headers(stream);
        let size = (message.len() * self.replies) as i64;
        let fits = size <= self.window && size <= self.stream_window;
        if fits && message.len() <= self.max_frame {
            self.window -= size;
            for _ in 0..self.replies {
                put(&mut self.out, frames::DATA, 0, stream, message);
            }
            self.trailers(stream);
        } else {
            let answer = Answer {
                message: message.to_vec(),
                offset: 0,
                replies: self.replies,
                window: self.stream_window,
            };
            self.blocked.insert(stream, answer);
        }
    }

    /// Writes what the windows have room for by now.
    fn unblock(&mut self) {
        let mut done = Vec::new();
        for (&stream, answer) in &mut self.blocked {
            while answer.replies > 0 {
                let room = self.window.min(answer.window).max(0) as usize;
                let rest = &answer.message[answer.offset..];
                let part = &rest[..rest.len().min(room).min(self.max_frame)];
                if part.is_empty() && !rest.is_empty() {
                    break;
                }
                put(&mut self.out, frames::DATA, 0, stream, part);
                self.window -= part.len() as i64;
                answer.window -= part.len() as i64;
                answer.offset += part.len();
                if answer.offset == answer.message.len() {
                    answer.offset = 0;
                    answer.replies -= 1;
                }
            }
            if answer.replies == 0 {
                done.push(stream);
            }
            if self.window <= 0 {
                break;
            }
        }
        for stream in done {
            self.blocked.remove(&stream);
            self.trailers(stream);
        }
    }

    fn headers(&mut self, stream: u32) {
        let mut block = vec![STATUS_200];
        match (self.content_type_is_known, self.grpc_status_is_known) {
            (false, _) => block.extend_from_slice(CONTENT_TYPE),
            (true, false) => block.push(NEWEST),
            (true, true) => block.push(SECOND),
        }
        self.content_type_is_known = true;
        put(
            &mut self.out,
            frames::HEADERS,
            frames::END_HEADERS,
            stream,
            &block,
        );
    }

    fn trailers(&mut self, stream: u32) {
        let known = [NEWEST];
        let block: &[u8] = match self.grpc_status_is_known {
            true => &known,
            false => GRPC_STATUS_0,
        };
        self.grpc_status_is_known = true;
        let flags = frames::END_HEADERS | frames::END_STREAM;
        put(&mut self.out, frames::HEADERS, flags, stream, block);
    }
}
