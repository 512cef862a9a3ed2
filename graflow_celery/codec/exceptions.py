"""Exceptions as data: what was raised on a worker comes back with its type and the traceback from there."""

from __future__ import annotations

import base64
import binascii
import builtins
import pickle
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import graflow_celery.errors
from graflow_celery.codec.canonical import Json
from graflow_celery.codec.envelope import Content
from graflow_celery.codec.location import qualified_name
from graflow_celery.codec.pickling import dump, dump_exception
from graflow_celery.codec.values import ValueCodec
from graflow_celery.errors import BlobRejectedError, RemoteError, RemoteTraceback

_PACKAGE = str(Path(graflow_celery.errors.__file__).parent)
_OWN_ERRORS = "graflow_celery.errors"
_LONGEST_TRACEBACK = 50_000


def encode_exception(error: BaseException, *, allow_pickle: bool, codec: ValueCodec | None = None) -> dict[str, Json]:
    """The exception as JSON.

    Keys: ``type`` (qualified name), ``message``, ``traceback`` (text, with causes and contexts); ``args``
        where they and
    the type's name are enough to make it again; ``pickle`` (base64) if allowed and if it survives. With a
    ``codec`` the pickle is sealed, and so signed.
    """
    record: dict[str, Json] = {
        "type": qualified_name(type(error)),
        "message": _message(error),
        "traceback": traceback_text(error),
    }
    arguments = _plain_arguments(error)
    if arguments is not None:
        record["args"] = arguments
    if allow_pickle and (arguments is None or _carries_more(error)):
        payload = _surviving_pickle(error)
        if payload is not None:
            sealed = payload if codec is None else codec.seal(payload, "pickle")
            record["pickle"] = base64.b64encode(sealed).decode("ascii")
    return record


def decode_exception(
    record: Mapping[str, Any], *, allow_pickle: bool, codec: ValueCodec | None = None
) -> BaseException:
    """The exception of a record of :func:`encode_exception`; its cause is a :class:`RemoteTraceback`.

    Of its own type if that can be rebuilt here, else a :class:`RemoteError`. With a ``codec`` a pickle that
    fails its checks is not touched.
    """
    error: BaseException | None = None
    if allow_pickle and isinstance(record.get("pickle"), str):
        error = _from_pickle(record["pickle"], codec)
    type_name, message = str(record.get("type", "Exception")), str(record.get("message", ""))
    if error is None and isinstance(record.get("args"), list):
        error = _from_arguments(type_name, message, record["args"])
    if error is None:
        error = RemoteError(type_name, message)
    text = record.get("traceback")
    if isinstance(text, str) and text:
        object.__setattr__(error, "__cause__", RemoteTraceback(text))  # past a __setattr__ of its own
    return error


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001  boundary: __str__ is the user's
        return f"<its text cannot be made: {type(failure).__name__}>"


# --- types that are known everywhere: name and arguments ----------------------------------------------------


def _known_type(name: str) -> type[BaseException] | None:
    """A built-in exception class or one of ours; a record names no other module to be imported."""
    module, _, simple = name.rpartition(".")
    found = getattr({"": builtins, _OWN_ERRORS: graflow_celery.errors}.get(module), simple, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _plain_arguments(error: BaseException) -> list[Json] | None:
    """The arguments that make this exception again, if its type is known everywhere and they are plain."""
    kind = type(error)
    if _known_type(qualified_name(kind)) is not kind:
        return None
    arguments: Any = error.__reduce__()[1]
    if not isinstance(arguments, tuple) or not all(_is_plain(item) for item in arguments):
        return None
    plain: list[Json] = [_listed(item) for item in arguments]
    return plain if _from_arguments(qualified_name(kind), _message(error), plain) is not None else None


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return type(value) in (tuple, list) and all(_is_plain(item) for item in value)
    return value is None or type(value) in (bool, int, float, str)


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple | list) else value


def _from_arguments(type_name: str, message: str, arguments: list[Any]) -> BaseException | None:
    kind = _known_type(type_name)
    if kind is None:
        return None
    try:
        error = kind(*arguments)
    except (TypeError, ValueError, AttributeError):
        return None
    return error if type(error) is kind and _message(error) == message else None


def _carries_more(error: BaseException) -> bool:
    """Whether it has attributes of its own or notes, beside its arguments."""
    return type(error).__module__ != _OWN_ERRORS and bool(getattr(error, "__dict__", None))


# --- any other type: pickle ---------------------------------------------------------------------------------


def _surviving_pickle(error: BaseException) -> bytes | None:
    """A pickle from which an equal-looking exception of the same type was rebuilt, or None.

    First as the type itself wants it; then without its constructor.
    """
    for dump_error in (dump, dump_exception):
        try:
            payload = dump_error(error)
            rebuilt: object = pickle.loads(payload)
        except Exception:  # noqa: BLE001  boundary: constructors and __reduce__ are the user's
            continue
        if type(rebuilt) is type(error) and _message(rebuilt) == _message(error):
            return payload
    return None


def _from_pickle(text: str, codec: ValueCodec | None) -> BaseException | None:
    try:
        sealed = base64.b64decode(text, validate=True)
        content = Content("pickle", sealed) if codec is None else codec.open(sealed)
        if content.serializer != "pickle":
            return None
    except (binascii.Error, ValueError, BlobRejectedError):
        return None
    try:
        rebuilt = pickle.loads(content.payload)
    except Exception:  # noqa: BLE001  boundary: unpickling runs the user's code
        return None
    return rebuilt if isinstance(rebuilt, BaseException) else None


# --- the traceback ------------------------------------------------------------------------------------------


def traceback_text(error: BaseException) -> str:
    """The traceback as Python prints it, from the user's code on; a very long one loses its middle."""
    told = traceback.TracebackException.from_exception(error)
    for part in _chain(told):
        outer = [frame.filename.startswith(_PACKAGE) for frame in part.stack]
        if False in outer:
            del part.stack[: outer.index(False)]
    text = "".join(told.format())
    if len(text) <= _LONGEST_TRACEBACK:
        return text
    half = _LONGEST_TRACEBACK // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters left out ...]\n{text[-half:]}"


def _chain(told: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """The exception, its causes and contexts, and the members of groups."""
    seen: set[int] = set()
    waiting: list[traceback.TracebackException | None] = [told]
    while waiting:
        part = waiting.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        waiting += [part.__cause__, part.__context__, *(part.exceptions or ())]
