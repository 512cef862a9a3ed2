"""Values as bytes, and back only after every check has passed: which serializer writes what, and what it is allowed.

The envelope around them, its signature and digest are in :mod:`graflow_celery.codec.envelope`.
"""

from __future__ import annotations

import json
import pickle
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NoReturn

from graflow_celery.codec.canonical import digest
from graflow_celery.codec.envelope import TAG, Content, Seal
from graflow_celery.codec.location import type_name
from graflow_celery.codec.packing import exact_msgpack, from_msgpack
from graflow_celery.codec.pickling import dump_with_buffers
from graflow_celery.errors import BlobRejectedError, ConfigError, SerializationError

SERIALIZERS = ("json", "msgpack", "pickle")
#: Redis holds 512 MiB in a string, in its default configuration.
LIMIT = 500_000_000
_DEEPEST_JSON = 100
_JSON_ATOMS = frozenset({type(None), bool, int, float, str})
#: A pickle with its buffers behind it begins with this; a plain one with 0x80.
_BUFFERS = 0x42
_COUNT = struct.Struct(">B3xI")
_BUFFER = struct.Struct(">QB7x")
_ALIGNED = 16


@dataclass(frozen=True)
class ValueCodec:
    """Turns values into signed bytes and back.

    Attributes:
        serializers: what may be written and read: ``"json"``, ``"msgpack"``, ``"pickle"``. Plain bytes (``"raw"``)
            always may.
        keys: secrets. The first signs and any of them verifies, so that a key can be replaced while runs go
            on; none at all: nothing is signed and no signature is looked at.
        limit: the most bytes that a value, function or manifest may have, before compression.
    """

    serializers: tuple[str, ...]
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    limit: int = LIMIT

    def __post_init__(self) -> None:
        unknown = [name for name in self.serializers if name not in SERIALIZERS]
        if unknown or not self.serializers:
            named = f"'{unknown[0]}' cannot be used" if unknown else "at least one is needed"
            raise ConfigError(f"Setting serializers: {named}. Name some of {', '.join(SERIALIZERS)}.")
        if not all(self.keys):
            raise ConfigError("Setting secret_key: it is empty. Give it some characters, or leave it out.")

    @property
    def allows_pickle(self) -> bool:
        """Whether functions, values and exceptions may be pickled and unpickled."""
        return "pickle" in self.serializers

    @cached_property
    def _seal(self) -> Seal:
        return Seal(self.keys, self.limit)

    # --- values -----------------------------------------------------------------------------------------------

    def written(self, value: object, *, what: str) -> Content:
        """``value`` as a payload, not yet sealed: JSON if that gives it back exactly, else MessagePack or a pickle.

        Each only if allowed. Bytes go as they are. ``what`` names the value in errors: ``"result of task 'x'"``.

        Raises:
            SerializationError: it cannot be written by an allowed serializer, or is larger than the limit.
        """
        if type(value) is bytes:
            return self._within(Content("raw", value), what)
        if "json" in self.serializers and (payload := _exact_json(value)) is not None:
            return self._within(Content("json", payload), what)
        if "msgpack" in self.serializers and (payload := exact_msgpack(value)) is not None:
            return self._within(Content("msgpack", payload), what)
        if not self.allows_pickle:
            raise SerializationError(what, _needs_pickle(value, self.serializers))
        return self._within(Content("pickle", _pickled(value, what)), what)

    def read(self, content: Content, *, what: str) -> object:
        """The value of a payload that was opened.

        Raises:
            BlobRejectedError: its bytes are damaged.
            SerializationError: it cannot be rebuilt here: a module that it needs is missing, or its own code raised.
        """
        payload = content.payload
        if content.serializer == "raw":
            return bytes(payload)
        try:
            if content.serializer == "json":
                return _from_json(payload)
            if content.serializer == "msgpack":
                return from_msgpack(payload)
            return _unpickled(payload)
        except BlobRejectedError as error:
            _reject(what, error)
        except (pickle.UnpicklingError, EOFError, struct.error, UnicodeDecodeError) as error:
            _reject(what, f"its bytes are damaged ({error})")
        except RecursionError as error:
            _reject(what, f"its bytes are damaged: nested too deep ({error})")
        except (ImportError, AttributeError) as error:
            raise SerializationError(
                what,
                f"it cannot be rebuilt here: {error}. Install the module that defines its type, in the same "
                "version as where the value was made.",
            ) from error
        except Exception as error:  # boundary: unpickling runs the user's code
            raise SerializationError(
                what, f"it cannot be rebuilt here: {type(error).__name__}: {error}. Use plain data instead."
            ) from error

    def encode(self, value: object, *, what: str) -> bytes:
        """``value`` in a short envelope, to stand in a field. Raises as :meth:`written`."""
        content = self.written(value, what=what)
        return self._seal.value(bytes(content.payload), content.serializer)

    def decode(self, data: bytes, *, what: str) -> object:
        """The value in what :meth:`encode` made. Raises as :meth:`open` and :meth:`read`: nothing is read unchecked."""
        return self.read(self.open(data, what=what), what=what)

    # --- envelopes --------------------------------------------------------------------------------------------

    def seal(self, payload: bytes | memoryview, serializer: str, name: str | None = None) -> bytes:
        """An envelope around a payload that ``serializer`` made; that of a blob, if it has a ``name``.

        Raises:
            SerializationError: the settings don't allow the serializer.
        """
        if not self._allows(serializer):
            raise SerializationError("content", f"{self._forbids(serializer)} Add it there.")
        data = bytes(payload)
        return self._seal.value(data, serializer) if name is None else self._seal.blob(data, serializer, name)

    def open(self, data: bytes, *, what: str = "content", name: str | None = None) -> Content:
        """What is in an envelope, checked and not decoded; in that of the blob ``name``, if one is given.

        Raises:
            BlobRejectedError: it is no content of ours, not called so, changed, too large, not signed with one of the
                keys, or by a serializer that is not allowed. The message names the blob, and ``what`` it is.
        """
        try:
            content = self._seal.open_value(data) if name is None else self._seal.open_blob(data, name)
            if not self._allows(content.serializer):
                raise BlobRejectedError(f"{self._forbids(content.serializer)} It was not decoded.")
        except BlobRejectedError as error:
            _reject(what if name is None else f"blob {name} ({what})", error)
        return content

    def needs_signing(self, head: bytes, name: str) -> bool:
        """Whether who has only the secret that signs here would refuse a blob, of which this is the head."""
        return bool(self.keys) and not self._seal.signs(head, name)

    def refer(self, name: str) -> bytes:
        """A reference to the blob ``name``, signed where there is a key."""
        text = name.encode()
        return text + self.tag(text)

    def referred(self, reference: bytes, *, what: str) -> str:
        """The name in a reference. Raises BlobRejectedError: it was not made by :meth:`refer` with one of the keys."""
        text, tag = reference[:_NAME], reference[_NAME:]
        self.check_tag(text, tag, what=what)
        if len(tag) not in (0, TAG) or not _IS_NAME(text):
            _reject(what, "its reference is damaged")
        return text.decode()

    def tag(self, text: bytes) -> bytes:
        """A signature of 16 bytes for what refers to content; nothing, where there is no key."""
        return self._seal.tag(text)

    def check_tag(self, text: bytes, tag: bytes, *, what: str) -> None:
        """Raises BlobRejectedError, which names ``what``, where there are keys and none of them made ``tag``."""
        try:
            self._seal.check_tag(text, tag)
        except BlobRejectedError as error:
            _reject(what, error)

    def _allows(self, serializer: str) -> bool:
        return serializer == "raw" or serializer in self.serializers

    def _forbids(self, serializer: str) -> str:
        return f"Setting serializers ({', '.join(self.serializers)}) does not allow {serializer}."

    def _within(self, content: Content, what: str) -> Content:
        if len(content.payload) > self.limit:
            raise SerializationError(
                what,
                f"it has {len(content.payload):,} bytes, and setting value_limit allows {self.limit:,}. Keep it where "
                "large data belongs (a file, an object store, a database), and return its path or key.",
            )
        return content


