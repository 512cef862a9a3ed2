"""Where values lie: small ones in place, those over a threshold once in the content store."""

from __future__ import annotations

import struct
from typing import Any

from graflow_celery.codec.values import ValueCodec, content_name
from graflow_celery.core.channel_rules import is_number
from graflow_celery.errors import BlobRejectedError
from graflow_celery.redis_backend.content_store import ContentStore

INLINE, REFERENCE, NUMBER, LIST = b"=", b"@", b"#", b"["


class ValueStore:
    """Packs a value into the bytes that a hash field holds, and back."""

    def __init__(self, codec: ValueCodec, content: ContentStore, threshold: int) -> None:
        self.codec = codec
        self.content = content
        self._threshold = threshold

    def pack(self, value: Any, what: str) -> bytes:
        """Raises SerializationError where the settings allow no format that can hold ``value``."""
        content = self.codec.written(value, what=what)
        if len(content.payload) <= self._threshold:
            return INLINE + self.codec.seal(content.payload, content.serializer)
        name = content_name(content)
        self.content.put_value(name, content)
        return REFERENCE + self.codec.refer(name)

    def pack_entry(self, value: Any, what: str) -> bytes:
        """As :meth:`pack`, but numbers and lists take the forms that `lua/change.lua` can change in place."""
        if is_number(value):
            return NUMBER + repr(value).encode()
        if type(value) is list:
            elements = [self.pack(element, what) for element in value]
            joined = b"".join(struct.pack(">I", len(element)) + element for element in elements)
            return LIST + struct.pack(">I", len(elements)) + joined
        return self.pack(value, what)

    def unpack(self, field: bytes, what: str) -> Any:
        """Raises BlobMissingError or BlobRejectedError, both naming ``what``."""
        mark, rest = field[:1], field[1:]
        if mark == INLINE:
            return self.codec.decode(rest, what=what)
        if mark == REFERENCE:
            return self.codec.read(self.content.value(self.codec.referred(rest, what=what), what), what=what)
        if mark == NUMBER:
            text = rest.decode()
            return float(text) if any(sign in text for sign in ".en") else int(text)
        if mark == LIST:
            return [self.unpack(element, what) for element in _elements(rest)]
        raise BlobRejectedError(f"The stored {what} has an unknown form {mark!r}. Was it written by a newer version?")


def _elements(data: bytes) -> list[bytes]:
    (count,) = struct.unpack_from(">I", data)
    elements: list[bytes] = []
    offset = 4
    for _ in range(count):
        (length,) = struct.unpack_from(">I", data, offset)
        elements.append(data[offset + 4 : offset + 4 + length])
        offset += 4 + length
    return elements
