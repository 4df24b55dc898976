//! The wire format of protobuf, as far as a few small messages need it.

/// What a field holds, uninterpreted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    /// Text, bytes or a message. Nobody looks into one.
    Bytes,
    Fixed32,
}

/// Takes the next field off a message that is not empty: its number and what it holds. `None` if that is no field.
pub(crate) fn take_field(message: &mut &[u8]) -> Option<(u64, Value)> {
    let tag = take_varint(message)?;
    let value = match tag & 7 {
        0 => Value::Varint(take_varint(message)?),
        1 => {
            let (bytes, rest) = message.split_first_chunk()?;
            *message = rest;
            Value::Fixed64(*bytes)
        }
        2 => {
            let length = usize::try_from(take_varint(message)?).ok()?;
            *message = message.get(length..)?;
            Value::Bytes
        }
        5 => {
            *message = message.get(4..)?;
            Value::Fixed32
        }
        // Groups, which nobody writes any more, and what is not defined.
        _ => return None,
    };
    Some((tag >> 3, value)).filter(|(number, _)| *number > 0)
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
