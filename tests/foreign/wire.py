"""As much of the protobuf encoding as the services here need, so that they need no package for it.

https://protobuf.dev/programming-guides/encoding/
"""

VARINT = 0
LENGTH = 2


class Message:
    """A decoded message: the values of each field, by its number. What is absent has its default."""

    def __init__(self, data: bytes):
        self._fields = {}
        at = 0
        while at < len(data):
            tag, at = _varint(data, at)
            value, at = _varint(data, at)
            if tag & 7 == LENGTH:
                end = at + value
                if end > len(data):
                    raise ValueError("a field ends after its message")
                value, at = data[at:end], end
            elif tag & 7 != VARINT:
                raise ValueError(f"wire type {tag & 7}")
            self._fields.setdefault(tag >> 3, []).append(value)

    def has(self, field: int) -> bool:
        return field in self._fields

    def number(self, field: int) -> int:
        return self._fields.get(field, [0])[-1]

    def bytes(self, field: int) -> bytes:
        return self._fields.get(field, [b""])[-1]

    def text(self, field: int) -> str:
        return self.bytes(field).decode()

    def message(self, field: int) -> "Message":
        return Message(self.bytes(field))

    def messages(self, field: int) -> list:
        return [Message(value) for value in self._fields.get(field, [])]


def encode(*fields) -> bytes:
    """Pairs of a field's number and its value: an int, a str or bytes. Defaults are left out, as proto3 does."""
    parts = []
    for number, value in fields:
        if isinstance(value, str):
            value = value.encode()
        if not value:
            continue
        if isinstance(value, bytes):
            parts += [_encode_varint(number << 3 | LENGTH), _encode_varint(len(value)), value]
        else:
            parts += [_encode_varint(number << 3 | VARINT), _encode_varint(value)]
    return b"".join(parts)


def encode_list(number: int, messages) -> bytes:
    """A repeated field; empty messages count."""
    tag = _encode_varint(number << 3 | LENGTH)
    return b"".join(tag + _encode_varint(len(it)) + it for it in messages)


def _varint(data: bytes, at: int):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
