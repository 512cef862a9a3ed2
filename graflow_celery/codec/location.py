"""Where an object can be found by name, here and so in another process; what cannot travels by value."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, MethodType

import cloudpickle.cloudpickle

from graflow_celery.errors import ConfigError

_MAIN_MODULES = frozenset({"__main__", "__mp_main__"})
_PROCESS_OBJECTS = ((sys, ("stdin", "stdout", "stderr")), (os, ("environ", "environb")))
_WRAPPER_ATTRIBUTES = ("func", "__wrapped__")
_DEEPEST_WRAPPING = 8
#: In a class's ``__flags__``: it was made while the program ran, as every class statement does.
HEAP_TYPE = 1 << 9
#: The modules of :func:`sent_by_value`. Not in cloudpickle's registry, which all threads of the process share.
_sent: ContextVar[frozenset[str]] = ContextVar("modules sent by value", default=frozenset())


@dataclass(frozen=True, slots=True)
class Location:
    """``module`` and ``qualname`` lead to an object, the attributes ``unwrap`` on to the one meant."""

    module: str
    qualname: str
    unwrap: tuple[str, ...] = ()


def register_by_value(module_name: str) -> None:
    """From now on, functions and classes of this module (and of its submodules) travel by value.

    Raises:
        ConfigError: the module cannot be imported here.
    """
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"Module '{module_name}' cannot be sent by value: it cannot be imported here ({error}). "
            f"Check its name, or put it on the path (PYTHONPATH)."
        ) from error
    cloudpickle.register_pickle_by_value(module)


def unregister_by_value(module_name: str) -> None:
    """Takes :func:`register_by_value` back. Nothing happens if the module was not registered."""
    if module_name in cloudpickle.cloudpickle.list_registry_pickle_by_value():
        cloudpickle.unregister_pickle_by_value(sys.modules[module_name])


@contextmanager
def sent_by_value(module_names: Iterable[str]) -> Iterator[None]:
    """For the block, and in this thread alone: what these modules (and their submodules) define travels by value."""
    token = _sent.set(_sent.get() | frozenset(module_names))
    try:
        yield
    finally:
        _sent.reset(token)


def is_sent_by_value(module_name: object) -> bool:
    """Whether :func:`sent_by_value` has the module at this moment."""
    return bool(_sent.get()) and isinstance(module_name, str) and _within(module_name, _sent.get())


def travels_by_value(module_name: str) -> bool:
    """Whether what this module defines is sent whole: it is ``__main__``, or within a registered or a sent one."""
    if module_name in _MAIN_MODULES or is_sent_by_value(module_name):
        return True
    registered = cloudpickle.cloudpickle.list_registry_pickle_by_value()
    return bool(registered) and _within(module_name, registered)


def _within(module_name: str, names: Iterable[str]) -> bool:
    return any(module_name == name or module_name.startswith(f"{name}.") for name in names)


def home_modules(func: object) -> frozenset[str]:
    """The modules that define ``func``: of a partial, a method or a wrapper, those of what is in it."""
    found: set[str] = set()
    pending: list[object] = [func]
    seen: set[int] = set()
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, functools.partial):
            pending.append(part.func)
        elif isinstance(part, MethodType):
            owner = part.__self__
            pending += [part.__func__, owner if isinstance(owner, type) else type(owner)]
        else:
            is_code = isinstance(part, FunctionType | BuiltinFunctionType | type) or is_cached_function(part)
            module = (part if is_code else type(part)).__module__
            found |= {module} if isinstance(module, str) else set()
            pending += [part.__wrapped__] if hasattr(part, "__wrapped__") else []
    return frozenset(found)


def is_importable(func: object) -> bool:
    """Whether importing its module and walking its qualified name leads to ``func``.

    It may be inside wrappers: objects with an attribute ``func`` (a task) or ``__wrapped__``
    (``functools.wraps``).
    """
    return locate(func) is not None


def locate(func: object) -> Location | None:
    """The way to ``func`` by name, or None if it has to travel by value."""
    module_name = getattr(func, "__module__", None)
    qualname = getattr(func, "__qualname__", None)
    if not isinstance(module_name, str) or not isinstance(qualname, str):
        return None
    if "<" in qualname or travels_by_value(module_name):
        return None
    found: object = sys.modules.get(module_name)
    if found is None:
        return None
    for name in qualname.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            return None
    for path, candidate in _inside(found):
        if candidate is func:
            return Location(module_name, qualname, path)
    return None


def locate_in_process(obj: object) -> Location | None:
    """The name of an object that every process has its own of.

    Such are ``sys.stdout``, ``os.environ``, ``random.choice``. Its state here means nothing elsewhere, so it
    travels and counts by name. None for any other object.
    """
    if isinstance(obj, MethodType | BuiltinFunctionType):
        name = obj.__name__
        for module_name in (getattr(obj, "__module__", None), type(obj.__self__).__module__):
            if not isinstance(module_name, str) or travels_by_value(module_name):
                continue
            if getattr(sys.modules.get(module_name), name, None) is obj:
                return Location(module_name, name)
        return None
    for module, names in _PROCESS_OBJECTS:
        for name in names:
            if obj is not None and getattr(module, name, None) is obj:
                return Location(module.__name__, name)
    return None


def type_name(obj: object) -> str:
    """The qualified name of the object's type, as a person would write it."""
    return qualified_name(type(obj))


def qualified_name(cls: type) -> str:
    """``module.Class``, or ``Class`` for a built-in one."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def is_cached_function(obj: object) -> bool:
    """Whether ``obj`` was made by ``functools.cache`` or ``functools.lru_cache``."""
    return isinstance(obj, functools._lru_cache_wrapper)


def _inside(found: object) -> Iterator[tuple[tuple[str, ...], object]]:
    """``found`` and what it wraps, each with the attributes that lead there; the nearest first."""
    seen: set[int] = set()
    layer: list[tuple[tuple[str, ...], object]] = [((), found)]
    for _ in range(_DEEPEST_WRAPPING):
        deeper: list[tuple[tuple[str, ...], object]] = []
        for path, candidate in layer:
            if candidate is None or id(candidate) in seen:
                continue
            seen.add(id(candidate))
            yield path, candidate
            deeper += [((*path, name), getattr(candidate, name, None)) for name in _WRAPPER_ATTRIBUTES]
        layer = deeper
