"""What a setting may be: its default, what it means, and how a value of it is read. Values come as text or as they are.

A library for data models would do this too, at 9 MB in every process of every worker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

#: Reads a value. Raises ValueError: it cannot be used; the text does not hold it. :class:`WrongItemError` of a list.
Read = Callable[[Any], Any]

_TRUE, _FALSE = frozenset({"1", "true", "t", "yes", "y", "on"}), frozenset({"0", "false", "f", "no", "n", "off"})


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One setting."""

    default: Any
    description: str
    read: Read


class WrongItemError(ValueError):
    """An item of a list cannot be used; ``number`` says which."""

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(problem)
        self.number = number


@runtime_checkable
class Secret(Protocol):
    """What does not show what it holds unless it is asked."""

    def get_secret_value(self) -> str: ...


class SecretStr:
    """A text that does not show when it is printed or logged."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.get_secret_value() == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"SecretStr('{'**********' if self._text else ''}')"

    def __str__(self) -> str:
        return "**********" if self._text else ""


def field(default: Any, description: str, read: Read) -> Any:
    """A setting, as a class's attribute. Any, so that the attribute has the type that the class says."""
    return FieldSpec(default, description, read)


def text(*, least: int = 0, pattern: str | None = None) -> Read:
    """A text of at least so many characters, which as a whole is like ``pattern``."""

    def read(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError("Input should be a valid string")
        if len(value) < least:
            raise ValueError(f"String should have at least {least} character")
        if pattern is not None and re.fullmatch(pattern, value) is None:
            raise ValueError(f"String should match pattern '{pattern}'")
        return value

    return read


def number(*, over: float) -> Read:
    """A number greater than ``over``."""

    def read(value: Any) -> float:
        try:
            found = float(value) if not isinstance(value, bool) else None
        except (TypeError, ValueError):
            found = None
        if found is None:
            raise ValueError("Input should be a valid number")
        if not found > over:
            raise ValueError(f"Input should be greater than {over:g}")
        return found

    return read


def whole(*, least: int, most: int | None = None) -> Read:
    """A whole number in these bounds."""

    def read(value: Any) -> int:
        try:
            found = int(value) if not isinstance(value, bool) and value == int(value) else None
        except (TypeError, ValueError):
            found = None
        if found is None and isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+\s*", value):
            found = int(value)
        if found is None:
            raise ValueError("Input should be a valid integer")
        if found < least:
            raise ValueError(f"Input should be greater than or equal to {least}")
        if most is not None and found > most:
            raise ValueError(f"Input should be less than or equal to {most}")
        return found

    return read


def flag(value: Any) -> bool:
    """True or False, or a word for one of them."""
    word = str(value).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError("Input should be a valid boolean: true or false")


def one_of(*names: str, otherwise: Read | None = None) -> Read:
    """One of these names; or what ``otherwise`` reads."""
    listed = [repr(name) for name in names]
    shown = f"{', '.join(listed[:-1])} or {listed[-1]}" if len(listed) > 1 else listed[0]

    def read(value: Any) -> Any:
        if isinstance(value, str) and value in names:
            return value
        if otherwise is None:
            raise ValueError(f"Input should be {shown}")
        try:
            return otherwise(value)
        except ValueError as error:
            raise ValueError(f"Input should be {shown}, or a number: {error}") from None

    return read


def listed(item: Read) -> Read:
    """A tuple. As text: a JSON list, or items with commas between them."""

    def read(value: Any) -> tuple[Any, ...]:
        found = []
        for number, one in enumerate(_parts(value)):
            try:
                found.append(item(one))
            except ValueError as error:
                raise WrongItemError(number, str(error)) from None
        return tuple(found)

    return read


def _parts(value: Any) -> Sequence[Any]:
    if not isinstance(value, str):
        if isinstance(value, list | tuple):
            return value
        raise ValueError("Input should be a list")
    if not value.lstrip().startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    try:
        found: list[Any] = json.loads(value)
    except ValueError:
        raise ValueError('it is no JSON list. Write ["a", "b"], or a,b') from None
    return found


def secret(value: Any) -> SecretStr:
    """A text that nobody is to see, not an empty one."""
    found = value.get_secret_value() if isinstance(value, Secret) else value
    if not isinstance(found, str):
        raise ValueError("Input should be a valid string")
    if not found:
        raise ValueError("a secret is empty. Give it some characters, or leave it out")
    return SecretStr(found)


def optional(read: Read) -> Read:
    """None, or what ``read`` reads."""
    return lambda value: None if value is None else read(value)
