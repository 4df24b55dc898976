//! The messages of `grpc.health.v1`, by hand: one field each.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::protobuf::{Value, take_field};

/// `HealthCheckResponse.ServingStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Unknown,
    Serving,
    NotServing,
    ServiceUnknown,
}

/// A message longer than this is no health check's.
const MAX_MESSAGE: usize = 1024;
/// Compression flag and length.
const PREFIX: usize = 5;
/// Field 1, length-delimited.
const SERVICE: u8 = 0x0a;

/// `HealthCheckRequest`, with gRPC's prefix.
pub(super) fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(SERVICE);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    // Names have at most 1,024 bytes.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.extend_from_slice(&message);
    framed.freeze()
}

/// Cuts a response's data into messages.
#[derive(Debug, Default)]
pub(super) struct Responses {
    data: BytesMut,
}

impl Responses {
    pub(super) fn push(&mut self, data: &[u8]) {
        self.data.extend_from_slice(data);
    }

    /// The next whole message.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(super) fn next(&mut self) -> Result<Option<Word>, &'static str> {
        let Some((prefix, rest)) = self.data.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let [compressed, a, b, c, d] = *prefix;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if compressed != 0 {
            return Err("the answer is compressed, although that was not offered");
        }
        if length > MAX_MESSAGE {
            return Err("the answer is too long for one of a health check");
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.data.advance(PREFIX);
        let message = self.data.split_to(length);
        status(&message)
            .map(Some)
            .ok_or("the answer is no HealthCheckResponse")
    }
}

/// The status in a `HealthCheckResponse`: field 1, a varint; the last one counts, and other fields are skipped.
fn status(mut message: &[u8]) -> Option<Word> {
    let mut status = 0;
    while !message.is_empty() {
        if let (1, Value::Varint(value)) = take_field(&mut message)? {
            status = value;
        }
    }
    Some(match status {
        1 => Word::Serving,
        2 => Word::NotServing,
        3 => Word::ServiceUnknown,
        _ => Word::Unknown,
    })
}

fn put_varint(message: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        message.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    message.put_u8((value & 0x7f) as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[u8]) -> Result<Option<Word>, &'static str> {
        let mut responses = Responses::default();
        responses.push(data);
        responses.next()
    }

    #[test]
    fn requests_are_as_protobuf_writes_them() {
        assert_eq!(&request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&request("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = "x".repeat(300);
        let bytes = request(&long);
        assert_eq!(&bytes[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 2]);
        assert_eq!(bytes.len(), 5 + 3 + 300);
    }

    #[test]
    fn responses_are_read() {
        assert_eq!(read(&[0, 0, 0, 0, 2, 8, 1]), Ok(Some(Word::Serving)));
        assert_eq!(read(&[0, 0, 0, 0, 2, 8, 2]), Ok(Some(Word::NotServing)));
        assert_eq!(read(&[0, 0, 0, 0, 2, 8, 3]), Ok(Some(Word::ServiceUnknown)));
        assert_eq!(read(&[0, 0, 0, 0, 2, 8, 9]), Ok(Some(Word::Unknown)));
        assert_eq!(
            read(&[0, 0, 0, 0, 0]),
            Ok(Some(Word::Unknown)),
            "the default"
        );
        let with_more = [0, 0, 0, 0, 6, 0x12, 2, 1, 2, 8, 1];
        assert_eq!(read(&with_more), Ok(Some(Word::Serving)));
    }

    #[test]
    fn a_message_may_come_in_pieces_and_two_at_once() {
        let mut responses = Responses::default();
        for byte in [0, 0, 0, 0, 2, 8] {
            responses.push(&[byte]);
            assert_eq!(responses.next(), Ok(None));
        }
        responses.push(&[1, 0, 0, 0, 0, 2, 8, 2]);
        assert_eq!(responses.next(), Ok(Some(Word::Serving)));
        assert_eq!(responses.next(), Ok(Some(Word::NotServing)));
        assert_eq!(responses.next(), Ok(None));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        assert!(read(&[1, 0, 0, 0, 2, 8, 1]).is_err(), "compressed");
        assert!(read(&[0, 0xff, 0xff, 0xff, 0xff, 8]).is_err(), "4 GiB");
        for message in [&[8][..], &[8, 0x80], &[0], &[0x12, 9, 1], &[0x0b]] {
            let mut framed = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
            framed.extend_from_slice(message);
            assert!(read(&framed).is_err(), "{message:?}");
        }
    }

    #[test]
    fn no_bytes_panic() {
        proptest::proptest!(|(pieces in proptest::collection::vec(
            proptest::collection::vec(proptest::num::u8::ANY, 0..40), 0..8,
        ))| {
            let mut responses = Responses::default();
            for piece in pieces {
                responses.push(&piece);
                while let Ok(Some(_)) = responses.next() {}
            }
        });
    }
}
