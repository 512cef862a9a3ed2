"""MessagePack for what JSON cannot say and no code is needed for: bytes, tuples, sets, times, decimals, NumPy arrays.

https://msgpack.org. Each type beyond MessagePack's own is an extension type, whose number is part of the format.
"""

from __future__ import annotations

import datetime
import decimal
import importlib
import struct
import sys
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgpack

from graflow_celery.errors import BlobRejectedError

_DEEPEST = 100  # msgpack's own bound is 511 for what it unpacks
_NATIVE = frozenset({type(None), bool, float, str, bytes})
_TUPLE, _SET, _FROZENSET, _INTEGER, _COMPLEX, _BYTEARRAY, _TEXT, _ARRAY = range(1, 9)
_COMPLEX_PARTS = struct.Struct(">dd")
#: Bytes in which the type and 64 dimensions of an array have room.
_LONGEST_HEAD = 1024

#: Types that their text says whole, and how to read it. The order is part of the format.
_TEXTS: Mapping[type, Callable[[str], Any]] = {
    datetime.datetime: datetime.datetime.fromisoformat,
    datetime.date: datetime.date.fromisoformat,
    datetime.time: datetime.time.fromisoformat,
    decimal.Decimal: decimal.Decimal,
    uuid.UUID: uuid.UUID,
}
_TEXT_NUMBERS = {kind: number for number, kind in enumerate(_TEXTS)}


class _NotExact(Exception):
    """MessagePack cannot hold the value so that it comes back the same."""


def exact_msgpack(value: object) -> bytes | None:
    """``value`` as MessagePack, or None if it would not come back the same, type by type."""
    try:
        return _packed(value, _DEEPEST)
    except (_NotExact, ValueError, OverflowError, TypeError, UnicodeEncodeError):
        return None


def from_msgpack(payload: bytes | memoryview) -> object:
    """The value in what :func:`exact_msgpack` made. Raises BlobRejectedError: the bytes are damaged."""
    try:
        return _unpacked(payload)
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        struct.error,
        decimal.DecimalException,
        msgpack.UnpackException,
    ) as error:
        raise BlobRejectedError(f"its bytes are damaged ({type(error).__name__}: {error})") from None


def _packed(value: object, depth: int) -> bytes:
    made: bytes = msgpack.packb(
        _prepared(value, depth), use_bin_type=True, strict_types=True, unicode_errors="surrogatepass"
    )
    return made


def _prepared(value: object, depth: int) -> Any:
    kind = type(value)
    if kind in _NATIVE:
        return value
    if depth == 0:
        raise _NotExact
    if isinstance(value, list) and kind is list:
        return [_prepared(item, depth - 1) for item in value]
    if isinstance(value, dict) and kind is dict:
        return {_prepared(key, depth - 1): _prepared(item, depth - 1) for key, item in value.items()}
    return _extension(kind, value, depth)


def _extension(kind: type, value: Any, depth: int) -> Any:
    if kind is int:
        if -(2**63) <= value < 2**64:
            return value
        return msgpack.ExtType(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    codes = {tuple: _TUPLE, set: _SET, frozenset: _FROZENSET}
    if kind in codes:
        return msgpack.ExtType(codes[kind], _packed(list(value), depth - 1))
    if kind is complex:
        return msgpack.ExtType(_COMPLEX, _COMPLEX_PARTS.pack(value.real, value.imag))
    if kind is bytearray:
        return msgpack.ExtType(_BYTEARRAY, bytes(value))
    if kind in _TEXT_NUMBERS and _is_whole(value):
        return msgpack.ExtType(_TEXT, bytes((_TEXT_NUMBERS[kind],)) + str(value).encode())
    return _array(value)


def _is_whole(value: Any) -> bool:
    """Whether the text of a time says all of it: a zone is more than its offset, and some hours come twice."""
    zone = getattr(value, "tzinfo", None)
    return (zone is None or zone is datetime.UTC) and not getattr(value, "fold", 0)


def _array(value: Any) -> Any:
    """A NumPy array of plain numbers, times or texts, as its type, shape and bytes."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray or not _is_plain(numpy, value.dtype):
        raise _NotExact
    order = "C" if value.flags.c_contiguous or not value.flags.f_contiguous else "F"
    head = [value.dtype.str, list(value.shape), order, bool(value.flags.writeable)]
    return msgpack.ExtType(_ARRAY, msgpack.packb(head) + value.tobytes(order))


def _is_plain(numpy: Any, dtype: Any) -> bool:
    """Whether its short text says all of an array's type."""
    if dtype.hasobject or dtype.fields is not None or dtype.metadata is not None or not dtype.itemsize:
        return False
    return bool(numpy.dtype(dtype.str) == dtype)


def _unpacked(data: bytes | memoryview) -> Any:
    return msgpack.unpackb(data, raw=False, strict_map_key=False, ext_hook=_made, unicode_errors="surrogatepass")


def _made(code: int, data: bytes) -> Any:
    maker = _MAKERS.get(code)
    if maker is None:
        raise ValueError(f"unknown extension type {code}")
    return maker(data)


def _made_text(data: bytes) -> Any:
    return list(_TEXTS.values())[data[0]](data[1:].decode())


def _made_array(data: bytes) -> Any:
    numpy = importlib.import_module("numpy")  # only who receives an array needs it
    reader = msgpack.Unpacker()
    reader.feed(memoryview(data)[:_LONGEST_HEAD])
    dtype, shape, order, writeable = reader.unpack()
    if type(dtype) is not str:
        raise ValueError("the type of an array is no text")
    flat = numpy.frombuffer(data, dtype, offset=reader.tell())
    array = flat.reshape(shape, order=order).copy(order=order)
    array.flags.writeable = writeable
    return array


def _sequence(kind: Callable[[Any], Any], data: bytes) -> Any:
    return kind(_unpacked(data))


_MAKERS: Mapping[int, Callable[[bytes], Any]] = {
    _TUPLE: partial(_sequence, tuple),
    _SET: partial(_sequence, set),
    _FROZENSET: partial(_sequence, frozenset),
    _INTEGER: lambda data: int.from_bytes(data, "big", signed=True),
    _COMPLEX: lambda data: complex(*_COMPLEX_PARTS.unpack(data)),
    _BYTEARRAY: bytearray,
    _TEXT: _made_text,
    _ARRAY: _made_array,
}
