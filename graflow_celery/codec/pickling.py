"""Pickle by cloudpickle, with what it gets wrong or cannot do put right."""

from __future__ import annotations

import functools
import importlib
import io
import pickle
import sys
from collections.abc import Callable
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeVar

import cloudpickle.cloudpickle

from graflow_celery.codec.location import (
    HEAP_TYPE,
    is_cached_function,
    is_importable,
    is_sent_by_value,
    locate_in_process,
    register_by_value,
)

PROTOCOL = 5
#: Bytes from which on a buffer stays beside the pickle.
LEAST_BUFFER = 1 << 14
#: What cloudpickle has for the file of all code.
_NO_FILE = "<dynamic-code>"
#: What a module has that is not its own, or that cannot be sent.
_MODULE_OWN = frozenset({"__builtins__", "__loader__", "__spec__"})


def dump(value: object) -> bytes:
    """``value`` as a pickle of protocol 5; what ``__main__`` and by-value modules define goes in whole.

    Raises whatever the value's own ``__reduce__`` and ``__getstate__`` raise: callers name the value.
    """
    _know_main()
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=PROTOCOL).dump(value)
    return buffer.getvalue()


def dump_with_buffers(value: object) -> tuple[bytes, list[memoryview]]:
    """As :func:`dump`, with the large buffers of arrays beside the pickle, not copied into it (PEP 574)."""
    _know_main()
    found: list[memoryview] = []

    def goes_inside(buffer: pickle.PickleBuffer) -> bool:
        try:
            raw = buffer.raw()
        except BufferError:  # its bytes don't lie in a row
            return True
        if raw.nbytes < LEAST_BUFFER:
            return True
        found.append(raw)
        return False

    file = io.BytesIO()
    _Pickler(file, protocol=PROTOCOL, buffer_callback=goes_inside).dump(value)
    return file.getvalue(), found


def dump_exception(error: BaseException) -> bytes:
    """A pickle for which no constructor of an exception is called: many don't take the ``args`` they leave behind.

    Each exception in it is made of its type, arguments and attributes.
    """
    buffer = io.BytesIO()
    _ExceptionPickler(buffer, protocol=PROTOCOL).dump(error)
    return buffer.getvalue()


def _know_main() -> None:
    if "__mp_main__" in sys.modules:  # the main module in a spawned process: no other process has it
        register_by_value("__mp_main__")


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    def reducer_override(self, obj: Any) -> Any:
        location = locate_in_process(obj)
        if location is not None:
            return _named, (location.module, location.qualname)
        if is_cached_function(obj) and not is_importable(obj):
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        if type(obj) is functools.cached_property:
            return _cached_property, (obj.func, obj.attrname)
        if isinstance(obj, CodeType):
            return _code(obj)
        whole = self._whole(obj)
        return super().reducer_override(obj) if whole is None else whole

    def _whole(self, obj: Any) -> Any:
        """What cloudpickle makes of what has no name elsewhere, for that which is sent by value though it has one."""
        if isinstance(obj, ModuleType):
            if is_sent_by_value(obj.__name__):
                content = {name: value for name, value in vars(obj).items() if name not in _MODULE_OWN}
                return cloudpickle.cloudpickle.dynamic_subimport, (obj.__name__, content)
        elif isinstance(obj, FunctionType | type | TypeVar) and is_sent_by_value(obj.__module__):
            if isinstance(obj, FunctionType):
                return self._dynamic_function_reduce(obj)
            if isinstance(obj, TypeVar):
                return cloudpickle.cloudpickle._make_typevar, cloudpickle.cloudpickle._decompose_typevar(obj)
            if obj.__flags__ & HEAP_TYPE:
                return cloudpickle.cloudpickle._dynamic_class_reduce(obj)
        return None


class _ExceptionPickler(_Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, BaseException):
            attributes = dict(getattr(obj, "__dict__", {}))
            return _exception, (type(obj), obj.args), attributes, None, None, _set_attributes
        return super().reducer_override(obj)


def _exception(kind: type[BaseException], arguments: tuple[Any, ...]) -> BaseException:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    return error


def _set_attributes(error: BaseException, attributes: dict[str, Any]) -> None:
    error.__dict__.update(attributes)


def _code(code: CodeType) -> tuple[Any, ...]:
    """As cloudpickle has it, but with the name of the file, which it leaves out from 3.1.3 on: tracebacks show it."""
    make, arguments, *rest = cloudpickle.cloudpickle._code_reduce(code)
    named = tuple(code.co_filename if argument == _NO_FILE else argument for argument in arguments)
    return (make, named, *rest)


def _named(module: str, name: str) -> object:
    return getattr(importlib.import_module(module), name)


def _cached(func: Callable[..., Any], parameters: dict[str, Any]) -> Callable[..., Any]:
    made: Callable[..., Any] = functools.lru_cache(**parameters)(func)
    return made


def _cached_property(func: Callable[[Any], Any], name: str | None) -> functools.cached_property[Any]:
    made = functools.cached_property(func)
    made.attrname = name
    return made
