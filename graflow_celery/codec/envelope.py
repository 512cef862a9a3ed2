"""What lies around content: who made it, what it is called, and whether it is whole. Nothing is decoded here.

Short values stand in a field of a hash, in a short envelope:

    0  magic 0xB7   1  version   2  serializer   3  flags   4..36  signature, if signed   then the payload

Blobs have a name of their own, under which they are stored, and a long one, so that no blob passes for another:

    0..4  as above   4..8  zeros   8..16  length of the payload   16..32  name   32..64  digest of all but the signature
    64..96  signature, or zeros   then the body: the payload, or a zstd frame of it

The digest is BLAKE2b with 256 bits, over what stands before it and the body. The signature is an HMAC-SHA256 (RFC 2104)
over everything before it and, in the short form, the payload: it covers a blob's body by its digest. Where a secret is
set here, it is verified before anything else is believed; and a serializer that the settings don't name is refused,
whoever signed. Short values without a signature have no digest: damage to one may read as another value.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from graflow_celery.codec.compression import compressed, decompressed
from graflow_celery.errors import BlobRejectedError

Serializer = Literal["json", "msgpack", "pickle", "raw"]

VERSION = 2
_MAGIC = 0xB7
_CODES: dict[str, int] = {"json": 1, "msgpack": 2, "pickle": 3, "raw": 4}
_NAMES: dict[int, Serializer] = {_CODES[name]: name for name in get_args(Serializer)}
_NAMED, _ZSTD, _SIGNED = 1, 2, 4
_SHORT = 4
_BEGIN = struct.Struct(">4s4xQ16s")
_DIGEST = 32
_LONG = _BEGIN.size + _DIGEST
_SIGNATURE = hashlib.sha256().digest_size
TAG = 16
#: What of a blob stands before its body.
BLOB_HEAD = _LONG + _SIGNATURE
_CONTENT, _REFERENCE = b"graflow content 2\0", b"graflow reference 2\0"


class Content(NamedTuple):
    """A payload that has passed all checks, and what it was written by."""

    serializer: Serializer
    payload: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Seal:
    """Signs and checks. ``keys``: the first signs, any of them verifies; none: nothing is signed, nothing is asked for.

    ``limit``: the most bytes that a payload may have.
    """

    keys: Sequence[bytes] = field(repr=False)
    limit: int

    def value(self, payload: bytes, serializer: str) -> bytes:
        """A payload in its short envelope."""
        head = bytes((_MAGIC, VERSION, _CODES[serializer], _SIGNED if self.keys else 0))
        return b"".join((head, _sign(self.keys[0], head, payload) if self.keys else b"", payload))

    def blob(self, payload: bytes, serializer: str, name: str) -> bytes:
        """A payload as a blob called ``name``, of 32 hexadecimal digits."""
        frame = compressed(payload)
        flags = _NAMED | (_ZSTD if frame is not None else 0) | (_SIGNED if self.keys else 0)
        first = bytes((_MAGIC, VERSION, _CODES[serializer], flags))
        body = payload if frame is None else frame
        begin = _BEGIN.pack(first, len(payload), bytes.fromhex(name))
        head = begin + _digest(begin, body)
        return b"".join((head, _sign(self.keys[0], head) if self.keys else bytes(_SIGNATURE), body))

    def open_value(self, data: bytes | memoryview) -> Content:
        """What :meth:`value` made. Raises BlobRejectedError, which says what is wrong and not with what."""
        serializer, flags = self._begin(data)
        if flags & ~_SIGNED:
            raise BlobRejectedError("it is not what stands here: a blob, or of another form")
        start = _SHORT + (_SIGNATURE if flags & _SIGNED else 0)
        if len(data) < start:
            raise BlobRejectedError("it is cut short")
        payload = data[start:]
        self._check_size(len(payload))
        self._verify(data[_SHORT:start], data[:_SHORT], payload)
        return Content(_known(serializer), payload)

    def open_blob(self, data: bytes, name: str) -> Content:
        """What :meth:`blob` made, if it is the blob called ``name``. Raises as :meth:`open_value`."""
        serializer, flags = self._begin(data)
        start = _LONG + _SIGNATURE
        if not flags & _NAMED or flags & ~(_NAMED | _ZSTD | _SIGNED):
            raise BlobRejectedError("it is not what stands here: a value, or of another form")
        if len(data) < start:
            raise BlobRejectedError("it is cut short")
        view = memoryview(data)
        _, length, called = _BEGIN.unpack_from(data)
        self._verify(view[_LONG:start] if flags & _SIGNED else b"", view[:_LONG])
        if called.hex() != name:
            raise BlobRejectedError(f"it is the blob {called.hex()}, which was put in its place")
        body = view[start:]
        self._check_size(max(length, len(body)))
        filled = not flags & _SIGNED and any(view[_LONG:start])
        if filled or _digest(view[: _BEGIN.size], body) != view[_BEGIN.size : _LONG]:
            raise BlobRejectedError("its digest differs: it was changed, or is cut short")
        if flags & _ZSTD:
            return Content(_known(serializer), decompressed(body, length))
        if len(body) != length:
            raise BlobRejectedError("its length differs from what it says")
        return Content(_known(serializer), body)

    def signs(self, head: bytes, name: str) -> bool:
        """Whether these first BLOB_HEAD bytes of a blob are of the blob ``name``, signed by the key that signs now."""
        return (
            len(head) == BLOB_HEAD
            and head[16:32].hex() == name
            and bool(head[3] & _SIGNED)
            and hmac.compare_digest(_sign(self.keys[0], head[:_LONG]), head[_LONG:])
        )

    def tag(self, text: bytes) -> bytes:
        """What stands behind a reference to a blob: a signature of 16 bytes, or nothing."""
        return _tag(self.keys[0], text) if self.keys else b""

    def check_tag(self, text: bytes, tag: bytes) -> None:
        """Raises BlobRejectedError unless ``tag`` was made by one of the keys."""
        if self.keys and not any(hmac.compare_digest(_tag(key, text), tag) for key in self.keys):
            raise BlobRejectedError(_wrong(bool(tag), "this reference"))

    def _begin(self, data: bytes | memoryview) -> tuple[int, int]:
        if len(data) < _SHORT or data[0] != _MAGIC:
            raise BlobRejectedError("it is no content of graflow_celery. Was the key written by something else?")
        if data[1] != VERSION:
            raise BlobRejectedError(
                f"it has format {data[1]} and this process reads {VERSION}. Use the same version of graflow_celery on "
                "clients and workers."
            )
        return data[2], data[3]

    def _check_size(self, length: int) -> None:
        if length > self.limit:
            raise BlobRejectedError(f"it has {length:,} bytes, and setting value_limit allows {self.limit:,} here.")

    def _verify(self, signature: bytes | memoryview, *signed: bytes | memoryview) -> None:
        if self.keys and not any(hmac.compare_digest(_sign(key, *signed), signature) for key in self.keys):
            raise BlobRejectedError(_wrong(len(signature) == _SIGNATURE and any(signature), "it"))


def _wrong(is_signed: bool, what: str) -> str:
    if not is_signed:
        return (
            f"{what} is not signed, and a secret is set here. Set the same GRAFLOW_CELERY_SECRET_KEY where the "
            "workflow is submitted and on all workers."
        )
    return (
        f"the signature of {what} is wrong: {what} was changed, or signed with another secret. Set the same "
        "GRAFLOW_CELERY_SECRET_KEY on clients and workers; an old one belongs into GRAFLOW_CELERY_SECRET_KEYS_ACCEPTED."
    )


def _known(serializer: int) -> Serializer:
    if serializer not in _NAMES:
        raise BlobRejectedError(f"it has the unknown serializer {serializer}")
    return _NAMES[serializer]


def _digest(begin: bytes | memoryview, body: bytes | memoryview) -> bytes:
    hashing = hashlib.blake2b(begin, digest_size=_DIGEST)
    hashing.update(body)
    return hashing.digest()


def _sign(key: bytes, *parts: bytes | memoryview) -> bytes:
    signing = hmac.new(key, _CONTENT, hashlib.sha256)
    for part in parts:
        signing.update(part)
    return signing.digest()


def _tag(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, _REFERENCE + text, "sha256")[:TAG]