_NAME = 32
_IS_NAME = re.compile(rb"[0-9a-f]{32}").fullmatch


def content_name(content: Content) -> str:
    """What a blob is called that holds this value: a digest of the payload and of what wrote it."""
    return digest(content.serializer.encode() + b"\0", content.payload)


def _reject(what: str, why: object) -> NoReturn:
    text = str(why)
    raise BlobRejectedError(f"{what[:1].upper()}{what[1:]}: {text[:1].upper()}{text[1:]}") from None


def _needs_pickle(value: object, serializers: tuple[str, ...]) -> str:
    kinds = {
        "json": "None, bool, int, float, str, list or dict with string keys",
        "msgpack": "bytes, tuple, set, datetime, Decimal, UUID, NumPy arrays",
    }
    allowed = " and ".join(serializers)
    plain = ", or ".join(kinds[name] for name in serializers)
    return (
        f"a value of type '{type_name(value)}' does not come back exactly from {allowed}, and the settings' "
        f"serializers allow nothing else. Return {plain}, or add pickle to serializers."
    )


# --- JSON ---------------------------------------------------------------------------------------------------


def _exact_json(value: object) -> bytes | None:
    """``value`` as JSON, or None if it would not come back the same, type by type."""
    if not _is_json(value, {}, _DEEPEST_JSON):
        return None
    try:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):  # NaN, infinite, an int of thousands of digits
        return None
    return text.encode("utf-8", "surrogatepass")


