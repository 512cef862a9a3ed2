"""Whether a function that was sent by name is the same code where it is imported.

Values of defaults and closures may rightly differ from machine to machine, so that only code counts: what the function
does, what it wraps, the functions in its closure, the methods of a class. The code of the standard library is left out,
as patch versions of Python differ in it, and so is code that a library generates, such as a dataclass's ``__init__``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from functools import lru_cache
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType

from graflow_celery.codec.fingerprint import fingerprint
from graflow_celery.codec.location import HEAP_TYPE, is_cached_function
from graflow_celery.codec.objectgraph import hashed

_DESCRIPTORS = (staticmethod, classmethod, property, functools.cached_property)
_WRAPPING = ("__wrapped__", "func", "fget", "fset", "fdel", "__func__")
_TYPE_HINTS = frozenset({"__annotate__", "__annotate_func__"})


def code_fingerprint(func: object) -> str | None:
    """32 characters that stand for the code of a function or class; None for what has none, such as ``len``.

    Two of them compare only where Python's minor version and ``sys.flags.optimize`` are the same.
    """
    found: list[str] = []
    seen: set[int] = set()
    pending: list[object] = [func]
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, FunctionType) and not _is_left_out(part):
            found.append(_fingerprint_of_code(part.__code__))
        elif isinstance(part, _DESCRIPTORS):
            found.append(type(part).__name__)
        pending += reversed(list(_parts(part)))
    return hashed(*found).hex() if found else None


@lru_cache(maxsize=4096)
def _fingerprint_of_code(code: CodeType) -> str:
    return fingerprint(code)


def innermost(func: object) -> object:
    """The function in a partial or a method of an object, the class of an object that is called; else itself."""
    while isinstance(func, functools.partial | MethodType):
        func = func.func if isinstance(func, functools.partial) else func.__func__
    has_own = isinstance(func, FunctionType | BuiltinFunctionType | type) or is_cached_function(func)
    return func if has_own else type(func)


def code_conditions() -> dict[str, object]:
    """What has to be the same in two processes for the code of one source to be the same."""
    return {"python": list(sys.version_info[:2]), "optimize": sys.flags.optimize}


def _parts(part: object) -> Iterable[object]:
    """Those of its parts that have code, in an order that the source alone decides."""
    if isinstance(part, FunctionType):
        yield getattr(part, "__wrapped__", None)
        for cell in part.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # it is not filled yet
                continue
            if isinstance(content, FunctionType | MethodType | functools.partial) or is_cached_function(content):
                yield content
    elif isinstance(part, type):
        if part.__flags__ & HEAP_TYPE:
            yield from _methods(part)
    elif isinstance(part, (*_DESCRIPTORS, functools.partial)):
        yield from (getattr(part, name, None) for name in _WRAPPING)
    elif isinstance(part, MethodType):
        yield part.__func__
    elif is_cached_function(part):
        yield part.__wrapped__  # type: ignore[attr-defined]  # what functools.cache makes has it


def _methods(cls: type) -> Iterable[object]:
    """The methods of a class, and of its bases from the same package."""
    package = cls.__module__.partition(".")[0]
    for kind in cls.__mro__:
        if kind.__module__.partition(".")[0] == package:
            own = vars(kind)
            yield from (
                own[name] for name in sorted(own) if name not in _TYPE_HINTS and not isinstance(own[name], type)
            )


def _is_left_out(func: FunctionType) -> bool:
    module = func.__globals__.get("__name__")
    is_standard = isinstance(module, str) and module.partition(".")[0] in sys.stdlib_module_names
    return is_standard or func.__code__.co_filename.startswith("<")
