"""Where values lie: small ones in place, those over a threshold once in the content store."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from graflow_celery.codec.values import ValueCodec, content_name
from graflow_celery.core.channel_rules import is_number
from graflow_celery.errors import BlobRejectedError
from graflow_celery.ports import RunRef
from graflow_celery.redis_backend.content_store import ContentStore

INLINE, REFERENCE, NUMBER, LIST = b"=", b"@", b"#", b"["
#: Begins the field of a channel's value that has a deadline; see `lua/live.lua`.
DEADLINE = b"~"
_NAME = 32


class ValueStore:
    """Packs a value into the bytes that a hash field holds, and back.

    Large values become blobs, which ``run`` holds; without one, nobody does, and they live for the content store's ttl.
    """

    def __init__(self, codec: ValueCodec, content: ContentStore, threshold: int, run: RunRef | None = None) -> None:
        self.codec = codec
        self.content = content
        self._threshold = threshold
        self._run = run

    def held_by(self, run: RunRef) -> ValueStore:
        """The same, for the values of a run."""
        return ValueStore(self.codec, self.content, self._threshold, run)

    def pack(self, value: Any, what: str) -> bytes:
        """Raises SerializationError where the settings allow no format that can hold ``value``."""
        content = self.codec.written(value, what=what)
        if len(content.payload) <= self._threshold:
            return INLINE + self.codec.seal(content.payload, content.serializer)
        name = content_name(content)
        self.content.put_value(name, content, self._run)
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

    def check_entry(self, value: Any, what: str) -> None:
        """Stores nothing. Raises what :meth:`pack_entry` would."""
        if not is_number(value):
            for item in value if type(value) is list else (value,):
                self.codec.written(item, what=what)

    def unpack(self, field: bytes, what: str) -> Any:
        """Raises BlobMissingError or BlobRejectedError, both naming ``what``."""
        mark, rest = field[:1], field[1:]
        if mark == INLINE:
            return self.codec.decode(rest, what=what)
        if mark == REFERENCE:
            return self.codec.read(self.content.value(self.codec.referred(rest, what=what), what), what=what)
        try:
            if mark == NUMBER:
                text = rest.decode()
                return float(text) if any(sign in text for sign in ".en") else int(text)
            elements = _elements(rest) if mark == LIST else None
        except (ValueError, struct.error) as error:
            raise BlobRejectedError(f"The stored {what} is damaged ({error}).") from None
        if elements is not None:
            return [self.unpack(element, what) for element in elements]
        raise BlobRejectedError(f"The stored {what} has an unknown form {mark!r}. Was it written by a newer version?")


def references(field: bytes) -> Iterator[str]:
    """The blobs that a field refers to, unchecked: a large value is one, and so may be the elements of a list."""
    if field.startswith(DEADLINE):
        field = field.partition(b"|")[2]
    if field.startswith(REFERENCE):
        yield field[1 : 1 + _NAME].decode("ascii", "replace")
    elif field.startswith(LIST):
        for element in _elements(field[1:]):
            yield from references(element)


def _elements(data: bytes) -> list[bytes]:
    """The packed elements of a list. Raises ValueError or struct.error: it is damaged."""
    (count,) = struct.unpack_from(">I", data)
    elements: list[bytes] = []
    offset = 4
    for _ in range(count):
        (length,) = struct.unpack_from(">I", data, offset)
        elements.append(data[offset + 4 : offset + 4 + length])
        offset += 4 + length
        if elements[-1][:1] == LIST:
            raise ValueError("a list lies in a list, which none is stored as")
    if offset != len(data):
        raise ValueError("its length is not what its elements have")
    return elements