def _from_json(payload: bytes | memoryview) -> object:
    try:
        return json.loads(bytes(payload).decode("utf-8", "surrogatepass"))
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are; so is a number of too many digits
        raise BlobRejectedError(f"its bytes are damaged ({error})") from None


def _is_json(value: object, checked: dict[int, bool], depth: int) -> bool:
    """Whether exact types allow JSON. ``checked``: containers by id, False until their check is over."""
    kind = type(value)
    if kind in _JSON_ATOMS:
        return True
    if depth == 0:
        return False
    if id(value) in checked:
        return checked[id(value)]
    if isinstance(value, dict) and kind is dict:
        if not all(type(key) is str for key in value):
            return False
        items = list(value.values())
    elif isinstance(value, list) and kind is list:
        items = value
    else:
        return False
    checked[id(value)] = False
    for item in items:
        if type(item) not in _JSON_ATOMS and not _is_json(item, checked, depth - 1):
            return False
    checked[id(value)] = True
    return True


# --- pickle, and the buffers of arrays behind it (PEP 574) ----------------------------------------------------


def _pickled(value: object, what: str) -> bytes:
    try:
        data, buffers = dump_with_buffers(value)
    except Exception as error:  # boundary: __reduce__ and __getstate__ are the user's
        raise SerializationError(
            what,
            f"a value of type '{type_name(value)}' cannot be sent to another process "
            f"({str(error) or type(error).__name__}). Use plain data instead, and open locks, files and "
            "connections inside the task that needs them.",
        ) from error
    if not buffers:
        return data
    sizes = [_BUFFER.pack(buffer.nbytes, buffer.readonly) for buffer in buffers]
    head = b"".join((_COUNT.pack(_BUFFERS, len(buffers)), *sizes))
    parts: list[bytes | memoryview] = []
    for part in [memoryview(head), *buffers]:
        parts += (part, bytes(-len(part) % _ALIGNED))
    return b"".join((*parts, data))


def _unpickled(payload: bytes | memoryview) -> object:
    if not len(payload) or payload[0] != _BUFFERS:
        return pickle.loads(payload)
    *buffers, data = _parts(memoryview(payload))
    return pickle.loads(data, buffers=buffers)


def _parts(view: memoryview) -> Iterator[memoryview | bytearray]:
    """The buffers, and the pickle after them. One that may be written to is a copy: nobody else sees the change."""
    _, count = _COUNT.unpack_from(view)
    if count * _BUFFER.size > len(view):
        raise EOFError("its buffers are cut short")
    start = _COUNT.size + count * _BUFFER.size
    sizes = [_BUFFER.unpack_from(view, _COUNT.size + number * _BUFFER.size) for number in range(count)]
    start += -start % _ALIGNED
    for length, is_readonly in sizes:
        if start + length > len(view):
            raise EOFError("its buffers are cut short")
        part = view[start : start + length]
        yield part.toreadonly() if is_readonly else bytearray(part)
        start += length + -length % _ALIGNED
    yield view[start:]
