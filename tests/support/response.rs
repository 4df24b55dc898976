//! The frames of a gRPC response.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::frames::Frame;

/// `:status 200` and the gRPC content type.
pub const OK_HEADERS: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/grpc")];

/// A header block that needs no table: every field a literal with a literal name, not indexed, not Huffman coded
/// (RFC 7541 section 6.2.2).
pub fn header_block(fields: &[(&str, &str)]) -> Bytes {
    let mut block = BytesMut::new();
    for (name, value) in fields {
        block.put_u8(0);
        put_string(&mut block, name);
        put_string(&mut block, value);
    }
    block.freeze()
}

/// A string with its length as an integer of 7-bit prefix (RFC 7541 section 5).
fn put_string(block: &mut BytesMut, string: &str) {
    let mut length = string.len();
    if length < 127 {
        block.put_u8(length as u8);
    } else {
        block.put_u8(127);
        length -= 127;
        while length >= 128 {
            block.put_u8((length % 128 + 128) as u8);
            length /= 128;
        }
        block.put_u8(length as u8);
    }
    block.put_slice(string.as_bytes());
}

/// A gRPC message: the flag for "not compressed", the length, the payload.
pub fn message(payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + payload.len());
    bytes.put_u8(0);
    bytes.put_u32(payload.len() as u32);
    bytes.put_slice(payload);
    bytes.freeze()
}

/// Takes the first gRPC message's payload off `body`, if it is there as a whole.
pub fn take_message(body: &mut BytesMut) -> Option<Bytes> {
    let length = (body.get(1..5)?).get_u32() as usize;
    if body.len() < 5 + length {
        return None;
    }
    body.advance(5);
    Some(body.split_to(length).freeze())
}

/// Response headers, status 200.
pub fn headers(stream: u32) -> Frame {
    Frame::headers(stream, header_block(OK_HEADERS), false)
}

/// One gRPC message in one DATA frame.
pub fn data(stream: u32, payload: &[u8]) -> Frame {
    Frame::data(stream, message(payload), false)
}

/// Trailers with this gRPC status, ending the stream.
pub fn trailers(stream: u32, code: i32, message: &str) -> Frame {
    let code = code.to_string();
    let block = header_block(&[("grpc-status", code.as_str()), ("grpc-message", message)]);
    Frame::headers(stream, block, true)
}

/// Headers, one message, and the status OK.
pub fn ok(stream: u32, payload: &[u8]) -> Vec<Frame> {
    vec![
        headers(stream),
        data(stream, payload),
        trailers(stream, 0, ""),
    ]
}

/// A gRPC error in place of response headers.
pub fn trailers_only(stream: u32, code: i32, message: &str) -> Frame {
    trailers_only_with(stream, code, &[("grpc-message", message)])
}

/// The same with any header fields.
pub fn trailers_only_with(stream: u32, code: i32, more: &[(&str, &str)]) -> Frame {
    let code = code.to_string();
    let mut fields = OK_HEADERS.to_vec();
    fields.push(("grpc-status", code.as_str()));
    fields.extend(more);
    Frame::headers(stream, header_block(&fields), true)
}
