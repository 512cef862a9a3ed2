"""Values as bytes, and back only after every check has passed.

A blob is: the magic byte, the version, the serializer's byte, the length of the signature, the signature, the
payload. The signature is an HMAC-SHA256 over the first three bytes and the payload. Where a secret is set, it
is verified before anything is decoded; and a serializer that the settings don't name is refused, whoever
signed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import pickle
from dataclasses import dataclass, field
from typing import Literal

from graflow_celery.codec.location import type_name
from graflow_celery.codec.pickling import dump
from graflow_celery.errors import BlobRejectedError, ConfigError, SerializationError

Serializer = Literal["json", "pickle", "raw"]

_MAGIC = 0xB7
_VERSION = 1
_CODES: dict[str, int] = {"json": 1, "pickle": 3, "raw": 4}  # 2 is kept for msgpack
_NAMES: dict[int, Serializer] = {1: "json", 3: "pickle", 4: "raw"}
_HEADER = 4
_SIGNATURE = hashlib.sha256().digest_size
_DEEPEST_JSON = 100
_JSON_ATOMS = frozenset({type(None), bool, int, float, str})


@dataclass(frozen=True)
class ValueCodec:
    """Turns values into signed bytes and back.

    Attributes:
        serializers: what may be written and read: ``"json"``, ``"pickle"``. Plain bytes (``"raw"``) always
            may.
        keys: secrets. The first signs and any of them verifies, so that a key can be replaced while runs go
            on; none at all: nothing is signed and no signature is looked at.
    """

    serializers: tuple[str, ...]
    keys: tuple[bytes, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        unknown = [name for name in self.serializers if name not in ("json", "pickle")]
        if unknown or not self.serializers:
            named = f"'{unknown[0]}' cannot be used" if unknown else "at least one is needed"
            raise ConfigError(f"Setting serializers: {named}. Name json, pickle or both.")
        if not all(self.keys):
            raise ConfigError("Setting secret_key: it is empty. Give it some characters, or leave it out.")

    @property
    def allows_pickle(self) -> bool:
        """Whether functions, values and exceptions may be pickled and unpickled."""
        return "pickle" in self.serializers

    def encode(self, value: object, *, what: str) -> bytes:
        """``value`` as a blob: JSON if it comes back from it exactly, else a pickle, if allowed.

        Bytes go as they are. ``what`` names the value in errors: ``"result of task 'x'"``.

        Raises:
            SerializationError: it cannot be written by an allowed serializer.
        """
        if type(value) is bytes:
            return self.seal(value, "raw")
        if "json" in self.serializers:
            payload = _exact_json(value)
            if payload is not None:
                return self.seal(payload, "json")
        if "pickle" not in self.serializers:
            raise SerializationError(
                what,
                f"a value of type '{type_name(value)}' is not exactly JSON, and the settings' serializers "
                "allow nothing else. Return None, bool, int, float, str, list or dict with string keys, or "
                "add pickle to serializers.",
            )
        return self.seal(_pickled(value, what), "pickle")

    def decode(self, data: bytes, *, what: str) -> object:
        """The value in a blob that :meth:`encode` made.

        Raises:
            BlobRejectedError: it fails a check; nothing of it was decoded.
            SerializationError: it cannot be rebuilt here: a module that it needs is missing, or its own code
                raised.
        """
        try:
            serializer, payload = self.open(data)
        except BlobRejectedError as error:
            raise BlobRejectedError(f"{what[:1].upper()}{what[1:]}: {error}") from None
        if serializer == "raw":
            return payload
        if serializer == "json":
            return _from_json(payload, what)
        return _unpickled(payload, what)

    def seal(self, payload: bytes, serializer: str) -> bytes:
        """A blob with a payload that was made elsewhere by ``serializer`` (``"json"``, ``"pickle"``,
        ``"raw"``).

        Raises:
            SerializationError: the settings don't allow the serializer.
        """
        if not self._allows(serializer):
            raise SerializationError("content", f"{self._forbids(serializer)} Add it there.")
        head = bytes((_MAGIC, _VERSION, _CODES[serializer]))
        signature = _sign(self.keys[0], head, payload) if self.keys else b""
        return b"".join((head, bytes((len(signature),)), signature, payload))

    def open(self, data: bytes) -> tuple[Serializer, bytes]:
        """Serializer and payload of a blob, checked and not decoded.

        Raises:
            BlobRejectedError: it is no blob, or not signed with one of the keys, or by a serializer that is
                not allowed.
        """
        if len(data) < _HEADER or data[0] != _MAGIC:
            raise BlobRejectedError(
                "These bytes are no content of graflow_celery. Was the key written by something else?"
            )
        if data[1] != _VERSION:
            raise BlobRejectedError(
                f"This content has format {data[1]} and this process reads {_VERSION}. Use the same version "
                "of graflow_celery on clients and workers."
            )
        start = _HEADER + data[3]
        head, signature, payload = data[:3], data[_HEADER:start], data[start:]
        if len(signature) != data[3] or data[3] not in (0, _SIGNATURE):
            raise BlobRejectedError("This content is cut short or damaged. Submit the workflow again.")
        if self.keys:
            self._verify(head, signature, payload)
        serializer = _NAMES.get(data[2])
        if serializer is None:
            raise BlobRejectedError(f"This content has the unknown serializer {data[2]}.")
        if not self._allows(serializer):
            raise BlobRejectedError(f"{self._forbids(serializer)} It was not decoded.")
        return serializer, payload

    def _verify(self, head: bytes, signature: bytes, payload: bytes) -> None:
        if not signature:
            raise BlobRejectedError(
                "This content is not signed, and a secret is set here. Set the same "
                "GRAFLOW_CELERY_SECRET_KEY where the workflow is submitted and on all workers."
            )
        matches = [hmac.compare_digest(_sign(key, head, payload), signature) for key in self.keys]
        if not any(matches):
            raise BlobRejectedError(
                "The signature of this content is wrong: it was changed, or signed with another secret. "
                "Set the same GRAFLOW_CELERY_SECRET_KEY on clients and workers."
            )

    def _allows(self, serializer: str) -> bool:
        return serializer == "raw" or serializer in self.serializers

    def _forbids(self, serializer: str) -> str:
        return f"Setting serializers ({', '.join(self.serializers)}) does not allow {serializer}."


def _sign(key: bytes, head: bytes, payload: bytes) -> bytes:
    signing = hmac.new(key, head, hashlib.sha256)
    signing.update(payload)
    return signing.digest()


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


def _from_json(payload: bytes, what: str) -> object:
    try:
        return json.loads(payload.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise BlobRejectedError(f"{what[:1].upper()}{what[1:]}: its bytes are damaged ({error}).") from None


# --- pickle -------------------------------------------------------------------------------------------------


def _pickled(value: object, what: str) -> bytes:
    try:
        return dump(value)
    except Exception as error:  # boundary: __reduce__ and __getstate__ are the user's
        raise SerializationError(
            what,
            f"a value of type '{type_name(value)}' cannot be sent to another process "
            f"({str(error) or type(error).__name__}). Use plain data instead, and open locks, files and "
            "connections inside the task that needs them.",
        ) from error


def _unpickled(payload: bytes, what: str) -> object:
    try:
        return pickle.loads(payload)
    except (pickle.UnpicklingError, EOFError) as error:
        raise BlobRejectedError(f"{what[:1].upper()}{what[1:]}: its bytes are damaged ({error}).") from None
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
