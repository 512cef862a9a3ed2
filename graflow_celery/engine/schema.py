"""Messages of a declared type as plain values, and back: TypedDicts, dataclasses and pydantic models, at any depth.

A dataclass or model becomes a dict, an enum's member its value, a tuple or set a list: JSON, if the leaves are. Where a
type is a union, the first of its types that fits is taken. pydantic is never imported here: a model brings it along.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, NewType, NotRequired, Required, TypeVar, Union, get_args, get_origin, get_type_hints

#: What a value must be, and what it is built as. A Sequence comes back as a list, whatever it was.
_ITEMS: Mapping[Any, tuple[tuple[type, ...], Any]] = {
    list: ((list,), list),
    tuple: ((tuple,), tuple),
    set: ((set,), set),
    frozenset: ((frozenset,), frozenset),
    Sequence: ((list, tuple), list),
    MutableSequence: ((list,), list),
    AbstractSet: ((set, frozenset), set),
}
_MAPPINGS = (dict, Mapping, MutableMapping)


class Misfit(TypeError):
    """A value is not of its declared type; the message says where in it and what is there."""


def is_schema(kind: object) -> bool:
    """Whether messages can be declared by it."""
    return _is_typed_dict(kind) or _is_dataclass(kind) or _is_model(kind)


def to_plain(value: Any, hint: Any) -> Any:
    """A message as a plain value. Raises Misfit if it is not of the type that ``hint`` says."""
    return _convert(value, hint, "", building=False)


def from_plain(value: Any, hint: Any) -> Any:
    """The message that :func:`to_plain` made ``value`` of. Raises Misfit if it is of no such message."""
    return _convert(value, hint, "", building=True)


def _convert(value: Any, hint: Any, path: str, building: bool) -> Any:
    if hint is Any or hint is object or isinstance(hint, TypeVar):
        return value
    if isinstance(hint, NewType):
        return _convert(value, hint.__supertype__, path, building)
    kind = get_origin(hint) or hint
    if kind is Literal:
        if any(value == choice and type(value) is type(choice) for choice in get_args(hint)):
            return value
        raise _misfit(path, value, f"one of {', '.join(repr(choice) for choice in get_args(hint))}")
    if kind is Union or kind is UnionType:
        return _union(value, hint, path, building)
    if kind in _ITEMS:
        return _items(value, hint, kind, path, building)
    if kind in _MAPPINGS:
        return _mapping(value, hint, path, building)
    if _is_typed_dict(kind):
        return _typed_dict(value, kind, path, building)
    if _is_dataclass(kind):
        return _dataclass(value, kind, path, building)
    if _is_model(kind):
        return _model(value, kind, path, building)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum(value, kind, path, building)
    return _leaf(value, kind, path)


def _leaf(value: Any, kind: Any, path: str) -> Any:
    if kind is None:
        kind = NoneType
    if not isinstance(kind, type):
        return value
    fits = isinstance(value, (int, float)) if kind is float else isinstance(value, kind)
    if not fits or (isinstance(value, bool) and kind in (int, float)):
        raise _misfit(path, value, kind.__name__)
    return value


def _enum(value: Any, kind: type[Enum], path: str, building: bool) -> Any:
    if not building:
        return _instance(value, kind, path).value
    try:
        return kind(value)
    except ValueError as error:
        raise Misfit(f"{_at(path)}{error}") from None


def _union(value: Any, hint: Any, path: str, building: bool) -> Any:
    misfits: list[str] = []
    for choice in get_args(hint):
        try:
            return _convert(value, choice, path, building)
        except Misfit as error:
            misfits.append(str(error))
    raise Misfit("; ".join(misfits))


def _items(value: Any, hint: Any, kind: Any, path: str, building: bool) -> Any:
    expected: Any
    expected, built = _ITEMS[kind]
    if building:
        expected = (list,)
    if not isinstance(value, expected):
        raise _misfit(path, value, " or ".join(one.__name__ for one in expected))
    arguments = get_args(hint)
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise Misfit(f"{_at(path)}{len(value)} items, not {len(arguments)}")
        hints: Sequence[Any] = arguments
    else:
        hints = [arguments[0] if arguments else Any] * len(value)
    converted = [
        _convert(item, item_hint, f"{path}[{index}]", building)
        for index, (item, item_hint) in enumerate(zip(value, hints, strict=True))
    ]
    return built(converted) if building else converted


def _mapping(value: Any, hint: Any, path: str, building: bool) -> Any:
    if not isinstance(value, dict):
        raise _misfit(path, value, "dict")
    key_hint, value_hint = get_args(hint) or (Any, Any)
    return {
        _convert(key, key_hint, f"{path}[{key!r}]", building): _convert(item, value_hint, f"{path}[{key!r}]", building)
        for key, item in value.items()
    }


def _typed_dict(value: Any, kind: Any, path: str, building: bool) -> Any:
    hints, required = _typed_dict_fields(kind)
    return _fields(value, hints, required, path, building, kind.__name__)


def _dataclass(value: Any, kind: Any, path: str, building: bool) -> Any:
    hints = _hints(kind)
    kept = [field for field in dataclasses.fields(kind) if field.init]
    if not building:
        _instance(value, kind, path)
        return {
            field.name: _convert(getattr(value, field.name), hints[field.name], _dotted(path, field.name), building)
            for field in kept
        }
    required = {
        field.name
        for field in kept
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    arguments = _fields(
        value, {field.name: hints[field.name] for field in kept}, required, path, building, kind.__name__
    )
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:  # what its own __post_init__ does not take
        raise Misfit(f"{_at(path)}{kind.__name__}: {error}") from error


def _model(value: Any, kind: Any, path: str, building: bool) -> Any:
    """By JSON in both directions, which a strict model takes too. Written only if it can be read."""
    try:
        if building:
            return kind.model_validate_json(json.dumps(value))
        text = _instance(value, kind, path).model_dump_json(by_alias=True, round_trip=True, warnings=False)
        kind.model_validate_json(text)
        return json.loads(text)
    except Misfit:
        raise
    except (TypeError, ValueError) as error:  # pydantic's errors are ValueErrors
        raise Misfit(f"{_at(path)}{error}") from error


def _fields(
    value: Any, hints: Mapping[str, Any], required: AbstractSet[str], path: str, building: bool, name: str
) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _misfit(path, value, name)
    if missing := sorted(required - value.keys()):
        raise Misfit(f"{_at(path)}{name} needs {', '.join(repr(field) for field in missing)}")
    if unknown := sorted(repr(field) for field in value.keys() - hints.keys()):
        raise Misfit(f"{_at(path)}{name} has no {', '.join(unknown)}")
    return {field: _convert(item, hints[field], _dotted(path, field), building) for field, item in value.items()}


def _instance(value: Any, kind: Any, path: str) -> Any:
    if type(value) is not kind:  # A subclass would come back as less than it was.
        raise _misfit(path, value, kind.__name__)
    return value


@lru_cache(maxsize=256)
def _hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)


@lru_cache(maxsize=256)
def _typed_dict_fields(kind: Any) -> tuple[Mapping[str, Any], AbstractSet[str]]:
    """The types of a TypedDict's fields, and which it must have.

    Its own list of those is wrong where annotations are text, as under ``from __future__ import annotations``.
    """
    marked = get_type_hints(kind, include_extras=True)
    listed: AbstractSet[str] = kind.__required_keys__
    required = {
        field
        for field, hint in marked.items()
        if get_origin(hint) is Required or (field in listed and get_origin(hint) is not NotRequired)
    }
    return _hints(kind), required


def _is_typed_dict(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__required_keys__")


def _is_dataclass(kind: object) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and hasattr(kind, "model_validate_json") and hasattr(kind, "model_dump_json")


def _misfit(path: str, value: Any, expected: str) -> Misfit:
    return Misfit(f"{_at(path)}{type(value).__name__}, not {expected}")


def _at(path: str) -> str:
    return f"{path}: " if path else ""


def _dotted(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
