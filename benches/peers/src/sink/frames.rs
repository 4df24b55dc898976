//! HTTP/2 frames as bytes (RFC 9113 §4.1), as few of them as the sink needs.

use std::io;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const HEAD: usize = 9;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const MAX_FRAME_SIZE: u16 = 5;

/// One frame, as it lies in the read buffer.
pub struct Frame<'a> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The first frame in `input`, if all of it is there.
    pub fn first(input: &'a [u8]) -> io::Result<Option<Self>> {
        let Some((head, rest)) = input.split_at_checked(HEAD) else {
            return Ok(None);
        };
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = Self {
            kind: head[3],
            flags: head[4],
            stream: number(&head[5..]) & 0x7fff_ffff,
            payload,
        };
        if frame.kind == DATA && frame.flags & PADDED != 0 {
            return Err(io::Error::other("no client here pads its DATA"));
        }
        Ok(Some(frame))
    }

    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The payload's first number: the increment of a WINDOW_UPDATE.
    pub fn number(&self) -> u32 {
        number(self.payload) & 0x7fff_ffff
    }

    /// The pairs of a SETTINGS frame.
    pub fn settings(&self) -> impl Iterator<Item = (u16, u32)> {
        self.payload
            .chunks_exact(6)
            .map(|pair| (u16::from_be_bytes([pair[0], pair[1]]), number(&pair[2..])))
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |chunk| u32::from_be_bytes(*chunk))
}

/// Appends a frame.
pub fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

pub fn put_number(out: &mut Vec<u8>, kind: u8, stream: u32, number: u32) {
    put(out, kind, 0, stream, &number.to_be_bytes());
}
