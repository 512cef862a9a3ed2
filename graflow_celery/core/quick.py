"""Frozen values that cost little to make.

The constructor of a frozen dataclass finds each field's slot by its name, in Python code, whenever it makes a value.
That is a fifth of what it costs to run a node here, so the values made for every node look their slots up once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar

Value = TypeVar("Value")


def quick(cls: type[Value]) -> type[Value]:
    """Gives a class made by ``@dataclass(frozen=True, slots=True)`` a constructor that is twice as fast.

    Everything else stays: the value is frozen, and takes the same arguments.

    Raises:
        TypeError: the constructor does more than to fill the fields.
    """
    given = fields(cls)  # type: ignore[arg-type]  # a dataclass, which the type cannot say
    if hasattr(cls, "__post_init__") or not all(field.init and not field.kw_only for field in given):
        raise TypeError(f"{cls.__name__} does more than to fill its fields")
    known: dict[str, Any] = {"_MADE": _MADE}
    arguments, lines = [], []
    for field in given:
        name, source = field.name, field.name
        known[f"_set_{name}"] = getattr(cls, name).__set__
        argument = name
        if field.default is not MISSING:
            known[f"_default_{name}"] = field.default
            argument = f"{name}=_default_{name}"
        elif field.default_factory is not MISSING:
            known[f"_make_{name}"] = field.default_factory
            argument, source = f"{name}=_MADE", f"_make_{name}() if {name} is _MADE else {name}"
        arguments.append(argument)
        lines.append(f"    _set_{name}(self, {source})")
    source = "\n".join([f"def __init__(self, {', '.join(arguments)}):", *lines])
    exec(source, known)
    made: Callable[..., None] = known["__init__"]
    made.__annotations__ = dict(cls.__init__.__annotations__)
    made.__qualname__, made.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    cls.__init__ = made  # type: ignore[method-assign]  # that is what it is for
    return cls


class _Made:
    """Stands for what a default factory makes."""

    def __repr__(self) -> str:
        return "<made anew>"


_MADE = _Made()
